//! Calls that may never return: a dead network mount, a socket whose owner is stopped.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `work` on a thread of its own and waits at most `limit` for its value. `None` means that it
/// did not return; the thread is left behind and ends with the process.
pub(crate) fn within<T, F>(limit: Duration, work: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .spawn(move || {
            // The receiver is gone if the limit passed: nobody wants the value any more.
            let _ = sender.send(work());
        })
        .ok()?;
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_returns_is_left_behind() {
        let (_hold, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(1), move || never.recv().is_ok()), None);
    }

    #[test]
    fn a_call_that_returns_gives_its_value() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    }
}
