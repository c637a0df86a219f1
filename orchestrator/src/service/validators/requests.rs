//! What requests of validators name: hosts, GPUs, nonces, each read, bounded and checked.

use hyper::StatusCode;
use serde_json::Value;

use super::{Validators, may_be_granted, no_host, text};
use crate::axon::{Call, Refusal};
use crate::pow::raw_uuid;
use crate::store::HostRecord;

/// A field that is text, and must be there.
pub fn required<'c>(call: &'c Call, name: &str) -> Result<&'c str, Refusal> {
    text(call, name)?.ok_or_else(|| Refusal::bad_request(format!("`{name}` is missing")))
}

/// A field of 32 bytes in hexadecimal.
pub fn nonce(call: &Call, name: &str) -> Result<[u8; 32], Refusal> {
    let bytes = crate::hex::decode(required(call, name)?);
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refusal::bad_request(format!("`{name}` is 32 bytes in hexadecimal")))
}

/// The UUIDs of `gpus`, at most so many; none where the field is absent.
pub fn gpus(call: &Call, most: usize) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::bad_request("`gpus` is a list of UUIDs, each once");
    let list = match call.body.get("gpus") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= most => list,
        Some(_) => return Err(wrong()),
    };
    let mut gpus: Vec<String> = Vec::new();
    for gpu in list {
        let gpu = gpu.as_str().filter(|gpu| raw_uuid(gpu).is_some()).ok_or_else(wrong)?;
        if gpus.iter().any(|other| other == gpu) {
            return Err(wrong());
        }
        gpus.push(gpu.to_owned());
    }
    Ok(gpus)
}

impl Validators {
    /// The host of this name, if it is assigned to the caller and in a state in which something may
    /// be done there for validators.
    pub(super) async fn assigned_host(
        &self,
        call: &Call,
        name: &str,
    ) -> Result<HostRecord, Refusal> {
        let hosts = self.assigned(call).await?;
        let host = hosts.into_values().find(|host| host.spec.name.as_str() == name);
        let host = host.ok_or_else(no_host)?;
        if may_be_granted(host.state) { Ok(host) } else { Err(unavailable()) }
    }
}

/// The host is set aside, faulty or not reached.
pub fn unavailable() -> Refusal {
    let detail = "nothing can be done on the host for validators at the moment";
    Refusal::new(StatusCode::CONFLICT, "host_unavailable", detail)
}
