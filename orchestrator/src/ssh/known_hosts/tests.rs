use proptest::prelude::*;

use super::*;

const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEjVf/ZtYcRoYM7BHD4zAyGzQdnBMHPOMD4Lrzpcwvan";
const ED_TOO: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO0wAh1hvJzKLmJcaBSYRSDoA2JB6iDkyVPI+EwfqkhU";
/// A type that no one has: only its name matters here.
const ODD: &str = "ssh-odd AAAAB3NzaC1vZGQAAAAEAQIDBA==";

fn known(content: &str) -> KnownHosts {
    let mut known = KnownHosts::default();
    known.add(content.as_bytes(), Path::new("kh"));
    known
}

fn key(line: &str) -> KeyBlob {
    KeyBlob::from_line(line).unwrap()
}

#[test]
fn the_answer_tells_known_changed_other_type_and_unknown_apart() {
    let known = known(&format!("gpu {ED} a comment\n"));
    assert!(matches!(known.check("gpu", &key(ED)), Answer::Known(at) if at.line == 1));
    assert!(matches!(known.check("gpu", &key(ED_TOO)), Answer::Changed(_)));
    assert!(matches!(known.check("gpu", &key(ODD)), Answer::OtherType(_)));
    assert_eq!(known.check("gpu2", &key(ED)), Answer::Unknown);
    assert_eq!(known.check("[gpu]:2222", &key(ED)), Answer::Unknown);
}

#[test]
fn a_revocation_outweighs_a_pin_wherever_it_stands() {
    for content in [format!("gpu {ED}\n@revoked * {ED}\n"), format!("@revoked * {ED}\ngpu {ED}\n")]
    {
        assert!(matches!(known(&content).check("gpu", &key(ED)), Answer::Revoked(_)));
    }
}

#[test]
fn a_revoked_authority_is_none() {
    let content = format!("@cert-authority *.lan {ED}\n");
    assert_eq!(known(&content).authorities("a.lan").len(), 1);
    assert!(matches!(known(&content).check("a.lan", &key(ODD)), Answer::CertAuthority(_)));
    let content = format!("{content}@revoked *.lan {ED}\n");
    assert_eq!(known(&content).authorities("a.lan").len(), 0);
}

#[test]
fn tabs_carriage_returns_comments_and_case_are_no_obstacle() {
    let content = format!("# comment\r\n\r\n \t GPU,other\t{}\r\n", ED.replace(' ', "\t\t"));
    let known = known(&content);
    assert!(matches!(known.check("gpu", &key(ED)), Answer::Known(at) if at.line == 3));
    assert_eq!(known.skipped_lines(), 0);
}

#[test]
fn lines_without_meaning_are_skipped_and_counted() {
    let content = format!(
        "gpu\ngpu ssh-ed25519\ngpu ssh-ed25519 !!!\n@unknown gpu {ED}\n|9|x|y {ED}\n\
         gpu {}\n1024 65537 12345\nlast {ED}",
        ED.replace("ssh-ed25519 ", "ssh-rsa "),
    );
    let known = known(&content);
    assert_eq!(known.skipped_lines(), 7);
    assert!(matches!(known.check("last", &key(ED)), Answer::Known(_)));
    assert_eq!(known.check("gpu", &key(ED)), Answer::Unknown);
}

#[test]
fn an_unreadable_file_is_an_error_and_a_missing_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    assert!(KnownHosts::load([dir.path().join("none")]).is_ok());
    // A directory exists and cannot be read as a file, even by root.
    let error = KnownHosts::load([dir.path()]).unwrap_err();
    assert_eq!(error.path, dir.path());
}

#[test]
fn later_files_add_to_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    std::fs::write(&one, format!("gpu {ED}\n")).unwrap();
    std::fs::write(&two, format!("gpu {ED_TOO}\n@revoked gpu {ED}\n")).unwrap();
    let known = KnownHosts::load([&one, &two]).unwrap();
    assert!(matches!(known.check("gpu", &key(ED_TOO)), Answer::Known(at) if at.file == two));
    assert!(matches!(known.check("gpu", &key(ED)), Answer::Revoked(_)));
}

#[test]
fn fingerprints_are_those_of_openssh() {
    assert_eq!(key(ED).to_line(), ED);
    assert_eq!(key(&format!("{ED} comment")), key(ED));
    assert!(key(ED).fingerprint().starts_with("SHA256:") && key(ED).fingerprint().len() == 50);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_trust_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut known = KnownHosts::default();
        known.add(&bytes, Path::new("kh"));
        prop_assert_eq!(known.check("gpu", &key(ED)), Answer::Unknown);
    }

    #[test]
    fn any_damage_to_a_line_never_makes_another_key_known(
        at in 0_usize..80, byte in any::<u8>(),
    ) {
        let mut line = format!("gpu {ED}").into_bytes();
        if let Some(place) = line.get_mut(at) {
            *place = byte;
        }
        let mut known = KnownHosts::default();
        known.add(&line, Path::new("kh"));
        prop_assert!(!matches!(known.check("gpu", &key(ED_TOO)), Answer::Known(_)));
    }
}
