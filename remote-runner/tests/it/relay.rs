//! Sockets through the session, and containers that end with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use runner_protocol::relay::WINDOW_BYTES;
use runner_protocol::{
    FromRunner, Held, HoldEvent, Outcome, RelayEvent, Reply, RequestId, Round, StreamBytes,
    ToRunner, Unit,
};
use tempfile::TempDir;

use crate::harness::{Runner, command};

const ID: u64 = 9;

fn go_on(runner: &mut Runner, round: Round) {
    runner.send(&ToRunner::Continue { id: RequestId(ID), round });
}

fn relayed(runner: &mut Runner) -> RelayEvent {
    match runner.next().unwrap() {
        FromRunner::Reply { id: RequestId(ID), reply: Reply::Relay(event) } => event,
        other => panic!("not of the socket: {other:?}"),
    }
}

fn listener() -> (TempDir, String, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path, listener)
}

#[test]
fn bytes_go_both_ways_and_each_end_is_told() {
    let (_dir, socket, listener) = listener();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let mut runner = Runner::start(&mut command(&[]));
    runner.request(ID, Unit::Dial { socket });
    assert_eq!(relayed(&mut runner), RelayEvent::Connected {});
    go_on(&mut runner, Round::Send { bytes: StreamBytes(b"over and".to_vec()) });
    assert_eq!(relayed(&mut runner), RelayEvent::Grant { bytes: 8 });
    go_on(&mut runner, Round::End {});
    let bytes = StreamBytes(b"over and".to_vec());
    assert_eq!(relayed(&mut runner), RelayEvent::Data { bytes });
    assert_eq!(relayed(&mut runner), RelayEvent::End {});
    go_on(&mut runner, Round::Release {});
    assert_eq!(runner.answer(ID), (Vec::new(), Outcome::Ok {}));
    echo.join().unwrap();
    runner.end();
}

#[test]
fn a_socket_that_floods_waits_for_whoever_reads() {
    let (_dir, socket, listener) = listener();
    let flood = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Ends when the runner closes.
        while stream.write_all(&[7; 65_536]).is_ok() {}
    });
    let mut runner = Runner::start(&mut command(&[]));
    runner.request(ID, Unit::Dial { socket });
    assert_eq!(relayed(&mut runner), RelayEvent::Connected {});
    let window = |runner: &mut Runner| {
        let mut left = WINDOW_BYTES as usize;
        while left > 0 {
            match relayed(runner) {
                RelayEvent::Data { bytes } => left -= bytes.0.len(),
                other => panic!("{other:?}"),
            }
        }
    };
    window(&mut runner);
    // Nothing more comes: the next message is the answer to another request.
    runner.request(ID + 1, Unit::Watch { interval_ms: 1_000_000 });
    match runner.next().unwrap() {
        FromRunner::Reply { id, .. } => assert_eq!(id.0, ID + 1),
        FromRunner::Finished { id, .. } => assert_eq!(id.0, ID + 1),
        other => panic!("{other:?}"),
    }
    runner.send(&ToRunner::Cancel { id: RequestId(ID + 1) });
    loop {
        if matches!(runner.next().unwrap(), FromRunner::Finished { .. }) {
            break;
        }
    }
    go_on(&mut runner, Round::Grant { bytes: WINDOW_BYTES });
    window(&mut runner);
    runner.end();
    flood.join().unwrap();
}

#[test]
fn a_socket_that_is_not_there_says_so() {
    let mut runner = Runner::start(&mut command(&[]));
    runner.request(ID, Unit::Dial { socket: "/no/such/socket".to_owned() });
    let (_, outcome) = runner.answer(ID);
    assert!(matches!(outcome, Outcome::Failed { code, .. } if code == "socket_missing"));
    runner.end();
}

/// An engine that knows one container and tells every request line.
fn engine() -> (TempDir, String, mpsc::Receiver<String>) {
    let (dir, socket, listener) = listener();
    let (tell, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let known = line.contains("c0ffeec0ffee");
            let status = match (known, line.starts_with("GET")) {
                (false, _) => "404 Not Found",
                (true, true) => "200 OK",
                (true, false) => "204 No Content",
            };
            write!(stream.get_mut(), "HTTP/1.0 {status}\r\n\r\n").unwrap();
            let _ = tell.send(line.trim_end().trim_end_matches(" HTTP/1.0").to_owned());
        }
    });
    (dir, socket, asked)
}

fn hold(socket: &str, container: &str) -> Unit {
    Unit::Hold(Held {
        socket: socket.to_owned(),
        container: container.to_owned(),
        remove: true,
        grace_secs: 3,
        timeout_secs: None,
    })
}

fn holding(runner: &mut Runner) {
    let holding = Reply::Hold(HoldEvent::Holding {});
    assert_eq!(runner.next(), Some(FromRunner::Reply { id: RequestId(ID), reply: holding }));
}

const STOPPED: [&str; 3] = [
    "GET /containers/c0ffeec0ffee/json",
    "POST /containers/c0ffeec0ffee/stop?t=3",
    "DELETE /containers/c0ffeec0ffee?force=true&v=true",
];

#[test]
fn a_held_container_ends_with_the_session() {
    let (_dir, socket, asked) = engine();
    let mut runner = Runner::start(&mut command(&[]));
    runner.request(ID, hold(&socket, "c0ffeec0ffee"));
    holding(&mut runner);
    runner.end();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), STOPPED);
}

#[test]
fn a_lease_that_lapses_ends_the_container_too() {
    let (_dir, socket, asked) = engine();
    let mut runner = Runner::start(&mut command(&["--lease-ms", "500"]));
    runner.request(ID, hold(&socket, "c0ffeec0ffee"));
    holding(&mut runner);
    // Standard input stays open: nobody renews.
    runner.child.wait().unwrap();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), STOPPED);
}

#[test]
fn a_released_container_lives_on() {
    let (_dir, socket, asked) = engine();
    let mut runner = Runner::start(&mut command(&[]));
    runner.request(ID, hold(&socket, "c0ffeec0ffee"));
    holding(&mut runner);
    go_on(&mut runner, Round::Release {});
    assert_eq!(runner.answer(ID), (Vec::new(), Outcome::Ok {}));
    runner.end();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), STOPPED[..1]);
}

#[test]
fn what_is_no_container_is_not_held() {
    let (_dir, socket, asked) = engine();
    let mut runner = Runner::start(&mut command(&[]));
    for container in ["c0ffee/../../x", "", "000000000000"] {
        runner.request(ID, hold(&socket, container));
        let (_, outcome) = runner.answer(ID);
        assert!(matches!(outcome, Outcome::Failed { code, .. } if code == "container"));
    }
    runner.end();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["GET /containers/000000000000/json"]);
}
