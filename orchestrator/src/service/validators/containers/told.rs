//! What a validator is told of its containers: nothing of the fleet's inside, and of what a host says
//! only cleaned words.

use std::collections::VecDeque;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::internal;
use super::super::requests::unavailable;
use crate::axon::Refusal;
use crate::docker::State;
use crate::fleet::containers::{ContainerError, Found};
use crate::printable::printable;
use crate::reason::Reason;
use crate::store::{Lease, LeaseError};

/// One container, as its lease and its engine say.
pub fn view(lease: &Lease, found: &Found, state: &State) -> Value {
    let ended = !state.running;
    json!({
        "container": lease.id,
        "host": lease.host,
        "image": printable(&found.container.image),
        "gpus": lease.gpus,
        "state": printable(&state.status),
        "running": state.running,
        "exit_code": ended.then_some(state.exit_code),
        "oom_killed": state.oom_killed,
        "created_ms": lease.created_ms,
        "deadline_ms": lease.expires_ms,
        "started_at": printable(&state.started_at),
        "finished_at": ended.then(|| printable(&state.finished_at)),
    })
}

/// The end of a log.
pub struct Log {
    most: usize,
    pieces: VecDeque<(bool, Vec<u8>)>,
    bytes: usize,
    truncated: bool,
}

impl Log {
    /// One of so many bytes at most.
    pub fn new(most: usize) -> Self {
        Self { most, pieces: VecDeque::new(), bytes: 0, truncated: false }
    }

    /// Takes a piece; the oldest go when there is no room.
    pub fn take(&mut self, stderr: bool, piece: &[u8]) {
        match self.pieces.back_mut() {
            Some((of, last)) if *of == stderr => last.extend_from_slice(piece),
            _ => self.pieces.push_back((stderr, piece.to_vec())),
        }
        self.bytes += piece.len();
        while self.bytes > self.most {
            self.truncated = true;
            let over = self.bytes - self.most;
            let Some((_, first)) = self.pieces.front_mut() else { break };
            let gone = over.min(first.len());
            first.drain(..gone);
            self.bytes -= gone;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// What follows is left out.
    pub fn cut(&mut self) {
        self.truncated = true;
    }

    /// What was taken.
    pub fn told(&self) -> Value {
        let row = |(stderr, bytes): &(bool, Vec<u8>)| {
            let stream = if *stderr { "stderr" } else { "stdout" };
            json!({ "stream": stream, "text": String::from_utf8_lossy(bytes) })
        };
        let log: Vec<Value> = self.pieces.iter().map(row).collect();
        json!({ "log": log, "truncated": self.truncated })
    }
}

/// Why something was not done.
pub fn told_error(error: &ContainerError) -> Refusal {
    let bad_gateway = |code, detail| Refusal::new(StatusCode::BAD_GATEWAY, code, detail);
    match error {
        ContainerError::Lease(LeaseError::Held(_) | LeaseError::TooFew { .. }) => {
            Refusal::new(StatusCode::CONFLICT, "gpus_leased", "the GPUs are held by others")
        }
        ContainerError::Lease(LeaseError::NotTaking { .. }) => unavailable(),
        ContainerError::Gpus(_) => {
            Refusal::new(StatusCode::NOT_FOUND, "no_gpu", "the host has no such GPUs")
        }
        ContainerError::Plan(_) => over_limit(),
        ContainerError::NotFound { .. } => no_container(),
        ContainerError::Cancelled => {
            Refusal::new(StatusCode::GONE, "cancelled", "it was given up before it ran")
        }
        ContainerError::Link(_) => {
            bad_gateway("host_failed", "the host was not reached, or did not do its part")
        }
        ContainerError::Engine(engine) if engine.reason() == Reason::Image => {
            bad_gateway("image_failed", "the image is not on the host, and could not be pulled")
        }
        ContainerError::Engine(_) => {
            bad_gateway("engine_failed", "the host's container engine refused or failed")
        }
        _ => internal(),
    }
}

pub fn no_container() -> Refusal {
    let detail = "this hotkey has no such container, or it was removed";
    Refusal::new(StatusCode::NOT_FOUND, "no_container", detail)
}

pub fn over_limit() -> Refusal {
    let detail = "more GPUs, memory, processors or time than one container may have";
    Refusal::new(StatusCode::BAD_REQUEST, "over_limit", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_end() {
        let mut log = Log::new(8);
        log.take(false, b"one\n");
        log.take(true, b"two\n");
        assert_eq!(log.told()["truncated"], false);
        log.take(true, b"3\n");
        let told = log.told();
        assert_eq!(told["truncated"], true);
        assert_eq!(told["log"][0], json!({ "stream": "stdout", "text": "e\n" }));
        assert_eq!(told["log"][1], json!({ "stream": "stderr", "text": "two\n3\n" }));
        log.take(false, b"0123456789");
        assert_eq!(log.told()["log"], json!([{ "stream": "stdout", "text": "23456789" }]));
    }
}
