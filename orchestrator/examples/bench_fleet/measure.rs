//! What a process tree took.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Resources that one measurement took.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// From start to end.
    pub wall: Duration,
    /// User and system time of the process and of all its descendants that were waited for.
    pub cpu: Duration,
    /// The largest resident set of a single process of the tree, in bytes. A tool of many
    /// processes has this several times.
    pub peak_rss_bytes: u64,
}

/// Runs a command to its end; its output goes to `log`.
pub fn run(command: &mut Command, log: &Path) -> Result<Usage, String> {
    let output = File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let started = Instant::now();
    let child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the right types; the child is ours, and
        // nobody else waits for it.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        assert!(error.kind() == std::io::ErrorKind::Interrupted, "wait4: {error}");
    }
    let wall = started.elapsed();
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        Ok(Usage { wall, cpu: cpu(&usage), peak_rss_bytes: peak_rss_bytes(&usage) })
    } else {
        let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
        let telling = |line: &&str| line.contains("fatal") || line.contains("rror");
        let line = text.lines().find(telling).or(text.lines().last()).unwrap_or_default();
        let line: String = line.chars().take(300).collect();
        Err(format!("ended with wait status {status:#x}: {line}"))
    }
}

/// Processor time of this process so far.
pub fn own_cpu() -> Duration {
    // SAFETY: as above.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local of the right type.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(result, 0);
    cpu(&usage)
}

fn cpu(usage: &libc::rusage) -> Duration {
    let of = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap())
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap())
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

fn peak_rss_bytes(usage: &libc::rusage) -> u64 {
    let peak = u64::try_from(usage.ru_maxrss).unwrap();
    // Kilobytes everywhere but on macOS (getrusage(2)).
    if cfg!(target_os = "macos") { peak } else { peak * 1024 }
}
