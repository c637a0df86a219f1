//! The messages of both directions.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::facts::{FactsQuery, HostFacts};
use crate::health::HealthReport;
use crate::prove::{Backend, ProveReply, Round};
use crate::relay::{Held, HoldEvent, RelayEvent};
use crate::telemetry::Telemetry;

/// The name of a request within its session, chosen by the orchestrator. A request with the name of
/// one that still runs could not be answered apart from it, so it ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What the orchestrator says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// Starts a unit. It is answered by any number of [`FromRunner::Progress`] and
    /// [`FromRunner::Reply`], then by exactly one [`FromRunner::Finished`].
    Request {
        /// The name of the request in all its answers.
        id: RequestId,
        /// What to do.
        unit: Unit,
    },
    /// Renews the lease: the runner lives for [`LEASE_DURATION`](crate::LEASE_DURATION) from now.
    Renew {},
    /// The next round of a running unit that has rounds. For one that has ended it does nothing; one
    /// that has no rounds, or is still busy with the last one, fails. It is sent to a runner only
    /// after that has answered the unit's start, so an older one never sees it.
    Continue {
        /// Which request.
        id: RequestId,
        /// What to do now.
        round: Round,
    },
    /// Stops a request. Its `Finished` still comes; cancelling one that has ended does nothing.
    Cancel {
        /// Which request.
        id: RequestId,
    },
    /// Cancels every request, waits for each `Finished`, and ends with exit status 0.
    Shutdown {},
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// What the host is: one [`Reply::Facts`].
    Facts(FactsQuery),
    /// What is wrong with the host: one [`Reply::Health`].
    Health {},
    /// A [`Reply::Telemetry`] at once and then each interval, until cancelled.
    Watch {
        /// Milliseconds between samples. The runner takes no less than 10.
        interval_ms: u64,
    },
    /// A proof-of-work of one GPU in rounds, see [`prove`](crate::prove): a [`Reply::Prove`] when it
    /// is ready for the first. Several GPUs are several requests, which run at once.
    Prove {
        /// What shall compute it. There is no fall back to another.
        backend: Backend,
        /// The device's UUID, such as `GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10`. [`Backend::Cuda`]
        /// fails without one; the reference has no use for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<String>,
    },
    /// A Unix socket of the host through the session, see [`relay`](crate::relay):
    /// [`Reply::Relay`] until released.
    Dial {
        /// Its absolute path.
        socket: String,
    },
    /// A container that is stopped when the session ends, however it ends, unless it was released
    /// before: [`Reply::Hold`].
    Hold(Held),
    /// A unit of a later version. It is answered with [`Outcome::Unsupported`], never sent.
    #[serde(skip_serializing)]
    Unknown {
        /// The unit's name as the peer sent it.
        name: String,
    },
}

/// The derived implementation ends the whole session at a unit it does not know; this one keeps
/// the request's id, so that the request can be answered.
impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UnitVisitor;

        #[derive(Deserialize)]
        struct Watch {
            interval_ms: u64,
        }

        #[derive(Deserialize)]
        struct Prove {
            backend: String,
            #[serde(default)]
            gpu: Option<String>,
        }

        #[derive(Deserialize)]
        struct Dial {
            socket: String,
        }

        impl<'de> Visitor<'de> for UnitVisitor {
            type Value = Unit;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a unit: a map of one entry from its name to its parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unit, A::Error> {
                let Some(name) = map.next_key::<String>()? else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                let unit = match name.as_str() {
                    "facts" => Unit::Facts(map.next_value()?),
                    "health" => {
                        map.next_value::<IgnoredAny>()?;
                        Unit::Health {}
                    }
                    "watch" => {
                        let Watch { interval_ms } = map.next_value()?;
                        Unit::Watch { interval_ms }
                    }
                    "prove" => {
                        let Prove { backend, gpu } = map.next_value()?;
                        match backend.as_str() {
                            "cuda" => Unit::Prove { backend: Backend::Cuda, gpu },
                            "reference" => Unit::Prove { backend: Backend::Reference, gpu },
                            later => Unit::Unknown { name: format!("prove.{later}") },
                        }
                    }
                    "dial" => {
                        let Dial { socket } = map.next_value()?;
                        Unit::Dial { socket }
                    }
                    "hold" => Unit::Hold(map.next_value()?),
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        Unit::Unknown { name }
                    }
                };
                match map.next_key::<String>()? {
                    None => Ok(unit),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }

        deserializer.deserialize_map(UnitVisitor)
    }
}

