//! Where the passphrases of encrypted keys come from: a file that the environment names, else the
//! person at the terminal, else nowhere.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::report::Report;
use crate::ssh::{NoPassphrase, PassphraseFile, PassphraseProvider, Secret};

/// The environment variable that names a file with the passphrase.
const FILE_VARIABLE: &str = "ORCHESTRATOR_KEY_PASSPHRASE_FILE";

/// Asks on the terminal, without echo.
struct Terminal;

impl PassphraseProvider for Terminal {
    fn passphrase(&self, key: &Path) -> io::Result<Option<Secret>> {
        let text = rpassword::prompt_password(format!("Passphrase for {}: ", key.display()))?;
        Ok(Some(Secret::new(text.into_bytes())))
    }
}

/// The provider for this run of the program.
pub fn provider(report: &Report) -> Arc<dyn PassphraseProvider> {
    match std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Arc::new(PassphraseFile(path.into())),
        None if report.may_ask() => Arc::new(Terminal),
        None => Arc::new(NoPassphrase),
    }
}
