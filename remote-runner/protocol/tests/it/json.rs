//! Facts as JSON, for `--json`.

use crate::samples;

#[test]
fn facts_read_well_as_json() {
    let json = serde_json::to_value(samples::host_facts()).unwrap();
    assert_eq!(json["gpus"]["driver"]["present"]["driver_version"], "550.54.15");
    assert_eq!(json["gpus"]["devices"][0]["compute_capability"]["major"], 9);
    assert_eq!(json["gpus"]["devices"][0]["row_remap"]["pending"], false);
    assert_eq!(json["memory"]["total_bytes"], 2_164_000_000_000_u64);
    assert_eq!(json["container_runtimes"][0]["problem"], serde_json::Value::Null);
}
