//! What the NVIDIA kernel module has complained of, from the kernel's log.
//!
//! `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg) gives one record for each read:
//! `6,1234,86400000000,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=..., GPU has fallen off the bus.`, the
//! third number being microseconds since the restart. Reading it needs no privilege unless
//! `dmesg_restrict` is set; what is not readable is not judged, and is no error.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use runner_protocol::facts::XidError;

use super::root::Root;

/// The most that is read of the log: its ring is rarely larger than 4 MiB.
const MAX_LOG_BYTES: usize = 16 * 1024 * 1024;

/// A record must be taken whole, and is at most 8 KiB (`CONSOLE_EXT_LOG_MAX`).
const RECORD_BYTES: usize = 16 * 1024;

/// The most kinds that are told; the newest win.
const MAX_KINDS: usize = 256;

/// The longest message that is told, in characters.
const MAX_MESSAGE: usize = 200;

/// Reads the log; `None` where it cannot be read.
pub(super) fn read(root: &Root) -> Option<Vec<XidError>> {
    let log = log(root)?;
    Some(errors(&log, root.uptime_secs().ok()?))
}

fn log(root: &Root) -> Option<String> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let mut options = OpenOptions::new();
    let mut file = options.read(true).custom_flags(nonblock).open(root.path("/dev/kmsg")).ok()?;
    let mut all = Vec::new();
    let mut record = vec![0; RECORD_BYTES];
    while all.len() < MAX_LOG_BYTES {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => all.extend(record.iter().take(length)),
            // Overwritten meanwhile: the next read is at the oldest record that is left.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The end of what there is.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&all).into_owned())
}

/// The Xid records of a log, one entry for each device and number, the newest first.
fn errors(log: &str, uptime_secs: u64) -> Vec<XidError> {
    let mut found: Vec<XidError> = Vec::new();
    for (at_secs, address, xid, message) in log.lines().filter_map(record) {
        let ago = uptime_secs.saturating_sub(at_secs);
        let same = found.iter_mut().find(|it| it.xid == xid && it.pci_address == address);
        match same {
            Some(known) => {
                known.count = known.count.saturating_add(1);
                known.last_secs_ago = ago;
                known.message = message;
            }
            None => found.push(XidError {
                pci_address: address,
                xid,
                count: 1,
                last_secs_ago: ago,
                message,
            }),
        }
    }
    found.sort_by_key(|it| it.last_secs_ago);
    found.truncate(MAX_KINDS);
    found
}

/// Seconds since the restart, PCI address, number and the rest of an Xid record.
fn record(line: &str) -> Option<(u64, String, u32, String)> {
    let (head, text) = line.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let (_, xid) = text.split_once("NVRM: Xid (")?;
    let (device, rest) = xid.split_once("):")?;
    let address = device.trim().trim_start_matches("PCI:").to_ascii_lowercase();
    // The module leaves the function out, which is always 0.
    let address = if address.contains('.') { address } else { format!("{address}.0") };
    let (number, message) = rest.split_once(',').unwrap_or((rest, ""));
    let message = message.trim().chars().take(MAX_MESSAGE).collect();
    Some((micros / 1_000_000, address, number.trim().parse().ok()?, message))
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::tree;
    use super::*;

    const LOG: &str = "\
6,800,1000000,-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15
 SUBSYSTEM=pci
4,901,5000000,-;NVRM: Xid (PCI:0000:3B:00): 31, pid=1234, name=python, Ch 00000008, intr 10000000
4,902,9000000,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=1235, name=python, Ch 00000009
4,903,60000000,-;NVRM: Xid (PCI:0000:5e:00): 79, pid='<unknown>', GPU has fallen off the bus.
4,904,61000000,-;NVRM: Xid (PCI:0000:5e:00): GPU-damaged
";

    #[test]
    fn errors_are_grouped_by_device_and_number_and_dated_by_the_uptime() {
        let files = [("/dev/kmsg", LOG), ("/proc/uptime", "100.50 1.00\n")];
        let (_folder, root) = tree(&files);
        let told: Vec<_> = read(&root)
            .unwrap()
            .into_iter()
            .map(|it| (it.pci_address, it.xid, it.count, it.last_secs_ago, it.message))
            .collect();
        let off = "pid='<unknown>', GPU has fallen off the bus.".to_owned();
        let fault = "pid=1235, name=python, Ch 00000009".to_owned();
        assert_eq!(
            told,
            [
                ("0000:5e:00.0".to_owned(), 79, 1, 40, off),
                ("0000:3b:00.0".to_owned(), 31, 2, 91, fault),
            ]
        );
    }

    #[test]
    fn a_log_without_errors_is_empty_and_one_that_is_not_there_is_none() {
        let (_folder, root) = tree(&[("/dev/kmsg", ""), ("/proc/uptime", "1.0 1.0\n")]);
        assert_eq!(read(&root), Some(Vec::new()));
        let (_folder, root) = tree(&[("/proc/uptime", "1.0 1.0\n")]);
        assert_eq!(read(&root), None);
    }
}
