//! How every error of a fleet file reads.

use std::fmt::Write as _;
use std::path::Path;

use orchestrator::fleet_file::FleetFile;

/// Each case is a title and a fleet file that must be refused.
const CASES: &[(&str, &str)] = &[
    ("no host at all", "[defaults]\nuser = \"ubuntu\"\n"),
    ("an empty file", ""),
    ("an empty list of hosts", "hosts = []\n"),
    ("single brackets", "[hosts]\nname = \"a\"\n"),
    ("a host that is no table", "hosts = [\"gpu-01\"]\n"),
    ("bad syntax, twice", "[[hosts]]\nname = \n[[hosts]\nname = \"a\"\n"),
    ("a key written twice", "[[hosts]]\nname = \"a\"\nname = \"b\"\n"),
    ("a misspelt section", "[default]\nuser = \"u\"\n[[hosts]]\nname = \"a\"\n"),
    ("a misspelt key", "[[hosts]]\nname = \"a\"\nadress = \"10.0.0.1\"\n"),
    ("a key like nothing known", "[[hosts]]\nname = \"a\"\nzzz = 1\n"),
    ("a key with an escape sequence", "[[hosts]]\nname = \"a\"\n\"\\u001b[2J\" = 1\n"),
    ("no name", "[[hosts]]\naddress = \"10.0.0.1\"\n"),
    ("a name of another type", "[[hosts]]\nname = 7\n"),
    ("a name with a space", "[[hosts]]\nname = \"gpu 01\"\n"),
    ("a range that is not closed", "[[hosts]]\nname = \"gpu-[01-16\"\n"),
    ("a bracket too many", "[[hosts]]\nname = \"gpu-01]\"\n"),
    ("a range in Ansible's words", "[[hosts]]\nname = \"gpu-[01:16]\"\n"),
    ("a range that runs backwards", "[[hosts]]\nname = \"gpu-[1,16-01]\"\n"),
    ("a range of letters", "[[hosts]]\nname = \"gpu-[a-f]\"\n"),
    ("a range of nothing", "[[hosts]]\nname = \"gpu-[1,]\"\n"),
    ("a range of two widths", "[[hosts]]\nname = \"gpu-[1-016]\"\n"),
    (
        "more hosts than allowed, before they are made",
        "[[hosts]]\nname = \"h[0-999999999]-[0-999999999]\"\n",
    ),
    (
        "the same name twice",
        "[[hosts]]\nname = \"gpu-[1-3]\"\n\n[[hosts]]\nname = \"gpu-2\"\naddress = \"10.0.0.2\"\n",
    ),
    (
        "names and addresses differ in number",
        "[[hosts]]\nname = \"g[1-3]\"\naddress = \"10.0.0.[1-2]\"\n",
    ),
    ("one address for many", "[[hosts]]\nname = \"g[1-3]\"\naddress = \"10.0.0.1\"\n"),
    ("an address with a user", "[[hosts]]\nname = \"a\"\naddress = \"root@10.0.0.1\"\n"),
    ("an address with a port", "[[hosts]]\nname = \"a\"\naddress = \"example.com:22\"\n"),
    (
        "an address that reads as an option",
        "[[hosts]]\nname = \"a\"\naddress = \"-oProxyCommand=x\"\n",
    ),
    ("an address out of IPv4", "[[hosts]]\nname = \"a\"\naddress = \"10.0.0.[300]\"\n"),
    ("an address that is nearly IPv6", "[[hosts]]\nname = \"a\"\naddress = \"[2001:db8::zz]\"\n"),
    ("an address with a shell in it", "[[hosts]]\nname = \"a\"\naddress = \"$(id)\"\n"),
    ("port zero", "[[hosts]]\nname = \"a\"\nport = 0\n"),
    ("a port as a string", "[[hosts]]\nname = \"a\"\nport = \"22\"\n"),
    ("a login name with a space", "[defaults]\nuser = \"a b\"\n[[hosts]]\nname = \"a\"\n"),
    (
        "the public half of a key",
        "[[hosts]]\nname = \"a\"\nidentity_file = [\"~/k\", \"~/k.pub\"]\n",
    ),
    ("another user's home", "[[hosts]]\nname = \"a\"\nidentity_file = \"~bob/k\"\n"),
    ("an agent that is a number", "[[hosts]]\nname = \"a\"\nagent = 3\n"),
    ("a jump with a bad port", "[[hosts]]\nname = \"a\"\nproxy_jump = \"b1,u@b2:ssh\"\n"),
    ("too many jumps", "[[hosts]]\nname = \"a\"\nproxy_jump = \"b,b,b,b,b,b,b,b,b\"\n"),
    ("a jump table with an unknown key", "[jumps.b1]\ngpus = 1\n[[hosts]]\nname = \"a\"\n"),
    ("a jump that is no table", "[jumps]\nb1 = \"x\"\n[[hosts]]\nname = \"a\"\n"),
    ("kubernetes", "[[hosts]]\nname = \"a\"\nmode = \"kubernetes\"\n"),
    ("a misspelt mode", "[[hosts]]\nname = \"a\"\nmode = \"manuel\"\n"),
    ("GPUs without a count", "[[hosts]]\nname = \"a\"\ngpus = { model = \"NVIDIA H100\" }\n"),
    (
        "GPUs of count zero",
        "[[hosts]]\nname = \"a\"\ngpus = { model = \"NVIDIA H100\", count = 0 }\n",
    ),
    ("a bad label name", "[[hosts]]\nname = \"a\"\nlabels = { \"r,k\" = \"a\" }\n"),
    ("a label that is a number", "[[hosts]]\nname = \"a\"\nlabels = { rack = 7 }\n"),
    ("a bad label value", "[[hosts]]\nname = \"a\"\nlabels = { rack = \"a,b\" }\n"),
    ("a relative work directory", "[[hosts]]\nname = \"a\"\nwork_dir = \"cache\"\n"),
    ("a pin cut short", "[[hosts]]\nname = \"a\"\nhost_key = \"SHA256:abc\"\n"),
    (
        "one pin for many",
        "[[hosts]]\nname = \"g[1-2]\"\nhost_key = \"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n",
    ),
    (
        "independent errors, all at once",
        "[defaults]\nuser = \"a b\"\n\n[[hosts]]\nname = \"x y\"\nport = 99999\n\n[[hosts]]\nname = \"b\"\nmode = \"k8s\"\nuser = 1\n",
    ),
    ("a long line, cut around the caret", LONG_LINE),
    (
        "tabs, wide characters and controls in the line",
        "[[hosts]]\nname = \"a\"\nlabels = { a = \"\u{202e}\u{e9}\t\u{e9}\", b = \"!\" }\n",
    ),
];