/// What the runner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    /// The first message of a session.
    Hello(Hello),
    /// How far a request is.
    Progress(Progress),
    /// A result of a request.
    Reply {
        /// Which request.
        id: RequestId,
        /// The result.
        reply: Reply,
    },
    /// The end of a request: the last message with its id.
    Finished {
        /// Which request.
        id: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
}

/// Who is speaking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The runner's [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
    pub protocol_version: u32,
    /// SHA-256 of the runner's own executable, 64 lower-case hexadecimal digits.
    pub build: String,
    /// The runner's package version.
    pub runner_version: String,
    /// The names of the units it knows, and of later abilities.
    #[serde(deserialize_with = "bounded::list::<256, _, _>")]
    pub capabilities: Vec<String>,
    /// The runner's process id.
    pub pid: u32,
    /// The kernel's boot id: another one means that the host was restarted.
    pub boot_id: String,
}

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which request.
    pub id: RequestId,
    /// What is being done, one word.
    #[serde(default)]
    pub stage: String,
    /// How much of it is done.
    #[serde(default)]
    pub done: u64,
    /// Of how much, 0 when that is not known.
    #[serde(default)]
    pub total: u64,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What the host is.
    Facts(Box<HostFacts>),
    /// What is wrong with the host.
    Health(HealthReport),
    /// One sample of a watch.
    Telemetry(Telemetry),
    /// A step of a proof-of-work.
    Prove(ProveReply),
    /// Something happened to a socket.
    Relay(RelayEvent),
    /// Something happened to a held container.
    Hold(HoldEvent),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All its replies were sent.
    Ok {},
    /// It was stopped by `Cancel` or `Shutdown`.
    Cancelled {},
    /// It could not be done.
    Failed {
        /// A stable word: `busy`, `stalled`, `probe_failed`, `probe_stalled`, `too_large`,
        /// `environment`, `bug`; of a proof-of-work also those of [`prove`](crate::prove).
        code: String,
        /// What happened, for a person.
        #[serde(default)]
        message: String,
    },
    /// This runner does not know the unit.
    Unsupported {
        /// The unit's name as it was sent.
        #[serde(default)]
        unit: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode_frame};
    use std::collections::BTreeMap;

    #[test]
    fn an_unknown_unit_keeps_its_request_answerable() {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Later {
            Request {
                id: u64,
                unit: BTreeMap<&'static str, BTreeMap<&'static str, Vec<u64>>>,
                priority: u8,
            },
        }
        let unit = BTreeMap::from([("fly", BTreeMap::from([("seed", vec![1, 2, 3])]))]);
        let frame = encode_frame(&Later::Request { id: 7, unit, priority: 1 }).unwrap();
        assert_eq!(
            decode::<ToRunner>(&frame[4..]).unwrap(),
            ToRunner::Request { id: RequestId(7), unit: Unit::Unknown { name: "fly".into() } }
        );
    }

    #[test]
    fn an_unknown_backend_keeps_its_request_answerable() {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Later {
            Request { id: u64, unit: BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> },
        }
        let unit = BTreeMap::from([("prove", BTreeMap::from([("backend", "optical")]))]);
        let frame = encode_frame(&Later::Request { id: 7, unit }).unwrap();
        assert_eq!(
            decode::<ToRunner>(&frame[4..]).unwrap(),
            ToRunner::Request {
                id: RequestId(7),
                unit: Unit::Unknown { name: "prove.optical".into() }
            }
        );
    }

    #[test]
    fn an_unknown_round_keeps_its_request_answerable() {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Later {
            Continue { id: u64, round: BTreeMap<&'static str, Vec<u64>> },
        }
        let round = BTreeMap::from([("attest", vec![1, 2])]);
        let frame = encode_frame(&Later::Continue { id: 7, round }).unwrap();
        assert_eq!(
            decode::<ToRunner>(&frame[4..]).unwrap(),
            ToRunner::Continue {
                id: RequestId(7),
                round: Round::Unknown { name: "attest".into() }
            }
        );
        let round = Round::Unknown { name: "attest".into() };
        assert!(encode_frame(&ToRunner::Continue { id: RequestId(7), round }).is_err());
    }

    #[test]
    fn an_unknown_unit_is_never_sent() {
        let unit = Unit::Unknown { name: "prove".into() };
        assert!(encode_frame(&ToRunner::Request { id: RequestId(1), unit }).is_err());
    }

    #[test]
    fn a_list_longer_than_its_limit_is_refused() {
        let hello = Hello { capabilities: vec![String::new(); 257], ..Hello::default() };
        let frame = encode_frame(&FromRunner::Hello(hello)).unwrap();
        assert!(decode::<FromRunner>(&frame[4..]).is_err());
    }
}
