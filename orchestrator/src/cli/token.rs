//! `orchestrator token`.

use serde_json::json;

use super::app::{App, utc};
use super::config::findings;
use super::failure::{Exit, Failure};
use crate::config::{SECRET_HINT, duration};
use crate::store::now_ms;
use crate::token;

/// Make a token for the operator API
///
/// It is signed with the secret of the configuration and good until its end; changing the secret
/// ends all of them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For whom or what it is
    #[arg(long = "for", value_name = "NAME", default_value = "operator")]
    subject: String,
    /// How long it is good for; without it `security.token_expiration`
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let failed = || Failure::user("cannot make a token");
    let secret = findings::secret(&app.settings)
        .map_err(|error| failed().because(error).hint(SECRET_HINT))?
        .ok_or_else(|| Failure::user("there is no secret to sign tokens with").hint(SECRET_HINT))?;
    let lifetime = match &args.expires {
        Some(text) => duration::parse(text).map_err(|error| failed().because(error))?,
        None => app.config.security.token_expiration,
    };
    let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let now = now_ms() / 1000;
    let token = token::issue(secret.expose(), &args.subject, now, lifetime);
    let until_ms = now.saturating_add(lifetime).saturating_mul(1000);
    app.report.json(&json!({ "ok": true, "token": token, "expires_ms": until_ms }));
    app.report.result(&token);
    app.report.note(&format!("good until {}", utc(until_ms)));
    Ok(Exit::Ok)
}
