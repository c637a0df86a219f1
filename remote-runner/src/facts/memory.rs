//! Main memory and load.

use std::io;

use runner_protocol::facts::{LoadFacts, MemoryFacts};

use super::root::{Root, unexpected};

impl Root {
    /// Main memory, from `/proc/meminfo`.
    pub(crate) fn memory(&self) -> io::Result<MemoryFacts> {
        let text = self.read("/proc/meminfo")?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        let total_bytes = bytes("MemTotal").ok_or_else(|| unexpected("no MemTotal"))?;
        // Kernels before 3.14 do not say it: what is free is the least that is available.
        let available = bytes("MemAvailable").or_else(|| bytes("MemFree"));
        Ok(MemoryFacts {
            total_bytes,
            available_bytes: available.ok_or_else(|| unexpected("no MemAvailable"))?,
            swap_total_bytes: bytes("SwapTotal").unwrap_or_default(),
            swap_free_bytes: bytes("SwapFree").unwrap_or_default(),
        })
    }

    /// Load averages, from `/proc/loadavg`.
    pub(crate) fn load(&self) -> io::Result<LoadFacts> {
        let line = self.line("/proc/loadavg")?;
        let mut averages = line.split(' ').map(milli);
        match (averages.next().flatten(), averages.next().flatten(), averages.next().flatten()) {
            (Some(one_milli), Some(five_milli), Some(fifteen_milli)) => {
                Ok(LoadFacts { one_milli, five_milli, fifteen_milli })
            }
            _ => Err(unexpected("no load averages")),
        }
    }
}

/// A decimal number of two places, such as `1.25`, in thousandths.
fn milli(number: &str) -> Option<u64> {
    let (whole, hundredths) = number.split_once('.')?;
    if hundredths.len() != 2 {
        return None;
    }
    let hundredths: u64 = hundredths.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(hundredths.checked_mul(10)?)
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::tree;

    #[test]
    fn memory_is_in_bytes() {
        let text = "MemTotal:       2113386060 kB\nMemFree:         100 kB\n\
                    MemAvailable:   2048000000 kB\nSwapTotal:       8388604 kB\n\
                    SwapFree:        8388600 kB\n";
        let (_folder, root) = tree(&[("/proc/meminfo", text)]);
        let memory = root.memory().unwrap();
        assert_eq!(memory.total_bytes, 2_113_386_060 * 1024);
        assert_eq!(memory.available_bytes, 2_048_000_000 * 1024);
        assert_eq!(memory.swap_free_bytes, 8_388_600 * 1024);
    }

    #[test]
    fn memory_without_a_total_is_an_error() {
        let (_folder, root) = tree(&[("/proc/meminfo", "MemFree: 1 kB\n")]);
        assert!(root.memory().is_err());
    }

    #[test]
    fn load_is_in_thousandths() {
        let (_folder, root) = tree(&[("/proc/loadavg", "1.25 0.90 12.04 3/1234 99\n")]);
        let load = root.load().unwrap();
        assert_eq!((load.one_milli, load.five_milli, load.fifteen_milli), (1250, 900, 12_040));
        let (_folder, root) = tree(&[("/proc/loadavg", "1.25 x\n")]);
        assert!(root.load().is_err());
    }
}
