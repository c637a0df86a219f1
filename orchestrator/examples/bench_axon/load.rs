//! The callers: requests signed beforehand, sent over connections that stay open.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

/// By which scheme the requests are signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Legacy,
    Btauth,
}

pub struct Load {
    pub scheme: Scheme,
    pub requests: usize,
    pub connections: usize,
    /// Requests in a second, all connections together; as many as go without.
    pub rate: Option<f64>,
}

pub struct Done {
    /// Of every request, sorted.
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()
}

impl Load {
    /// Requests of one connection, signed now: they are fresh for a minute (legacy, by their timeout)
    /// or ten seconds (btauth), so not too many at once.
    /// `begun` is one time for all connections of a round.
    fn sign(&self, connection: usize, count: usize, begun: u128) -> Vec<Vec<u8>> {
        let (receiver, caller) = (super::pair(0).hotkey(), super::pair(1));
        let sender = caller.hotkey();
        let legacy_body = legacy_body();
        let hash =
            orchestrator::axon::auth::body_hash("Ping", legacy_body.as_bytes(), &["name"]).unwrap();
        let empty = orchestrator::hex::sha256(b"{}");
        let uuid =
            format!("00000000-0000-4000-8000-{connection:06}{:06}", now_ns() / 1000 % 1_000_000);
        let one = |at: usize| {
            // Nonces of one caller are unique over all connections.
            let nonce = begun + (at * self.connections + connection) as u128;
            let hex = |text: String| orchestrator::hex::encode(&caller.sign(text.as_bytes()));
            match self.scheme {
                Scheme::Legacy => {
                    let signature = hex(format!("{nonce}.{sender}.{receiver}.{uuid}.{hash}"));
                    format!(
                        "POST /Ping HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                         name: Ping\r\ntimeout: 60.0\r\nbt_header_axon_ip: 127.0.0.1\r\n\
                         bt_header_axon_port: 8091\r\nbt_header_axon_hotkey: {receiver}\r\n\
                         bt_header_dendrite_ip: 192.0.2.1\r\nbt_header_dendrite_version: 10005000\r\n\
                         bt_header_dendrite_nonce: {nonce}\r\nbt_header_dendrite_uuid: {uuid}\r\n\
                         bt_header_dendrite_hotkey: {sender}\r\n\
                         bt_header_dendrite_signature: 0x{signature}\r\nheader_size: 640\r\n\
                         total_size: 3000\r\ncomputed_body_hash: {hash}\r\n\
                         Content-Length: {}\r\n\r\n{legacy_body}",
                        legacy_body.len()
                    )
                }
                Scheme::Btauth => {
                    let signature = hex(format!(
                        "btauth/1\nsr25519\nPOST\n/v1/ping\n{empty}\n{nonce}\n{sender}\n{receiver}"
                    ));
                    format!(
                        "POST /v1/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                         X-Bittensor-Version: 1\r\nX-Bittensor-Hotkey: {sender}\r\n\
                         X-Bittensor-Receiver: {receiver}\r\nX-Bittensor-Nonce: {nonce}\r\n\
                         X-Bittensor-Signature: 0x{signature}\r\nContent-Length: 2\r\n\r\n{{}}"
                    )
                }
            }
            .into_bytes()
        };
        (0..count).map(one).collect()
    }

    /// Rounds of at most a few seconds, so that every nonce is fresh; only sending is timed.
    pub fn run(&self, port: u16) -> Done {
        let mut streams: Vec<TcpStream> = (0..self.connections).map(|_| connect(port)).collect();
        let (mut latencies, mut elapsed) = (Vec::with_capacity(self.requests), Duration::ZERO);
        let round = match self.rate {
            Some(rate) => (rate * 3.0) as usize,
            None => 20_000,
        };
        let mut left = self.requests;
        while left > 0 {
            let each = (left.min(round) / self.connections).max(1);
            left = left.saturating_sub(each * self.connections);
            let begun = now_ns();
            let signed: Vec<Vec<Vec<u8>>> = std::thread::scope(|scope| {
                let lanes: Vec<_> = (0..self.connections)
                    .map(|at| scope.spawn(move || self.sign(at, each, begun)))
                    .collect();
                lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
            });
            let begun = Instant::now();
            // Each connection has its turn at a steady beat, the connections evenly apart.
            let beat = self.rate.map(|rate| self.connections as f64 / rate);
            std::thread::scope(|scope| {
                let lanes =
                    streams.iter_mut().zip(&signed).enumerate().map(|(at, (stream, requests))| {
                        let offset = beat.map(|beat| beat * at as f64 / self.connections as f64);
                        scope.spawn(move || lane(stream, requests, begun, beat.zip(offset)))
                    });
                let lanes: Vec<_> = lanes.collect();
                for lane in lanes {
                    latencies.extend(lane.join().unwrap());
                }
            });
            elapsed += begun.elapsed();
        }
        latencies.sort();
        Done { latencies, elapsed }
    }
}

/// Sends the requests of one connection, one after the other. With a beat the time of a request counts
/// from when it was due, so that a stall is not hidden by waiting less often.
fn lane(
    stream: &mut TcpStream,
    requests: &[Vec<u8>],
    begun: Instant,
    beat: Option<(f64, f64)>,
) -> Vec<Duration> {
    let mut buffer = vec![0; 16 * 1024];
    let mut latencies = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate() {
        let due = match beat {
            None => Instant::now(),
            Some((beat, offset)) => {
                let due = begun + Duration::from_secs_f64(offset + beat * at as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due
            }
        };
        stream.write_all(request).unwrap();
        read_answer(stream, &mut buffer);
        latencies.push(due.elapsed());
    }
    latencies
}

/// Reads one answer, which must be a Ping's.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).unwrap();
        assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&buffer[..length]));
        length += read;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let stated = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        if stated.is_some_and(|stated| body.len() >= stated) {
            assert!(body.contains("\"time_ns\":"), "{text}");
            return;
        }
    }
}

fn legacy_body() -> String {
    // What `Dendrite` of SDK 10 sends for this class.
    r#"{"name":"Ping","timeout":60.0,"total_size":3000,"header_size":0,"dendrite":{"status_code":null,"status_message":null,"process_time":null,"ip":"192.0.2.1","port":null,"version":10005000,"nonce":1,"uuid":"u","hotkey":"h","signature":"s"},"axon":{"status_code":null,"status_message":null,"process_time":null,"ip":"127.0.0.1","port":8091,"version":null,"nonce":null,"uuid":null,"hotkey":"h","signature":null},"computed_body_hash":"","version":null,"hotkey":null,"time_ns":null}"#.to_owned()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connections that have asked once and now say nothing.
pub fn idle(port: u16, count: usize) -> Vec<TcpStream> {
    let mut buffer = vec![0; 4096];
    (0..count)
        .map(|_| {
            let mut stream = connect(port);
            stream
                .write_all(b"POST /v1/ping HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            let read = stream.read(&mut buffer).unwrap();
            assert!(buffer[..read].starts_with(b"HTTP/1.1 401"));
            stream
        })
        .collect()
}