const LONG_LINE: &str = "[[hosts]]\nname = \"a\"\nlabels = { aaaaaaaaaaaaaaaaaaaaaaaa = \"aaaaaaaaaaaaaaaaaaaaaaaa\", bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = \"bbbbbbbbbbbbbbbbbbbbbbbb\", rack = \"!\", cccccccccccccccccccccccccccccccc = \"cccccccccccccccccccccccccccccccc\", d = \"d\" }\n";

#[test]
fn every_error_reads_as_recorded() {
    let mut all = String::new();
    for (title, text) in CASES {
        let error = match FleetFile::parse(Path::new("fleet.toml"), text) {
            Ok(fleet) => panic!("{title}: accepted as {fleet:?}"),
            Err(error) => error,
        };
        write!(all, "## {title}\n{error}\n\n").unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn errors_are_capped_and_the_rest_is_counted() {
    let mut text = String::new();
    for index in 0..50 {
        writeln!(text, "[[hosts]]\nname = \"h{index}\"\nport = 0").unwrap();
    }
    let error = FleetFile::parse(Path::new("fleet.toml"), &text).unwrap_err().to_string();
    assert_eq!(error.matches("`port` is 0").count(), 20);
    assert!(error.ends_with("and 30 more errors"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = FleetFile::load(Path::new("/nonexistent/fleet.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/fleet.toml");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_huge_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet.toml");
    std::fs::File::create(&path).unwrap().set_len(17 << 20).unwrap();
    let error = FleetFile::load(&path).unwrap_err();
    assert!(error.to_string().ends_with("is larger than 16 MiB"), "{error}");
}

/// The example at the top of the reference is a fleet file.
#[test]
fn the_example_of_the_reference_is_accepted() {
    let reference = include_str!("../../../docs/fleet-file.md");
    let example = reference.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let fleet = FleetFile::parse(Path::new("fleet.toml"), example).unwrap();
    assert_eq!(fleet.hosts.len(), 17);
    // And every key that the parser knows is in the table of keys.
    let text = "[[hosts]]\nname = \"a\"\nzzzzzz = 1\n";
    let error = FleetFile::parse(Path::new("f"), text).unwrap_err().to_string();
    for key in error.rsplit("known here: ").next().unwrap().split(", ") {
        assert!(reference.contains(&format!("| `{key}` |")), "{key} is not documented");
    }
}

proptest::proptest! {
    /// Whatever the text, the answer is a fleet or a complaint with a place in the file.
    #[test]
    fn no_text_makes_the_parser_panic(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "[[hosts]]\n", "[hosts]\n", "[defaults]\n", "[jumps.b]\n", "name = ", "address = ", "port = ",
                "proxy_jump = ", "gpus = ", "labels = ", "host_key = ", "agent = ", "\"a[1-3]\"", "\"[::[1-2]]\"",
                "\"u@b:1,[::1]:2\"", "'[['", "{ a = \"b\" }", "[\"a\", 1]", "-1", "99999999999999999999", "\n", "\u{e9}",
                "\"\"\"x\ny\"\"\"", "\"\\u0000\"", "#",
            ]),
            0..24,
        )
    ) {
        let text = pieces.concat();
        if let Err(error) = FleetFile::parse(Path::new("f"), &text) {
            proptest::prop_assert!(error.to_string().starts_with("f:"));
        }
    }
}
