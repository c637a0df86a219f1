//! What the host is, from its files and sockets.
//!
//! Every reader takes a [`Root`], so that recorded trees test every parser. A file that exists and
//! cannot be read becomes a `Problem`; one that does not exist is only a missing value.

use std::io;

use runner_protocol::facts::{FactsQuery, HostFacts, Problem};

use crate::{log, os};

mod containers;
mod cpu;
mod cross_check;
mod disks;
mod grants;
mod memory;
mod nvidia_proc;
mod pci;
mod root;
mod system;
mod xid;

pub(crate) use cross_check::cross_check;
pub(crate) use root::Root;

/// Everything but the GPUs, which the probe asks for.
pub(crate) fn host(root: &Root, query: &FactsQuery) -> HostFacts {
    let mut problems = Problems(Vec::new());
    let clock_synchronized = os::clock_synchronized();
    let disks = disks::read(root, &mut problems);
    let grants = grants::read(root, &query.key_files, &mut problems);
    HostFacts {
        os: problems.of("/etc/os-release", system::os_release(root)),
        kernel: problems.of("/proc/sys/kernel/osrelease", root.kernel()),
        arch: system::arch(),
        glibc: os::libc_version(),
        hostname: problems.of("/proc/sys/kernel/hostname", root.hostname()),
        machine_id: problems.optional("/etc/machine-id", root.machine_id()),
        boot_id: problems.optional("/proc/sys/kernel/random/boot_id", root.boot_id()),
        uptime_secs: problems.of("/proc/uptime", root.uptime_secs()),
        clock_unix_ms: log::unix_ms(),
        clock_synchronized: problems.optional("adjtimex", clock_synchronized),
        cpu: problems.of("/proc/cpuinfo", cpu::read(root)),
        load: problems.of("/proc/loadavg", root.load()),
        memory: problems.of("/proc/meminfo", root.memory()),
        disks,
        container_runtimes: containers::read(root, query.socket.as_deref()),
        pci_gpus: problems.optional("/sys/bus/pci/devices", pci::gpus(root)).unwrap_or_default(),
        xid_errors: xid::read(root),
        grants,
        problems: problems.0,
        ..HostFacts::default()
    }
}

/// The sources that could not be read.
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, source: &str, error: &impl ToString) {
        self.0.push(Problem { source: source.to_owned(), message: error.to_string() });
    }

    /// A value that every host has: its absence is a problem as well.
    fn of<T: Default>(&mut self, source: &str, value: io::Result<T>) -> T {
        value.unwrap_or_else(|error| {
            self.add(source, &error);
            T::default()
        })
    }

    /// A value that a host may lack.
    fn optional<T>(&mut self, source: &str, value: io::Result<T>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.add(source, &error);
                None
            }
        }
    }
}
