//! A fleet file from the executors of a miner's configuration.

use std::fmt::Write as _;

use super::Imported;
use crate::config::{Executor, SshSessionConfig};
use crate::render::toml_string;

/// Writes the hosts. One without an address gets that of its gRPC service, with a comment that
/// asks to read it again; one without any is left out, with a comment.
pub(super) fn write(executors: &[Executor], session: &SshSessionConfig) -> Imported {
    let mut toml = String::from(
        "# The executors of a miner's configuration, as hosts that are reached over SSH.\n\
         # All keys are explained in docs/fleet-file.md. Check it with `orchestrator check`.\n",
    );
    let (mut hosts, mut notes) = (0, 0);
    for executor in executors {
        let from_grpc = executor.grpc_address.as_deref().and_then(host_of);
        let Some(address) = executor.host.as_deref().or(from_grpc) else {
            let _infallible =
                writeln!(toml, "\n# not taken over: {} has no address", executor.name);
            notes += 1;
            continue;
        };
        hosts += 1;
        toml.push_str("\n[[hosts]]\n");
        if executor.host.is_none() {
            notes += 1;
            toml.push_str("# From its gRPC address: see that SSH answers there, and as whom.\n");
        }
        let user = executor.ssh_username.as_ref().or(session.default_executor_username.as_ref());
        let key = executor.ssh_key_path.as_ref().or(session.miner_executor_key_path.as_ref());
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _infallible = writeln!(toml, "{name} = {value}");
            }
        };
        line("name", Some(toml_string(executor.name.as_str())));
        line("address", Some(toml_string(address)));
        line("port", (executor.ssh_port != 22).then(|| executor.ssh_port.to_string()));
        line("user", user.map(|text| toml_string(text)));
        line("identity_file", key.map(|text| toml_string(text)));
        line("proxy_jump", executor.proxy_jump.as_deref().map(toml_string));
        line("host_key", executor.host_key.as_deref().map(toml_string));
        let gpus = executor
            .gpus
            .as_ref()
            .map(|(model, count)| format!("{{ model = {}, count = {count} }}", toml_string(model)));
        line("gpus", gpus);
    }
    Imported { toml, hosts, notes }
}

/// The host of `http://host:port`, `host:port` or `[::1]:port`.
fn host_of(address: &str) -> Option<&str> {
    let address = address.rsplit("//").next()?;
    let host = match address.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => address.split([':', '/']).next()?,
    };
    Some(host).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_grpc_address() {
        for (address, host) in [
            ("10.0.0.1:50051", Some("10.0.0.1")),
            ("http://gpu-1.example.com:50051/x", Some("gpu-1.example.com")),
            ("[::1]:50051", Some("::1")),
            (":50051", None),
            ("", None),
        ] {
            assert_eq!(host_of(address), host, "{address}");
        }
    }
}
