//! Wallets of the real library, and files that hands have changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use orchestrator::wallet::{Crypto, Keyfile, Passwords, Seal, WalletError, WalletPlace};
use serde_json::{Value, json};

use crate::cli::operator::Operator;
use crate::python;

const PASSWORD: &str = "Correct-Horse-9!";

/// A wallet that was made by hand from a known phrase, in the format of the 4.x line.
fn document() -> Value {
    // The phrase of Substrate's development accounts; `btcli wallet regen_hotkey` gives this file.
    json!({
        "secretPhrase": "bottom drive obey lake curtain smoke basket hold race lonely fit walk",
        "secretSeed": "0xfac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e",
        "publicKey": "0x46ebddef8cd9bb167dc30878d7113b7e168e6f0646beffd77d69d39bad76b47a",
        "accountId": "0x46ebddef8cd9bb167dc30878d7113b7e168e6f0646beffd77d69d39bad76b47a",
        "ss58Address": "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV",
        "cryptoType": 1,
    })
}

const ADDRESS: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";

fn open(path: &Path, password: Option<&str>) -> Result<(String, Crypto), WalletError> {
    let ask = |_: &Path| Ok(password.map(|text| text.as_bytes().to_vec().into()));
    let passwords = Passwords { variables: &|_| None, file: None, prompt: &ask };
    let (_, pair) = Keyfile::read(path)?.open(&passwords, true)?;
    let (hotkey, crypto) = (pair.hotkey(), pair.crypto());
    let signature = pair.sign(b"message");
    assert!(crypto.is_signed(&hotkey, b"message", &signature));
    assert!(!crypto.is_signed(&hotkey, b"massage", &signature));
    assert_eq!(format!("{pair:?}"), format!("HotkeyPair({hotkey})"), "no secret is shown");
    Ok((hotkey.to_string(), crypto))
}

fn open_text(text: &str) -> Result<(String, Crypto), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    open(file.path(), None).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        source.unwrap_or_else(|| error.to_string())
    })
}

