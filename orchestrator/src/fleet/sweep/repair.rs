//! Repairs on a host: few, constant, and only where they take nothing from anybody.

use std::time::Duration;

use crate::host_spec::HostSpec;
use crate::host_state::HostState;
use crate::printable::last_line;
use crate::store::Store;
use crate::sweep::Repair;
use crate::transport::{ExecRequest, ExitStatus, RemoteCommand, Transport};

/// A restart of a container runtime takes seconds; systemd gives it 90.
const TIMEOUT: Duration = Duration::from_secs(100);

/// Output that is kept: its last line says why it failed.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Runs one repair as root: directly, or through a sudo that asks nothing.
const SCRIPT: &str = r#"as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
case $1 in
  restart_container_runtime) as_root systemctl restart docker ;;
  enable_persistence) as_root nvidia-smi -pm 1 ;;
  *) exit 64 ;;
esac"#;

/// Repairs, unless the host was given to somebody meanwhile: then `None`. Whether it worked, and
/// what happened.
pub(super) async fn run(
    store: &Store,
    spec: &HostSpec,
    transport: &dyn Transport,
    repair: Repair,
) -> Option<(bool, String)> {
    let record = store.host(&spec.name).await.ok().flatten()?;
    if !matches!(record.state, HostState::Ready | HostState::Degraded) {
        return None;
    }
    let command = RemoteCommand::script(SCRIPT, [repair.name()]).ok()?;
    let request = ExecRequest::new(command).deadline(TIMEOUT).caps(OUTPUT_BYTES, OUTPUT_BYTES);
    Some(match transport.exec(request).await {
        Ok(output) if output.status == ExitStatus::Code(0) => (true, "done".to_owned()),
        Ok(output) => (false, format!("{}: {}", output.status, last_line(&output.stderr))),
        Err(error) => (false, crate::printable::printable(&error.to_string())),
    })
}
