//! Every number of the SSH client, in one place, so that a user can change it.

use std::time::Duration;

/// Deadlines, caps and counts. [`Limits::default`] holds the values that are argued for here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Resolving a name. A resolver that is asked twice answers or fails within 5 s.
    pub resolve: Duration,
    /// One TCP connect. Three SYNs (0, 1 and 3 s) reach any host that will ever answer.
    pub tcp: Duration,
    /// Greeting and key exchange together: three round trips and one signature, even on a host
    /// whose GPUs keep its CPUs busy.
    pub handshake: Duration,
    /// Authentication, including what PAM does on the way.
    pub auth: Duration,
    /// Until a keepalive is sent on a silent link. Below the idle timeout of common NATs.
    pub keepalive_interval: Duration,
    /// Keepalives without answer after which the link is dead.
    pub keepalive_max: usize,
    /// Silence after which the link is dead even before it is authenticated, when no keepalives
    /// are sent yet.
    pub inactivity: Duration,
    /// The most keys offered to one server: sshd hangs up after the sixth (`MaxAuthTries 6`).
    pub offered_keys: usize,
    /// Unauthenticated connects to one server at a time. sshd starts to drop them at 10
    /// (`MaxStartups 10:30:100`), and others may be logging in too.
    pub gate: usize,
    /// Attempts to connect before giving up on a transient failure.
    pub connect_attempts: usize,
    /// Attempts when the server drops connections before its greeting: it is alive and has no
    /// room (`MaxStartups`), so more patience is due than with one that does not answer.
    pub dropped_attempts: usize,
    /// The first pause between attempts; later ones double, all with jitter.
    pub retry_pause: Duration,
    /// The longest pause between attempts.
    pub retry_pause_max: Duration,
    /// Sessions at a time on one connection: below sshd's default `MaxSessions 10`. A server
    /// that allows fewer is noticed.
    pub sessions: usize,
    /// Bytes of a process's output that may wait unread before the process is closed.
    pub unread_bytes: usize,
    /// Bytes that a login may print before our command starts.
    pub noise_bytes: usize,
    /// Waiting for a server to confirm a goodbye.
    pub goodbye: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            tcp: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            auth: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(15),
            keepalive_max: 3,
            inactivity: Duration::from_secs(90),
            offered_keys: 6,
            gate: 8,
            connect_attempts: 3,
            dropped_attempts: 10,
            retry_pause: Duration::from_millis(250),
            retry_pause_max: Duration::from_secs(4),
            sessions: 8,
            unread_bytes: 8 * 1024 * 1024,
            noise_bytes: 1024 * 1024,
            goodbye: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the documentation are the fields with their defaults, in order.
    #[test]
    fn the_documentation_has_every_limit_with_its_default() {
        let document = include_str!("../../../docs/ssh.md");
        let table = document.split("## Limits").nth(1).unwrap().split("\n\n").nth(1).unwrap();
        let rows = table.lines().skip(2).map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let name = cells.nth(1).unwrap().trim_matches('`');
            format!("    {name}: {},\n", cells.next().unwrap().replace(' ', ""))
        });
        let fields = format!("{:#?}", Limits::default()).replace("250.0ms", "250ms");
        assert_eq!(format!("Limits {{\n{}}}", rows.collect::<String>()), fields);
    }
}
