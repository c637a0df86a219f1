//! `orchestrator wallet`, and how every verb finds its wallet.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::app::App;
use super::failure::{Exit, Failure};
use super::report::Tone;
use crate::reason::Reason;
use crate::wallet::{
    DEFAULT_FOLDER, DEFAULT_NAME, HotkeyPair, Keyfile, Password, Passwords, WalletError,
    WalletPlace,
};

/// The hotkey that signs for this miner: show
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(ShowArgs),
}

/// Show the addresses of a wallet, and how and how safely its hotkey is kept; never a secret
///
/// Opens the hotkey's file and checks that the address follows from the key. The file of the coldkey
/// is never opened. The password of an encrypted file comes from the variable BT_PW_<PATH> of btcli,
/// from the file that BT_WALLET_PASSWORD_FILE names, or is asked for on the terminal.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    wallet: WalletArgs,
}

/// Which wallet.
#[derive(Debug, Clone, clap::Args)]
pub struct WalletArgs {
    /// The folder of wallets [default: ~/.bittensor/wallets]
    #[arg(long, value_name = "FOLDER", env = "BT_WALLET_PATH", hide_env_values = true)]
    pub wallet_path: Option<PathBuf>,
    /// The wallet [default: default]
    #[arg(long, value_name = "NAME", env = "BT_WALLET_NAME", hide_env_values = true)]
    pub wallet_name: Option<String>,
    /// Its hotkey [default: default]
    #[arg(long, value_name = "NAME", env = "BT_WALLET_HOTKEY", hide_env_values = true)]
    pub wallet_hotkey: Option<String>,
}

impl WalletArgs {
    /// Where the wallet is. `~/` is the user's home, as in the settings of btcli.
    pub fn place(&self, app: &App<'_>) -> Result<WalletPlace, Failure> {
        let home = &app.environment.home;
        let folder = match &self.wallet_path {
            None => home.join(DEFAULT_FOLDER),
            Some(path) => match path.strip_prefix("~") {
                Ok(rest) => home.join(rest),
                Err(_) => path.clone(),
            },
        };
        let name = self.wallet_name.as_deref().unwrap_or(DEFAULT_NAME);
        let hotkey = self.wallet_hotkey.as_deref().unwrap_or(DEFAULT_NAME);
        WalletPlace::new(&folder, name, hotkey)
            .map_err(|error| failure("cannot use the wallet", error))
    }
}

/// Opens the hotkey of a wallet for signing, and warns where others can read its file.
pub fn unlock(app: &App<'_>, place: &WalletPlace) -> Result<HotkeyPair, Failure> {
    let file = Keyfile::read(&place.hotkey_file()).map_err(|error| cannot(place, error))?;
    if let Some(warning) = file.warning() {
        app.report.warning(&warning);
    }
    let opened = with_passwords(|passwords| file.open(passwords, app.report.may_ask()));
    opened.map(|(_, pair)| pair).map_err(|error| cannot(place, error))
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    match &args.action {
        Action::Show(args) => show(app, &args.wallet.place(app)?),
    }
}

fn show(app: &App<'_>, place: &WalletPlace) -> Result<Exit, Failure> {
    let failed = |error| cannot(place, error);
    let path = place.hotkey_file();
    let file = Keyfile::read(&path).map_err(|error| {
        let mut failure = cannot(place, error);
        if let Ok(names) = place.hotkeys()
            && !names.is_empty()
        {
            failure = failure.hint(format!(
                "the hotkeys of the wallet {} are: {}",
                place.name(),
                names.join(", ")
            ));
        }
        failure
    })?;
    let stated = place.stated_hotkey().map_err(failed)?;
    // Who has a public file need not type a password to see an address.
    let ask = stated.is_none() && app.report.may_ask();
    let opened = match with_passwords(|passwords| file.open(passwords, ask)) {
        Ok(opened) => Some(opened),
        Err(WalletError::Locked { .. }) if stated.is_some() => None,
        Err(error) => return Err(failed(error)),
    };
    let hotkey = opened.as_ref().map(|(_, pair)| pair.hotkey());
    if let (Some(hotkey), Some(stated)) = (hotkey, stated)
        && hotkey != stated
    {
        app.report.warning(&format!(
            "the public file of the hotkey states another address ({stated}) than the key has"
        ));
    }
    let coldkey = place.coldkey().map_err(failed)?;
    if let Some(warning) = file.warning() {
        app.report.warning(&warning);
    }
    let crypto = opened.as_ref().map(|(_, pair)| pair.crypto());
    let format = opened.as_ref().map(|(format, _)| *format);
    let mode = format!("{:04o}", file.mode());
    app.report.json(&json!({
        "wallet": place.name(),
        "hotkey_name": place.hotkey(),
        "file": path,
        "hotkey": hotkey.or(stated),
        "verified": hotkey.is_some(),
        "coldkey": coldkey,
        "crypto": crypto,
        "format": format,
        "encryption": file.seal(),
        "mode": mode,
        "private": file.mode() & 0o077 == 0,
    }));
    let dash = || "-".to_owned();
    let address = match (hotkey, stated) {
        (Some(hotkey), _) => (hotkey.to_string(), Some(Tone::Good)),
        (None, Some(stated)) => {
            (format!("{stated} (stated by its public file; the key is encrypted)"), None)
        }
        (None, None) => (dash(), None),
    };
    let encryption = file.seal().map_or("none", |seal| seal.name()).to_owned();
    let private = file.mode() & 0o077 == 0;
    let tone = if private { Tone::Good } else { Tone::Bad };
    let row = |name: &str, (text, tone): (String, Option<Tone>)| {
        vec![(name.to_owned(), Some(Tone::Bold)), (text, tone)]
    };
    app.report.table(
        &[],
        &[
            row("wallet", (place.name().to_owned(), None)),
            row("hotkey", address),
            row("coldkey", (coldkey.map_or_else(dash, |key| key.to_string()), None)),
            row("file", (path.display().to_string(), None)),
            row("format", (format.map_or("-", |format| format.name()).to_owned(), None)),
            row("signatures", (crypto.map_or_else(dash, |crypto| crypto.to_string()), None)),
            row("encryption", (encryption, None)),
            row("mode", (mode, Some(tone))),
        ],
    );
    Ok(Exit::Ok)
}

/// The sources of passwords of this run of the program.
fn with_passwords<T>(open: impl FnOnce(&Passwords<'_>) -> T) -> T {
    let file = std::env::var_os("BT_WALLET_PASSWORD_FILE").filter(|path| !path.is_empty());
    open(&Passwords {
        variables: &|name| std::env::var_os(name),
        file: file.map(PathBuf::from),
        prompt: &ask,
    })
}

/// Asks on the terminal, without echo.
fn ask(path: &Path) -> io::Result<Option<Password>> {
    let text = rpassword::prompt_password(format!("Password for {}: ", path.display()))?;
    Ok(Some(Zeroizing::new(text.into_bytes())))
}

fn cannot(place: &WalletPlace, error: WalletError) -> Failure {
    failure(&format!("cannot use the hotkey {} of wallet {}", place.hotkey(), place.name()), error)
}

fn failure(what: &str, error: WalletError) -> Failure {
    let hint = error.hint();
    let mut failure = Failure::user(what).because(error);
    failure.reason = Reason::Wallet;
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
