//! The few calls of the C library that have no safe wrapper here. All `unsafe` that is not NVML's
//! is in this file.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::ptr;

use runner_protocol::ExitCode;

/// The signals that end a session in order.
const ENDING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Ends the process at once: no exit handlers of loaded libraries, no destructors, no flushing.
/// Nothing here needs them, and a handler that hangs would keep a dead session alive.
pub(crate) fn exit(code: ExitCode) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(libc::c_int::from(code.status())) }
}

/// A set of the ending signals.
fn ending_set() -> libc::sigset_t {
    // SAFETY: a zeroed `sigset_t` is a valid argument for `sigemptyset`, which initialises it, and
    // the signal numbers are valid.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in ENDING {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Holds the ending signals back from this thread and those it starts, so that
/// [`wait_for_ending_signal`] gets them.
pub(crate) fn block_ending_signals() {
    let set = ending_set();
    // SAFETY: `set` is initialised, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// Blocks until an ending signal arrives, and returns its number.
pub(crate) fn wait_for_ending_signal() -> i32 {
    let set = ending_set();
    let mut signal = 0;
    loop {
        // SAFETY: `set` is initialised and `signal` is a valid place for the result.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            return signal;
        }
    }
}

/// Has the kernel kill this process by SIGALRM after `secs` seconds, unless called again before.
pub(crate) fn alarm(secs: u32) {
    // SAFETY: `alarm` has no preconditions. SIGALRM keeps its default action, to terminate.
    unsafe { libc::alarm(secs) };
}

/// The version of the C library in use, such as `2.39`.
pub(crate) fn libc_version() -> Option<String> {
    // SAFETY: glibc returns a pointer to a constant string.
    let version = unsafe { libc::gnu_get_libc_version() };
    if version.is_null() {
        return None;
    }
    // SAFETY: it is not null, and glibc terminates it.
    Some(unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned())
}

/// Whether the kernel's clock is kept in step with a time source (adjtimex(2)).
pub(crate) fn clock_synchronized() -> io::Result<bool> {
    // SAFETY: all fields of `timex` may be zero; `modes` of zero only reads.
    let state = unsafe {
        let mut timex: libc::timex = mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    match state {
        -1 => Err(io::Error::last_os_error()),
        state => Ok(state != libc::TIME_ERROR),
    }
}
