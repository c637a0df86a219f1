//! The stable codes that say why something failed: the JSON `reason`, the metrics label and
//! the first column of `docs/reasons.md`, which a test holds complete.

use std::fmt;

use serde::Serialize;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal,)+) => {
        /// A stable code. Codes are added, never renamed or reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])+ $variant,)+ }

        impl Reason {
            /// Every reason there is, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The code as it appears in JSON, metrics and documentation.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)+ }
            }
        }
    };
}

reasons! {
    /// The address could not be resolved.
    Resolve = "resolve",
    /// No TCP connection: refused, unreachable or timed out.
    Tcp = "tcp",
    /// Connected, but no SSH identification line came.
    Banner = "banner",
    /// The key exchange failed: no common algorithm, a corrupt packet, a cut connection.
    Kex = "kex",
    /// The host key is unknown, changed, revoked, of another type, or the trust store is unreadable.
    HostKey = "hostkey",
    /// The server refused every key that was offered.
    Auth = "auth",
    /// A configured private key is missing, unreadable, unsafe or of an unsupported type.
    Identity = "identity",
    /// The server refused a channel (MaxSessions, forwarding disabled).
    Channel = "channel",
    /// A remote command could not be started or did not end by its deadline.
    Exec = "exec",
    /// The upload broke off or was refused.
    Upload = "upload",
    /// What lies on the host is not what was uploaded.
    Verify = "verify",
    /// The runner started and did not behave.
    Runner = "runner",
    /// The runner is not on the host, and was not to be put there.
    RunnerMissing = "runner_missing",
    /// No space or no inodes left on the host.
    NoSpace = "no_space",
    /// The work directory is on a file system mounted noexec.
    NoExec = "noexec",
    /// The work directory cannot be written.
    ReadOnly = "read_only",
    /// The host's processor or system is one we have no runner for.
    WrongArch = "wrong_arch",
    /// The host's C library is older than the runner needs.
    OldGlibc = "old_glibc",
    /// No NVIDIA driver answers on the host.
    NoDriver = "no_driver",
    /// The runner has no CUDA kernels for the host's GPUs.
    NoKernels = "no_kernels",
    /// The NVIDIA driver is too old for the kernels.
    DriverTooOld = "driver_too_old",
    /// The driver shows no such GPU, or none at all.
    GpuNotFound = "gpu_not_found",
    /// The GPU's model is not in the model table.
    UnknownModel = "unknown_model",
    /// Another process computes on the GPU.
    GpuBusy = "gpu_busy",
    /// The GPU is divided into instances.
    MigEnabled = "mig_enabled",
    /// The GPU has too little free memory.
    OutOfMemory = "out_of_memory",
    /// The kernels compute something wrong on the GPU.
    SelftestFailed = "selftest_failed",
    /// The GPU found an error of its memory that it cannot correct.
    EccError = "ecc_error",
    /// The GPU failed or has fallen off the bus.
    GpuLost = "gpu_lost",
    /// Two hosts, or two GPUs of one, show the same GPU.
    DuplicateGpu = "duplicate_gpu",
    /// A verifier rejected a proof.
    Rejected = "rejected",
    /// The host's GPUs are not what the fleet file claims.
    ClaimMismatch = "claim_mismatch",
    /// No container engine was found on the host.
    NoEngine = "no_engine",
    /// The login user may not use the container engine's socket, or sshd forbids it.
    SocketDenied = "socket_denied",
    /// The container engine refused or failed.
    Docker = "docker",
    /// An image could not be found or pulled.
    Image = "image",
    /// There is no such container, or more than one.
    Container = "container",
    /// The GPUs are held by others, or the host takes no lease.
    Lease = "lease",
    /// No host has what is asked for.
    NoHostFits = "no_host_fits",
    /// Another operation holds the lock.
    Locked = "locked",
    /// There are as many of something as the configuration allows.
    Limit = "limit",
    /// The host failed repeatedly and is left alone for a while.
    CircuitOpen = "circuit_open",
    /// No endpoint of the chain answers, or what it answers cannot be used.
    Chain = "chain",
    /// The chain is another network, or its runtime lacks what is needed.
    ChainMismatch = "chain_mismatch",
    /// The hotkey is not registered, or there is no such subnet.
    NotRegistered = "not_registered",
    /// The chain refused a call, or would.
    ChainRejected = "chain_rejected",
    /// An alert was not delivered.
    Alert = "alert",
    /// The command line, the fleet file or the configuration is wrong.
    Input = "input",
    /// The hotkey's file is missing, damaged, encrypted without a password, or not its address's.
    Wallet = "wallet",
    /// The user or a signal stopped the operation.
    Cancelled = "cancelled",
    /// The operation's own deadline passed.
    Deadline = "deadline",
    /// The database could not be read or written.
    Store = "store",
    /// A defect of this program.
    Bug = "bug",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_reason_in_order_and_no_other() {
        let documented: Vec<&str> = include_str!("../../docs/reasons.md")
            .lines()
            .take_while(|line| *line != "## Exit statuses")
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(documented, known);
    }
}