/// Everything that a version of the library writes is read, with the same addresses.
async fn made_by(version: &str) -> Value {
    // Half a gigabyte of memory for each key that is derived, here and in the library: one at a time.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let made = python::run(version, "make_wallet.py", &[root]).await;
    let place = |hotkey| WalletPlace::new(folder.path(), "w", hotkey).unwrap();
    let plain = made["plain"].as_str().unwrap().to_owned();
    assert_eq!(
        open(&place("plain").hotkey_file(), None).unwrap(),
        (plain.clone(), Crypto::Sr25519)
    );
    assert_eq!(place("plain").coldkey().unwrap().unwrap().to_string(), made["coldkey"]);

    let locked = place("locked").hotkey_file();
    assert_eq!(Keyfile::read(&locked).unwrap().seal(), Some(Seal::Nacl));
    assert!(matches!(open(&locked, None), Err(WalletError::Locked { .. })));
    let (address, _) = open(&locked, Some(PASSWORD)).unwrap();
    assert_eq!(address, made["locked"]);
    assert!(matches!(open(&locked, Some("wrong")), Err(WalletError::Seal { .. })));
    // As the library leaves the password in the environment.
    let [name, value] = [0, 1].map(|at| made["variable"][at].as_str().unwrap().to_owned());
    let variables = |asked: &str| (asked == name).then(|| value.clone().into());
    let passwords = Passwords { variables: &variables, file: None, prompt: &|_| Ok(None) };
    let (_, pair) = Keyfile::read(&locked).unwrap().open(&passwords, false).unwrap();
    assert_eq!(pair.hotkey().to_string(), made["locked"]);

    let vault = place("vault").hotkey_file();
    assert_eq!(Keyfile::read(&vault).unwrap().seal(), Some(Seal::AnsibleVault));
    assert_eq!(open(&vault, Some(PASSWORD)).unwrap().0, plain);
    assert!(matches!(open(&vault, Some("wrong")), Err(WalletError::Seal { .. })));

    if let Some(ed) = made["ed"].as_str() {
        assert_eq!(
            open(&place("ed").hotkey_file(), None).unwrap(),
            (ed.to_owned(), Crypto::Ed25519)
        );
    }
    let [phrase, address] = [0, 1].map(|at| made["phrase"][at].as_str().unwrap());
    assert_eq!(open_text(phrase).unwrap().0, address);
    let names = place("plain").hotkeys().unwrap();
    assert!(names.iter().all(|name| !name.ends_with("pub.txt")), "{names:?}");
    for name in ["locked", "plain", "vault"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    made
}

#[tokio::test]
async fn wallets_of_the_2_x_library_are_read() {
    made_by("wallet2").await;
}

#[tokio::test]
async fn wallets_of_the_3_x_library_are_read() {
    made_by("wallet3").await;
}

#[tokio::test]
async fn wallets_of_the_4_x_library_are_read_ed25519_too() {
    let made = made_by("wallet4").await;
    assert!(made["ed"].is_string(), "this version makes ed25519 keys: {made}");
}

#[test]
fn any_one_of_phrase_seed_and_key_is_enough() {
    let key = (ADDRESS.to_owned(), Crypto::Sr25519);
    let whole = document();
    assert_eq!(open_text(&whole.to_string()).unwrap(), key);
    let only = |fields: &[&str]| {
        let mut kept = whole.clone();
        kept.as_object_mut().unwrap().retain(|name, _| fields.contains(&name.as_str()));
        kept.to_string()
    };
    for fields in [&["secretPhrase"][..], &["secretSeed"], &["secretSeed", "ss58Address"]] {
        assert_eq!(open_text(&only(fields)).unwrap(), key, "{fields:?}");
    }
    let phrase = whole["secretPhrase"].as_str().unwrap();
    let seed = whole["secretSeed"].as_str().unwrap();
    let folded = format!("  {}\n", phrase.replace(' ', "\n  "));
    for text in [phrase, &folded, seed, seed.strip_prefix("0x").unwrap()] {
        assert_eq!(open_text(text).unwrap(), key, "{text}");
    }
}

#[test]
fn files_that_hands_have_changed_are_refused_for_what_they_are() {
    let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let with = |field: &str, value: Value| {
        let mut changed = document();
        changed[field] = value;
        open_text(&changed.to_string()).unwrap_err()
    };
    // The SDK's reader takes no notice of this.
    let disagree = "its ss58Address is of another key than its publicKey";
    assert_eq!(with("ss58Address", json!(alice)), disagree);
    assert!(with("secretSeed", json!(format!("0x{}", "11".repeat(32)))).contains("another key"));
    assert_eq!(with("secretSeed", json!("0x12")), "its secretSeed is no such value");
    assert_eq!(with("secretPhrase", json!("bottom drive")), "its secretPhrase is no such value");
    assert!(with("cryptoType", json!(2)).contains("cryptoType is not known"));
    assert!(with("cryptoType", json!(0)).contains("another key"), "another cryptography");
    assert_eq!(with("ss58Address", json!("5Grw")), "its ss58Address is no address");
    let mut public = document();
    for secret in ["secretPhrase", "secretSeed"] {
        public.as_object_mut().unwrap().remove(secret);
    }
    assert!(open_text(&public.to_string()).unwrap_err().contains("public key alone"));
    assert!(open_text(&document().to_string()[..80]).unwrap_err().contains("damaged at line 1"));
    for (text, word) in [
        ("", "no keyfile"),
        ("hello", "no keyfile"),
        ("gAAAAABhello", "Fernet"),
        ("bottom drive obey lake curtain smoke basket hold race lonely fit bottom", "BIP-39"),
        ("\u{0}\u{1}", "no keyfile"),
    ] {
        let error = open_text(text).unwrap_err();
        assert!(error.contains(word), "{text:?}: {error}");
    }
}

#[test]
fn names_do_not_lead_out_of_the_wallet() {
    for name in ["", ".", "..", "a/b", "../x", "/etc/passwd", "a\0"] {
        assert!(WalletPlace::new(Path::new("/w"), name, "default").is_err(), "{name:?}");
        assert!(WalletPlace::new(Path::new("/w"), "default", name).is_err(), "{name:?}");
    }
}

fn place_wallet(operator: &Operator, name: &str, content: &str, mode: u32) {
    let folder = operator.home().join(".bittensor/wallets/default/hotkeys");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn wallet_show_tells_the_address_and_never_a_secret() {
    let operator = Operator::new();
    place_wallet(&operator, "default", &document().to_string(), 0o644);
    let shown = operator.run(["wallet", "show"]).await.expect(0);
    assert!(shown.stdout.contains(ADDRESS) && shown.stdout.contains("0644"), "{shown:?}");
    assert!(shown.stderr.contains("chmod 600"), "{shown:?}");
    let json = operator.run(["wallet", "show", "--json"]).await.expect(0);
    let row = &json.json_lines()[0];
    assert_eq!(row["hotkey"], ADDRESS);
    assert_eq!((&row["verified"], &row["private"]), (&json!(true), &json!(false)));
    for output in [&shown, &json] {
        for secret in ["bottom drive", "fac7959d"] {
            assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret));
        }
    }
}

#[tokio::test]
async fn wallet_show_says_what_is_missing() {
    let operator = Operator::new();
    let nothing = operator.run(["wallet", "show"]).await.expect(1);
    assert!(nothing.stderr.contains("btcli wallet new-hotkey"), "{nothing:?}");
    place_wallet(&operator, "first", &document().to_string(), 0o600);
    let other = operator.run(["wallet", "show", "--json"]).await.expect(1);
    assert_eq!(other.json_lines()[0]["reason"], "wallet");
    assert!(other.stderr.contains("are: first"), "{other:?}");
    place_wallet(&operator, "locked", "$NACL damaged", 0o600);
    let locked = operator.run(["wallet", "show", "--wallet-hotkey", "locked"]).await.expect(1);
    assert!(locked.stderr.contains("BT_PW_"), "{locked:?}");
}
