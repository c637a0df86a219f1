//! Why an engine did not do what it was asked.

use super::dial::DialError;
use crate::printable::printable;
use crate::reason::Reason;

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no stream to it.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The exchange broke off or was no HTTP.
    #[error("cannot {operation}")]
    Http {
        /// What was being done.
        operation: &'static str,
        /// What went wrong.
        source: hyper::Error,
    },
    /// A stream of output broke off.
    #[error("cannot {operation}")]
    Stream {
        /// What was being done.
        operation: &'static str,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The engine said no.
    #[error("cannot {operation}: {message}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The engine's words, cleaned.
        message: String,
    },
    /// It answered something else than its interface says.
    #[error("cannot {operation}: the engine's answer makes no sense: {detail}")]
    Answer {
        /// What was being done.
        operation: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// It answered too much.
    #[error("cannot {operation}: the engine's answer is larger than {limit} bytes")]
    TooLarge {
        /// What was being done.
        operation: &'static str,
        /// The most that is taken.
        limit: usize,
    },
    /// It did not answer.
    #[error("cannot {operation}: the engine did not answer within {seconds} s")]
    TimedOut {
        /// What was being done.
        operation: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// A pull failed in the middle.
    #[error("cannot pull {image}: {message}")]
    Pull {
        /// The image.
        image: String,
        /// The engine's words, cleaned.
        message: String,
    },
    /// `--pull never`, and the image is not there.
    #[error("the image {0} is not on the host, and it was not to be pulled")]
    ImageMissing(String),
    /// It holds no limits, and some were wanted.
    #[error("the engine runs without control groups and holds no limit of memory or processors")]
    NoControlGroups,
    /// A request could not be written; a value has characters that HTTP does not take.
    #[error("cannot {operation}: a value cannot be sent")]
    Request {
        /// What was being done.
        operation: &'static str,
    },
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason,
            Self::Pull { .. } | Self::ImageMissing(_) => Reason::Image,
            Self::TimedOut { .. } => Reason::Deadline,
            Self::Refused { operation: "find the container", status: 404, .. } => Reason::Container,
            Self::Request { .. } => Reason::Input,
            _ => Reason::Docker,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Dial(error) => return error.hint.clone(),
            Self::NoControlGroups => {
                "a Docker without root holds limits on hosts with control groups v2 \
                 (systemd.unified_cgroup_hierarchy=1); or leave --memory and --cpus away, also in \
                 `containers` of the fleet file"
            }
            Self::ImageMissing(_) => "leave --pull away, or load the image on the host",
            Self::Pull { message, .. }
                if message.contains("denied") || message.contains("unauthorized") =>
            {
                "check the image's name, and give the registry's credentials with --registry-auth-file"
            }
            Self::Refused { message, .. } if message.contains("could not select device driver") => {
                "install the NVIDIA Container Toolkit on the host and restart its engine"
            }
            Self::Refused { message, .. } if message.contains("is already in use by container") => {
                "choose another --name, or remove the other container: orchestrator rm HOST/NAME"
            }
            Self::Refused { message, .. } if message.contains("port is already allocated") => {
                "publish another port of the host"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the engine says that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    pub(super) fn refused(operation: &'static str, status: u16, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Said {
            message: String,
            /// Podman's own word for what went wrong.
            #[serde(default)]
            cause: String,
        }
        let (text, cause) = match serde_json::from_slice::<Said>(body) {
            Ok(said) => (said.message, said.cause),
            Err(_) => (String::from_utf8_lossy(body).into_owned(), String::new()),
        };
        // What Podman says of a container that goes while it looks.
        let status = if status == 500 && cause == "no such container" { 404 } else { status };
        let mut message = printable(text.trim());
        if message.is_empty() {
            message = format!("HTTP status {status}");
        }
        Self::Refused { operation, status, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_goes_while_podman_looks_is_not_found() {
        let body = br#"{"cause":"no such container","message":"container b0 does not exist","response":500}"#;
        assert!(Error::refused("look", 500, body).is_not_found());
        assert!(
            Error::refused("look", 404, br#"{"message":"No such container: b0"}"#).is_not_found()
        );
        let other = Error::refused("look", 500, br#"{"cause":"busy","message":"busy"}"#);
        assert!(!other.is_not_found());
        assert!(!Error::refused("look", 500, b"no such container").is_not_found());
    }
}
