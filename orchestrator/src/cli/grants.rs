//! `orchestrator grants`.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::app::{App, ago, utc};
use super::failure::{Exit, Failure};
use super::report::Tone;
use crate::config::duration;
use crate::error_chain::causes;
use crate::fleet::grants::{self, GrantError, GrantRequest, GrantRules};
use crate::grants::{FromAddress, PublicKey};
use crate::reason::Reason;
use crate::store::{GrantFilter, GrantRow, GrantState, now_ms};

/// SSH grants of validators: list them, give one, take them back
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the grants that are not out of their hosts' files yet, the newest first
    List {
        /// Only those on this host
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// Only those of this validator
        #[arg(long, value_name = "HOTKEY")]
        validator: Option<String>,
        /// Also those that are over
        #[arg(long)]
        all: bool,
        /// How many at most
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: u32,
    },
    /// Give a validator a key on hosts, for a time
    Give {
        /// The hosts, for example `gpu-[01-04],rack=a`
        #[arg(value_name = "SELECTOR")]
        hosts: String,
        /// The validator's hotkey, or another name for whom it is
        #[arg(long, value_name = "HOTKEY")]
        validator: String,
        /// The file of the public key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// From where it may be used: an IP address or a network
        #[arg(long, value_name = "ADDRESS")]
        from: String,
        /// How long it holds; without it `ssh_session.default_session_duration`
        #[arg(long = "for", value_name = "DURATION")]
        duration: Option<String>,
    },
    /// Take grants back: their keys leave the hosts and their live sessions end
    Revoke {
        /// The grants' ids
        #[arg(value_name = "ID", required_unless_present_any = ["host", "validator"])]
        ids: Vec<String>,
        /// All on this host
        #[arg(long, value_name = "NAME", conflicts_with = "ids")]
        host: Option<String>,
        /// All of this validator
        #[arg(long, value_name = "HOTKEY", conflicts_with = "ids")]
        validator: Option<String>,
    },
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::List { host, validator, all, limit } => {
            let filter = filter(app, host, validator, !all)?;
            list(app, &filter, limit).await
        }
        Action::Give { hosts, validator, key, from, duration } => {
            let request = request(app, validator, &key, &from, duration.as_deref())?;
            give(app, &hosts, request).await
        }
        Action::Revoke { ids, host, validator } => {
            revoke(app, ids, filter(app, host, validator, true)?).await
        }
    }
}

fn filter(
    app: &App<'_>,
    host: Option<String>,
    validator: Option<String>,
    open: bool,
) -> Result<GrantFilter, Failure> {
    let host = host.map(|name| app.host_name(&name)).transpose()?;
    Ok(GrantFilter { host, validator, open })
}

