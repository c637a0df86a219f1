//! Schemathesis, which makes requests of an OpenAPI document, right and wrong ones, and holds the answers
//! against it: status, type, schema, headers, and that what is wrong is refused.

use std::fs;
use std::net::SocketAddr;

use orchestrator::axon::OPENAPI_PATH;

use super::sessions::{SECRET, open, operator, with_secret};
use super::validators::{axon, pair};
use super::{CONFIG, Service, until};
use crate::cli::operator::Operator;
use crate::deploy::host::Host;
use crate::python;

/// Holds a running service against its document. The same requests each time, some hundreds of them.
async fn examine(address: SocketAddr, path: &str, parameters: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("schemathesis.toml"), parameters).unwrap();
    let location = format!("http://{address}{path}");
    let fixed = [
        "run",
        &location,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "15",
        "--checks",
        "all",
        "--generation-deterministic",
        "--continue-on-failure",
        "--no-color",
        // A debug build on a machine with much else to do; nothing waits for it otherwise.
        "--request-timeout",
        "60",
    ];
    let arguments = [&fixed[..], more].concat();
    let (well, said) =
        python::module("schemathesis", "schemathesis.cli", &arguments, folder.path()).await;
    assert!(well, "{said}");
    assert!(said.contains("generated"), "nothing was asked: {said}");
    said
}

#[tokio::test]
async fn the_operator_api_is_as_its_document_says() {
    let host = Host::start();
    let keys_file = host.sshd.dir.path().join("authorized_keys");
    let operator = Operator::new();
    let config = format!(
        "{}[security]\n[ssh_session]\nauthorized_keys_file = \"{}\"\n",
        CONFIG.replace("[operator_api]\n", "[operator_api]\nrequire_token = true\n"),
        keys_file.display()
    );
    operator.write("orchestrator.toml", &config);
    with_secret(&operator);
    // Something of everything.
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    operator.run(["verify", "gpu-01", "--allow-reference"]).await.expect(0);
    fs::copy(host.sshd.dir.path().join("user.pub"), operator.file("key.pub")).unwrap();
    let give = ["grants", "give", "gpu-01", "--validator", "5V", "--key", "key.pub"];
    let give = give.into_iter().chain(["--from", "127.0.0.1", "--json"]);
    let given = operator.run(give).await.expect(0).json_lines();
    let grant = given[0]["grant"]["id"].as_str().unwrap().to_owned();
    let token = operator.run(["token"]).await.expect(0).stdout;
    let service = Service::start(&operator).await;
    let authorization = format!("Authorization: Bearer {}", token.trim());
    let parameters =
        format!("[parameters]\n\"path.name\" = \"gpu-01\"\n\"path.id\" = \"{grant}\"\n");
    let path = "/api/v1/openapi.json";
    let said = examine(service.api, path, &parameters, &["-H", &authorization]).await;
    assert!(!said.contains("Missing test data"), "{said}");
    assert!(!said.contains("Authentication failed"), "{said}");
    service.stop().await;
}

#[tokio::test]
async fn the_axon_is_as_its_document_says() {
    let (host, validator) = (Host::start(), pair(7));
    let operator = operator(&[&validator]);
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let service = Service::start(&operator).await;
    let (token, _) = open(&service, &validator).await;
    // Who signs nothing, or something that is no signature, gets problems that conform.
    let said = examine(axon(&service), OPENAPI_PATH, "", &[]).await;
    assert!(said.contains("Authentication failed"), "{said}");
    // Who is known gets to the handlers. Closing its session would end that.
    let authorization = format!("Authorization: Bearer {token}");
    let authorized = ["-H", &authorization];
    let others = ["--exclude-path-regex", "/v1/session.*", "--exclude-path", "/v1/ssh-grants"];
    let more = [&authorized[..], &others].concat();
    let said = examine(axon(&service), OPENAPI_PATH, "", &more).await;
    assert!(!said.contains("- POST /v1/hosts"), "{said}");
    // No pattern says what a public key is: a text may be refused, and must be in the way that is said.
    let keys = ["--include-path", "/v1/ssh-grants", "--exclude-checks", "positive_data_acceptance"];
    let more = [&authorized[..], &keys].concat();
    examine(axon(&service), OPENAPI_PATH, "", &more).await;
    let _answers = until("it still answers", async || {
        let hosts =
            super::validators::call(&service, &validator, "/v1/hosts", serde_json::json!({}));
        (hosts.await.status == 200).then_some(())
    })
    .await;
    assert!(!service.running.written().1.contains(SECRET));
    service.stop().await;
}
