//! Picking hosts.

use std::path::{Path, PathBuf};

use orchestrator::fleet_file::{Environment, FleetFile, Selector, SshConfig, resolve};
use orchestrator::host_spec::HostSpec;

const FLEET: &str = r#"
[[hosts]]
name = "gpu-[01-04]"
labels = { rack = "a", site = "fra" }
[[hosts]]
name = "gpu-[05-08]"
labels = { rack = "b" }
[[hosts]]
name = "login"
"#;

fn fleet() -> Vec<HostSpec> {
    let fleet = FleetFile::parse(Path::new("fleet.toml"), FLEET).unwrap();
    let environment = Environment {
        home: PathBuf::from("/nonexistent"),
        local_user: Some("me".to_owned()),
        ssh_config: SshConfig::Ignored,
        ssh_program: PathBuf::from("ssh"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(resolve(&fleet, &environment)).unwrap().hosts
}

/// The picked hosts compactly, or the complaint.
fn pick(selector: &str) -> String {
    let hosts = fleet();
    let selector = match Selector::parse(selector) {
        Ok(selector) => selector,
        Err(error) => return error.to_string(),
    };
    match selector.select(&hosts) {
        Ok(hosts) => {
            orchestrator::fleet_file::range::compress(hosts.iter().map(|host| host.name.as_str()))
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn terms_add_up_and_negative_terms_take_away() {
    assert_eq!(pick("gpu-[01-02],gpu-07"), "gpu-[01-02,07]");
    assert_eq!(pick("gpu-[01-20]"), "gpu-[01-08]");
    assert_eq!(pick("rack=a"), "gpu-[01-04]");
    assert_eq!(
        pick("rack=[a-b]"),
        r#"bad selector "rack=[a-b]": not a number of at most nine digits; ranges are written [01-16] or [1,3,7-9]"#
    );
    assert_eq!(pick("rack=*,!gpu-03"), "gpu-[01-02,04-08]");
    assert_eq!(pick("!gpu-03 , gpu-[01-04], rack=b"), "gpu-[01-02,04-08]");
    assert_eq!(pick("!rack=a"), "gpu-[05-08],login");
    assert_eq!(pick("*0[1,8],l?gin"), "gpu-[01,08],login");
}

#[test]
fn a_term_that_matches_nothing_is_an_error_that_names_the_nearest() {
    assert_eq!(pick("gpu-1"), "no host matches `gpu-1`; did you mean `gpu-01`?");
    assert_eq!(pick("*,!gpu-3"), "no host matches `gpu-3`; did you mean `gpu-03`?");
    assert_eq!(pick("rack=c"), "no host matches `rack=c`; did you mean `rack=b`?");
    assert_eq!(pick("zzz"), "no host matches `zzz`");
    assert_eq!(pick("login,!login"), "`login,!login` takes away every host that it picks");
}

#[test]
fn what_is_no_selector_is_refused() {
    assert_eq!(pick(""), r#"bad selector "": a term is empty"#);
    assert_eq!(pick("a,,b"), r#"bad selector "a,,b": a term is empty"#);
    assert_eq!(pick("=a"), r#"bad selector "=a": `=a` names no label"#);
    assert_eq!(
        pick("g[0-99999]"),
        r#"bad selector "g[0-99999]": g[0-99999] is more than 10000 names"#
    );
}
