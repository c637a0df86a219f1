//! What a validator asks of a container, read and bounded.

use std::ops::RangeInclusive;

use runner_protocol::HostFacts;
use serde_json::Value;

use super::super::requests::{self, required};
use crate::axon::{Call, Refusal};
use crate::config::ValidatorContainers;
use crate::docker::ImageName;
use crate::fleet::containers::Wish;
use crate::host_spec::ContainerRules;

/// The fields that a legacy caller must have signed: all of them.
pub const HASH_FIELDS: &[&str] = &[
    "name",
    "host",
    "image",
    "command",
    "env",
    "gpus",
    "gpu_count",
    "memory_bytes",
    "cpus_milli",
    "timeout_secs",
];

/// Arguments, and variables, at most.
const MOST_WORDS: usize = 256;

/// Bytes of all arguments, and of all variables: what exec(2) takes of one is twice as much.
const MOST_BYTES: usize = 64 * 1024;

/// Lines of a log unless said otherwise.
const TAIL: u64 = 100;

/// Lines of a log that may be asked for.
pub const TAILS: RangeInclusive<u64> = 0..=1000;

/// What is asked for.
#[derive(Debug)]
pub struct Asked {
    pub host: String,
    pub image: ImageName,
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub gpus: Wish,
    pub memory_bytes: Option<u64>,
    pub cpus_milli: Option<u64>,
    pub timeout_secs: Option<u64>,
}

impl Asked {
    pub fn of(call: &Call, config: &ValidatorContainers) -> Result<Self, Refusal> {
        let image = ImageName::parse(required(call, "image")?)
            .map_err(|error| Refusal::bad_request(format!("`image`: {error}")))?;
        if !config.images.iter().any(|rule| rule.allows(image.as_str())) {
            let detail = "this image is not among those that may be run";
            return Err(Refusal::new(hyper::StatusCode::FORBIDDEN, "image_not_allowed", detail));
        }
        let gpus = gpus(call, config.gpus)?;
        let mut environment = environment(call)?;
        if gpus == Wish::Nothing {
            // An image of its own accord asks NVIDIA's runtime for all of them, where that is the
            // host's default.
            environment.push(("NVIDIA_VISIBLE_DEVICES".to_owned(), "void".to_owned()));
        }
        Ok(Self {
            host: required(call, "host")?.to_owned(),
            image,
            command: command(call)?,
            environment,
            gpus,
            memory_bytes: number(call, "memory_bytes")?,
            cpus_milli: number(call, "cpus_milli")?,
            timeout_secs: number(call, "timeout_secs")?,
        })
    }
}

/// The rules of a host with the limits for validators, the narrower of both, and no more processors
/// than it has, which engines refuse. Privileged containers are never among them.
pub fn narrower(
    rules: &ContainerRules,
    config: &ValidatorContainers,
    facts: Option<&HostFacts>,
) -> ContainerRules {
    let threads = facts.map(|facts| u64::from(facts.cpu.threads)).filter(|threads| *threads > 0);
    let cpus = threads.map_or(config.cpus, |threads| threads.min(config.cpus));
    let least = |rule: Option<u64>, most: u64| Some(rule.map_or(most, |rule| rule.min(most)));
    ContainerRules {
        socket: rules.socket.clone(),
        allow_privileged: false,
        memory_bytes: least(rules.memory_bytes, config.memory_bytes),
        pids: least(rules.pids, config.pids),
        cpus_milli: least(rules.cpus_milli, cpus.saturating_mul(1000)),
        timeout_secs: least(rules.timeout_secs, config.timeout.as_secs().max(1)),
    }
}

/// How many of the last lines of a log.
pub fn tail(call: &Call) -> Result<u64, Refusal> {
    match number(call, "tail")? {
        None => Ok(TAIL),
        Some(lines) if TAILS.contains(&lines) => Ok(lines),
        Some(_) => Err(Refusal::bad_request(format!("`tail` is at most {}", TAILS.end()))),
    }
}

fn gpus(call: &Call, most: usize) -> Result<Wish, Refusal> {
    let named = requests::gpus(call, most)?;
    let count = match call.body.get("gpu_count") {
        None | Some(Value::Null) => 0,
        Some(value) => {
            let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
            let count = count.ok_or_else(|| Refusal::bad_request("`gpu_count` is a number"))?;
            if count > most {
                return Err(super::told::over_limit());
            }
            count
        }
    };
    match (named.is_empty(), count) {
        (true, 0) => Ok(Wish::Nothing),
        (true, count) => Ok(Wish::Count { count, model: None }),
        (false, 0) => Ok(Wish::These(named)),
        (false, _) => Err(Refusal::bad_request("either `gpus` or `gpu_count`")),
    }
}

fn command(call: &Call) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::bad_request("`command` is a list of words, 64 KiB at most");
    let list = match call.body.get("command") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MOST_WORDS => list,
        Some(_) => return Err(wrong()),
    };
    let words: Option<Vec<String>> = list
        .iter()
        .map(|word| word.as_str().filter(|word| is_c_string(word)).map(str::to_owned))
        .collect();
    let words = words.ok_or_else(wrong)?;
    if words.iter().map(String::len).sum::<usize>() > MOST_BYTES {
        return Err(wrong());
    }
    Ok(words)
}

fn environment(call: &Call) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = || {
        let detail = "`env` has names of letters, digits and `_`, and values that are text, \
                      64 KiB at most; names that begin with NVIDIA_ are the service's";
        Refusal::bad_request(detail)
    };
    let table = match call.body.get("env") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(table)) if table.len() <= MOST_WORDS => table,
        Some(_) => return Err(wrong()),
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            // With these a container chooses GPUs that are not in its lease.
            && !name.to_ascii_uppercase().starts_with("NVIDIA_")
    };
    let mut variables = Vec::new();
    let mut bytes = 0;
    for (name, value) in table {
        let value = value.as_str().filter(|value| is_name(name) && is_c_string(value));
        let value = value.ok_or_else(wrong)?;
        bytes += name.len() + value.len();
        variables.push((name.clone(), value.to_owned()));
    }
    if bytes > MOST_BYTES { Err(wrong()) } else { Ok(variables) }
}

fn is_c_string(text: &str) -> bool {
    !text.contains('\0')
}

/// A whole number above zero, or absent.
fn number(call: &Call, name: &str) -> Result<Option<u64>, Refusal> {
    match call.body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(Refusal::bad_request(format!("`{name}` is a whole number above zero"))),
        },
    }
}
