//! Where the password of an encrypted keyfile comes from. Never from the command line.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use zeroize::Zeroizing;

/// A password; wiped when it is dropped.
pub type Password = Zeroizing<Vec<u8>>;

/// No password is longer, in bytes.
const MAX_BYTES: u64 = 4096;

/// Reads a variable of the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Asks a person for the password of a file; `None` where nobody can be asked.
pub type Prompt<'a> = &'a dyn Fn(&Path) -> io::Result<Option<Password>>;

/// The sources of passwords, in the order in which they are tried.
pub struct Passwords<'a> {
    /// `BT_PW_<PATH>`, as `btcli` keeps it, or in plain.
    pub variables: Variables<'a>,
    /// A file with the password on its first line.
    pub file: Option<PathBuf>,
    /// A person at the terminal.
    pub prompt: Prompt<'a>,
}

impl Passwords<'_> {
    /// The passwords to try for a file: several, since `BT_PW_...` may be meant in two ways. Empty
    /// where there is no source.
    ///
    /// # Errors
    /// The password file or the terminal cannot be read.
    pub fn candidates(&self, keyfile: &Path, ask: bool) -> io::Result<Vec<Password>> {
        let name = variable_name(keyfile);
        if let Some(value) = (self.variables)(&name).filter(|value| !value.is_empty()) {
            use std::os::unix::ffi::OsStringExt as _;
            let plain = Zeroizing::new(value.into_vec());
            let revealed = reveal(&name, &plain);
            return Ok(revealed.into_iter().chain([plain]).collect());
        }
        if let Some(path) = &self.file {
            let mut text = Zeroizing::new(Vec::new());
            std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return Ok(vec![Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())]);
        }
        if ask { Ok((self.prompt)(keyfile)?.into_iter().collect()) } else { Ok(Vec::new()) }
    }
}

/// The variable that holds the password of a keyfile: `BT_PW_` and the path in capitals, with `_`
/// for each `/` and `.`.
#[must_use]
pub fn variable_name(keyfile: &Path) -> String {
    let path = keyfile.to_string_lossy().replace(['/', '.'], "_");
    format!("BT_PW_{}", path.to_uppercase())
}

/// `btcli` keeps the password XORed with the variable's name, in base64: a veil, no encryption.
fn reveal(name: &str, value: &[u8]) -> Option<Password> {
    let veiled = base64::engine::general_purpose::STANDARD.decode(value.trim_ascii()).ok()?;
    let key = name.as_bytes().iter().cycle();
    let bytes: Password = Zeroizing::new(veiled.iter().zip(key).map(|(a, b)| a ^ b).collect());
    std::str::from_utf8(&bytes).is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_btcli_is_found_and_read_in_both_ways() {
        let path = Path::new("/root/.bittensor/wallets/w/hotkeys/h");
        let name = "BT_PW__ROOT__BITTENSOR_WALLETS_W_HOTKEYS_H";
        assert_eq!(variable_name(path), name);
        let veiled: Vec<u8> = b"secret".iter().zip(name.bytes()).map(|(a, b)| a ^ b).collect();
        let value = base64::engine::general_purpose::STANDARD.encode(veiled);
        let variables = |asked: &str| (asked == name).then(|| OsString::from(&value));
        let none = |_: &Path| Ok(None);
        let passwords = Passwords { variables: &variables, file: None, prompt: &none };
        let found = passwords.candidates(path, false).unwrap();
        assert_eq!(found[0].as_slice(), b"secret");
        assert_eq!(found[1].as_slice(), value.as_bytes());
        let other = passwords.candidates(Path::new("/w/hotkeys/other"), true).unwrap();
        assert!(other.is_empty());
    }
}