async fn list(app: &App<'_>, filter: &GrantFilter, limit: u32) -> Result<Exit, Failure> {
    let grants = app.store().await?.grants(filter, limit, 0).await?;
    app.report.json(&grants);
    if grants.is_empty() {
        app.report.note("no grants");
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = grants.iter().map(row).collect();
    let headers = ["GRANT", "HOST", "VALIDATOR", "KEY", "FROM", "STATE", "UNTIL", "GIVEN"];
    app.report.table(&headers, &rows);
    Ok(Exit::Ok)
}

fn row(grant: &GrantRow) -> Vec<(String, Option<Tone>)> {
    let over = grant.expires_ms <= now_ms();
    let (state, tone) = match grant.state {
        GrantState::Placed if over => ("expired".to_owned(), Tone::Warn),
        GrantState::Placed => ("placed".to_owned(), Tone::Good),
        state => {
            let reason = grant.end_reason.as_deref().unwrap_or("-");
            let tone = if state == GrantState::Gone { Tone::Dim } else { Tone::Warn };
            (format!("{} ({reason})", state.name()), tone)
        }
    };
    vec![
        (grant.id.clone(), None),
        (grant.host.clone(), None),
        (grant.validator.clone(), None),
        (grant.fingerprint.clone(), Some(Tone::Dim)),
        (grant.from_address.clone(), None),
        (state, Some(tone)),
        (utc(grant.expires_ms), None),
        (ago(grant.issued_ms), Some(Tone::Dim)),
    ]
}

fn request(
    app: &App<'_>,
    validator: String,
    key: &std::path::Path,
    from: &str,
    duration: Option<&str>,
) -> Result<GrantRequest, Failure> {
    let failed = || Failure::user("cannot give a grant");
    let text = std::fs::read_to_string(key)
        .map_err(|error| Failure::user(format!("cannot read {}", key.display())).because(error))?;
    let public_key = PublicKey::parse(&text).map_err(|error| failed().because(error))?;
    let from = FromAddress::parse(from).map_err(|error| failed().because(error))?;
    let duration = match duration {
        Some(text) => duration::parse(text).map_err(|error| failed().because(error))?,
        None => app.config.ssh_session.default_session_duration,
    };
    Ok(GrantRequest { validator, public_key, duration, from })
}

async fn give(app: &App<'_>, hosts: &str, request: GrantRequest) -> Result<Exit, Failure> {
    let records = app.known_hosts(Some(hosts)).await?;
    let specs: Vec<_> = records.into_iter().map(|record| record.spec).collect();
    let fleet = Arc::new(app.fleet(&specs, false).await?);
    let rules = GrantRules::of(&app.config.ssh_session);
    let work = grants::grant_all(fleet, specs, request, rules);
    let mut done = app.until_cancelled(work).await?;
    done.sort_by(|a, b| a.0.cmp(&b.0));
    let mut failed = 0;
    for (host, result) in done {
        match result {
            Ok(grant) => {
                app.report.json(&json!({ "ok": true, "host": host, "grant": grant }));
                app.report.result(&format!(
                    "{host}: grant {} until {}",
                    grant.id,
                    utc(grant.expires_ms)
                ));
            }
            Err(error) => {
                failed += 1;
                trouble(app, host.as_str(), &format!("cannot give a grant on {host}"), &error);
            }
        }
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::SomeHostsFailed })
}

async fn revoke(app: &App<'_>, ids: Vec<String>, filter: GrantFilter) -> Result<Exit, Failure> {
    const MOST: u32 = 100_000;
    let store = app.store().await?;
    let mut wanted = Vec::new();
    for id in &ids {
        let unknown = || {
            Failure::user(format!("there is no grant {id}"))
                .hint("`orchestrator grants list --all` lists them")
        };
        wanted.push(store.grant(id).await?.ok_or_else(unknown)?);
    }
    if ids.is_empty() {
        wanted = store.grants(&filter, MOST, 0).await?;
    }
    wanted.retain(|grant| grant.state != GrantState::Gone);
    let records = store.hosts().await?;
    let spec_of =
        |grant: &GrantRow| records.iter().find(|record| record.spec.name.as_str() == grant.host);
    let specs: Vec<_> =
        wanted.iter().filter_map(&spec_of).map(|record| record.spec.clone()).collect();
    let fleet = app.fleet(&specs, false).await?;
    let mut failed = 0;
    for grant in &wanted {
        let Some(record) = spec_of(grant) else {
            failed += 1;
            let what = format!("cannot revoke {}: host {} was purged", grant.id, grant.host);
            app.report.trouble(&what, &[], Some("deploy to the host again, and revoke then"));
            continue;
        };
        let work = grants::revoke(&fleet, &record.spec, &grant.id);
        match app.until_cancelled(work).await? {
            Ok(done) => {
                let ended = done.processes_ended;
                app.report.json(&json!({
                    "ok": true, "host": grant.host, "grant": grant.id, "processes_ended": ended,
                }));
                app.report.result(&format!("{}: grant {} revoked", grant.host, grant.id));
            }
            Err(error) => {
                failed += 1;
                let what = format!(
                    "grant {} is revoked, and its key is still on {}",
                    grant.id, grant.host
                );
                trouble(app, &grant.host, &what, &error);
            }
        }
    }
    if wanted.is_empty() {
        app.report.note("no grants to revoke");
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::SomeHostsFailed })
}

fn trouble(app: &App<'_>, host: &str, what: &str, error: &GrantError) {
    let mut chain = vec![error.to_string()];
    chain.extend(causes(error));
    let reason: Reason = error.reason();
    let hint = error.hint();
    app.report.json(&json!({
        "ok": false,
        "host": host,
        "reason": reason,
        "message": what,
        "causes": chain,
        "hint": hint,
    }));
    app.report.trouble(what, &chain, hint.as_deref());
}
