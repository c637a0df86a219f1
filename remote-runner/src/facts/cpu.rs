//! Processors, from `/proc/cpuinfo` (proc(5)).

use std::collections::BTreeSet;
use std::io;
use std::thread;

use runner_protocol::facts::CpuFacts;

use super::root::{Root, unexpected};

/// Reads the processors.
pub(super) fn read(root: &Root) -> io::Result<CpuFacts> {
    let mut facts =
        parse(&root.read("/proc/cpuinfo")?).ok_or_else(|| unexpected("no processor"))?;
    facts.usable_threads = count(thread::available_parallelism().map_or(0, usize::from));
    Ok(facts)
}

/// Takes the blocks apart, one for each online thread. Kernels of other architectures, and some
/// hypervisors, leave the topology out: then there is one socket, and each thread is a core.
fn parse(text: &str) -> Option<CpuFacts> {
    let mut facts = CpuFacts::default();
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    for block in text.split("\n\n") {
        let value = |name: &str| {
            block.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim())
            })
        };
        if value("processor").is_none() {
            continue;
        }
        facts.threads = facts.threads.saturating_add(1);
        if facts.model.is_empty() {
            facts.model =
                value("model name").or_else(|| value("cpu")).unwrap_or_default().to_owned();
        }
        if let Some(socket) = value("physical id") {
            sockets.insert(socket);
            cores.extend(value("core id").map(|core| (socket, core)));
        }
    }
    if facts.threads == 0 {
        return None;
    }
    facts.sockets = count(sockets.len()).max(1);
    facts.cores = if cores.is_empty() { facts.threads } else { count(cores.len()) };
    Some(facts)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(processor: u32, socket: u32, core: u32) -> String {
        format!(
            "processor\t: {processor}\nvendor_id\t: GenuineIntel\n\
             model name\t: Intel(R) Xeon(R) Platinum 8480+\nphysical id\t: {socket}\n\
             siblings\t: 4\ncore id\t\t: {core}\ncpu cores\t: 2\n\n"
        )
    }

    #[test]
    fn two_sockets_of_two_cores_of_two_threads() {
        let text: String =
            (0..8).map(|thread| block(thread, (thread / 2) % 2, thread % 2)).collect();
        let facts = parse(&text).unwrap();
        assert_eq!((facts.sockets, facts.cores, facts.threads), (2, 4, 8));
        assert_eq!(facts.model, "Intel(R) Xeon(R) Platinum 8480+");
    }

    #[test]
    fn a_kernel_without_topology() {
        let text = "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n\n";
        let facts = parse(text).unwrap();
        assert_eq!((facts.sockets, facts.cores, facts.threads), (1, 2, 2));
        assert_eq!(facts.model, "");
    }

    #[test]
    fn no_processor_is_no_answer() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("Hardware\t: none\n"), None);
    }
}
