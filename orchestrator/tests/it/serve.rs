//! `serve` and the operator API: the built binary, asked over HTTP.

mod announcing;
mod asking;
mod challenges;
mod containers;
mod schemathesis;
mod sessions;
mod validators;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use orchestrator::api;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::cli::operator::{Operator, Running, STUCK, eventually};
use crate::deploy::host::Host;

/// Every port is a free one.
const CONFIG: &str = "[operator_api]\nport = 0\n[metrics.prometheus]\nport = 0\n\
    [metrics]\ncollection_interval = \"1s\"\n[metrics.default_labels]\nsite = \"a\\\"b\"\n";

struct Service {
    running: Running,
    api: SocketAddr,
    metrics: SocketAddr,
    listeners: Value,
}

impl Service {
    async fn start(operator: &Operator) -> Self {
        let running = operator.start(["serve", "--json"]);
        let ready = || running.written().0.lines().next().is_some_and(|line| line.ends_with('}'));
        eventually("it serves", ready).await;
        let ready: Value =
            serde_json::from_str(running.written().0.lines().next().unwrap()).unwrap();
        assert_eq!(ready["event"], "ready", "{ready}");
        let address = |name: &str| ready["listeners"][name].as_str().unwrap().parse().unwrap();
        let listeners = ready["listeners"].clone();
        Self { api: address("operator_api"), metrics: address("metrics"), listeners, running }
    }

    async fn get(&self, path: &str) -> Answer {
        ask(self.api, "GET", path, &[]).await
    }

    async fn stop(self) {
        self.running.signal(Signal::TERM);
        self.running.end().await.expect(0);
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// One request on a connection of its own.
async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask_with(address, method, path, headers, "").await
}

/// One request with a body.
async fn ask_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len().to_string();
    let with_length = [headers, &[("Content-Length", length.as_str())]].concat();
    let headers = if body.is_empty() { headers } else { &with_length };
    let head = head(address, method, path, headers);
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn head(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// Asks until there is an answer that will do.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(STUCK, asking).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

fn operator() -> Operator {
    let operator = Operator::new();
    operator.write("orchestrator.toml", CONFIG);
    operator
}

fn document() -> Value {
    serde_json::from_str(api::OPENAPI).unwrap()
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = document();
    let mut documented: Vec<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut routes = api::paths();
    documented.sort_unstable();
    routes.sort_unstable();
    assert_eq!(documented, routes);
    let codes: Vec<&str> = api::ProblemCode::ALL.iter().map(|code| code.parts().0).collect();
    assert_eq!(
        document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"],
        json!(codes)
    );
}

/// Whether a value is as its schema says: types, required and unknown properties, words.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return conforms(document, &document["components"]["schemas"][name], value, at);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        _ => return,
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.contains(&kind), "{at}: {value} is no {kinds:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    for item in value.as_array().into_iter().flatten() {
        conforms(document, &schema["items"], item, &format!("{at}[]"));
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object())
    {
        for name in schema["required"].as_array().unwrap() {
            assert!(object.contains_key(name.as_str().unwrap()), "{at} has no {name}");
        }
        for (name, value) in object {
            let known = properties.get(name).unwrap_or_else(|| panic!("{at}: {name} is unknown"));
            conforms(document, known, value, &format!("{at}.{name}"));
        }
    }
}

#[tokio::test]
async fn every_route_answers_as_its_document_says() {
    let (host, operator) = (Host::start(), operator());
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    operator
        .run(["hosts", "drain", "gpu-01", "--note", "<script>alert(1)</script>"])
        .await
        .expect(0);
    let key = operator.file("key.pub");
    fs::copy(host.sshd.dir.path().join("user.pub"), &key).unwrap();
    let keys_file = host.sshd.dir.path().join("authorized_keys");
    let config =
        format!("{CONFIG}[ssh_session]\nauthorized_keys_file = \"{}\"\n", keys_file.display());
    operator.write("orchestrator.toml", &config);
    let give = [
        "grants",
        "give",
        "gpu-01",
        "--validator",
        "5V",
        "--key",
        "key.pub",
        "--from",
        "127.0.0.1",
        "--json",
    ];
    let given = operator.run(give).await.expect(0);
    let grant = given.json_lines()[0]["grant"]["id"].as_str().unwrap().to_owned();

    let service = Service::start(&operator).await;
    let document = document();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path.replace("{name}", "gpu-01").replace("{id}", &grant);
        let answer = service.get(&real).await.expect(200);
        let kind = answer.header("content-type").unwrap().split(';').next().unwrap().to_owned();
        let content = &operations["get"]["responses"]["200"]["content"][&kind];
        assert!(content.is_object(), "{path} answers {kind}");
        if kind == "application/json" && path != "/api/v1/openapi.json" {
            let body = answer.json();
            conforms(&document, &content["schema"], &body, path);
            if let Some(items) = body["items"].as_array().filter(|_| {
                !["proofs", "leases", "sweeps", "containers"].iter().any(|end| path.ends_with(end))
            }) {
                assert!(!items.is_empty(), "{path}");
            }
        }
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        assert!(answer.header("x-request-id").is_some());
        assert!(!answer.body.contains("identity_file"), "{path} shows how hosts are logged in to");
        // HEAD is GET without the body, and nothing else is there.
        ask(service.api, "HEAD", &real, &[]).await.expect(200);
        let refused = ask(service.api, "POST", &real, &[("Content-Length", "0")]).await.expect(405);
        assert_eq!(refused.json()["code"], "method_not_allowed");
    }
    let page = service.get("/").await.body;
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    assert!(page.contains("gpu-01") && page.contains(">draining<"), "{page}");
    let shown = service.get("/api/v1/openapi.json").await.json();
    assert_eq!(shown["info"]["version"], env!("CARGO_PKG_VERSION"));
    service.stop().await;
    let kinds = operator.audit().await;
    assert!(kinds.contains(&"serve.started".to_owned()), "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "serve.stopped");
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_with_a_code_and_the_requests_id() {
    let operator = operator();
    let service = Service::start(&operator).await;
    for (path, status, code) in [
        ("/nothing", 404, "not_found"),
        ("/api/v1/hosts/gpu-09", 404, "not_found"),
        ("/api/v1/hosts/%2e%2e%2fx", 404, "not_found"),
        ("/api/v1/hosts/gpu-09/facts", 404, "not_found"),
        ("/api/v1/hosts/gpu-09/proofs", 404, "not_found"),
        ("/api/v1/grants/x", 404, "not_found"),
        ("/api/v1/hosts?limit=0", 400, "invalid_parameter"),
        ("/api/v1/hosts?limit=1001", 400, "invalid_parameter"),
        ("/api/v1/hosts?limit=%2B5", 400, "invalid_parameter"),
        ("/api/v1/hosts?limit=5&limit=6", 400, "invalid_parameter"),
        ("/api/v1/hosts?state=asleep", 400, "invalid_parameter"),
        ("/api/v1/hosts?q=1", 400, "invalid_parameter"),
        ("/api/v1/grants?all=yes", 400, "invalid_parameter"),
        ("/api/v1/proofs?host=%3Cx", 400, "invalid_parameter"),
        ("/api/v1/events?after=-1", 400, "invalid_parameter"),
    ] {
        let answer = service.get(path).await.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let problem = answer.json();
        conforms(&document(), &json!({ "$ref": "#/components/schemas/Problem" }), &problem, path);
        assert_eq!(problem["code"], code, "{path}");
        assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{path}");
    }
    let id = ask(service.api, "GET", "/nothing", &[("X-Request-Id", "from-me-1")]).await;
    assert_eq!(id.json()["request_id"], "from-me-1");
    for hostile in ["from me", "<b>", &"x".repeat(65)] {
        let id = ask(service.api, "GET", "/nothing", &[("X-Request-Id", hostile)]).await;
        assert_ne!(id.json()["request_id"], hostile);
    }
    // A web page whose name leads here has that name.
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[2001:db8::1]:80"]
    {
        let refused = ask(service.api, "GET", "/", &[("Host", host)]).await.expect(403);
        assert_eq!(refused.json()["code"], "forbidden_host");
    }
    for host in ["localhost:8080", "[::1]", "127.0.0.1"] {
        ask(service.api, "GET", "/api/v1/hosts", &[("Host", host)]).await.expect(200);
    }
    service.stop().await;
}

#[tokio::test]
async fn metrics_are_prometheus_text_on_both_listeners() {
    let operator = operator();
    let service = Service::start(&operator).await;
    service.get("/nothing/of/a/client").await.expect(404);
    ask(service.api, "BREW", "/health", &[]).await.expect(405);
    for address in [service.api, service.metrics] {
        let text = ask(address, "GET", "/metrics", &[]).await.expect(200).body;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("orchestrator_"), "{line}");
            assert!(name.ends_with("site=\"a\\\"b\"}"), "{line}");
            value.parse::<f64>().unwrap();
        }
        assert!(text.contains("orchestrator_hosts{state=\"ready\",site="), "{text}");
        assert!(text.contains("route=\"other\",status=\"404\""), "{text}");
        assert!(text.contains("method=\"other\",route=\"/health\",status=\"405\""), "{text}");
        assert!(!text.contains("client") && !text.contains("BREW"), "{text}");
    }
    ask(service.metrics, "GET", "/api/v1/hosts", &[]).await.expect(404);
    service.stop().await;
}

#[tokio::test]
async fn a_token_is_needed_where_it_is_asked_for() {
    let operator = Operator::new();
    let secret = operator.write("secret", "b1c0e47fa92d5583641e0a7cc8d3f29b5e76014d\n");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
    // Without a secret it does not start, and says what to do.
    operator.write("orchestrator.toml", "[operator_api]\nhost = \"0.0.0.0\"\nport = 0\n");
    let refused = operator.run(["serve"]).await.expect(1);
    assert!(refused.stderr.contains("head -c 32 /dev/urandom"), "{refused:?}");
    operator.write(
        "orchestrator.toml",
        "[operator_api]\nhost = \"0.0.0.0\"\nport = 0\n[metrics.prometheus]\nport = 0\n\
         [security]\njwt_secret_file = \"secret\"\n",
    );
    let mut service = Service::start(&operator).await;
    service.api.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    let token = operator.run(["token", "--for", "test"]).await.expect(0).stdout;
    let token = token.trim();
    let with = async |value: &str| {
        ask(service.api, "GET", "/api/v1/hosts", &[("Authorization", value)]).await
    };
    with(&format!("Bearer {token}")).await.expect(200);
    let refused = service.get("/api/v1/hosts").await.expect(401);
    assert!(refused.header("www-authenticate").unwrap().contains("Basic"), "{refused:?}");
    use base64::Engine as _;
    let basic =
        |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    with(&basic(&format!("me:{token}"))).await.expect(200);
    let over = operator.run(["token", "--expires", "0s"]).await.expect(0).stdout;
    for wrong in [
        "Bearer".to_owned(),
        "Bearer x".to_owned(),
        format!("Bearer {token}x"),
        format!("Bearer {}", over.trim()),
        format!("Token {token}"),
        basic("me:x"),
    ] {
        with(&wrong).await.expect(401);
    }
    // Health has no secrets, and load balancers have no token. Any name will do then.
    ask(service.api, "GET", "/health", &[("Host", "lb.example")]).await.expect(200);
    service.stop().await;
    // With another secret, the old tokens are no good.
    operator.write("secret", "0a7cc8d3f29b5e76014db1c0e47fa92d5583641e\n");
    let mut service = Service::start(&operator).await;
    service.api.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    let value = format!("Bearer {token}");
    ask(service.api, "GET", "/api/v1/hosts", &[("Authorization", &value)]).await.expect(401);
    service.stop().await;
}

#[tokio::test]
async fn events_are_pages_and_a_stream_that_can_be_taken_up_again() {
    let operator = operator();
    let service = Service::start(&operator).await;
    let store = orchestrator::store::Store::open(&operator.database()).await.unwrap();
    let append = async |number: i64| {
        let event = orchestrator::store::NewEvent {
            kind: "test.happened",
            host: None,
            detail: json!({ "number": number }),
        };
        store.append_events("test", &[event]).await.unwrap();
    };
    for number in 1..=3 {
        append(number).await;
    }
    let page = service.get("/api/v1/events?limit=2&after=1").await.expect(200).json();
    assert_eq!(page["items"][1]["detail"]["number"], 2);
    let next = format!("/api/v1/events?after={}", page["next"].as_str().unwrap());
    let page = service.get(&next).await.json();
    assert_eq!(
        (page["items"][0]["detail"]["number"].as_i64(), &page["next"]),
        (Some(3), &Value::Null)
    );

    let follow = async |headers: &[(&str, &str)]| {
        let mut stream = TcpStream::connect(service.api).await.unwrap();
        let accept = [&[("Accept", "text/event-stream")], headers].concat();
        let head = head(service.api, "GET", "/api/v1/events", &accept);
        stream.write_all(head.as_bytes()).await.unwrap();
        BufReader::new(stream).lines()
    };
    let mut again = follow(&[("Last-Event-ID", "2")]).await;
    let mut line = async || again.next_line().await.unwrap();
    let mut seen = Vec::new();
    append(4).await;
    while seen.len() < 3 {
        let line = line().await.expect("the stream goes on");
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            conforms(&document(), &json!({ "$ref": "#/components/schemas/Event" }), &event, "data");
            seen.push(event["detail"]["number"].as_i64().unwrap());
        }
    }
    assert_eq!(seen, [2, 3, 4]);
    // A stream without a number begins at the end of the chain.
    let mut fresh = follow(&[]).await;
    let mut head = String::new();
    while let Some(line) = fresh.next_line().await.unwrap() {
        head += &line;
        if line.is_empty() {
            break;
        }
    }
    assert!(head.contains("text/event-stream"), "{head}");
    append(5).await;
    let data = loop {
        let line = fresh.next_line().await.unwrap().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            break serde_json::from_str::<Value>(data).unwrap();
        }
    };
    assert_eq!(data["detail"]["number"], 5);
    // Open streams do not hold up the end.
    service.running.signal(Signal::TERM);
    while let Ok(Some(_)) = fresh.next_line().await {}
    service.running.end().await.expect(0);
}

#[tokio::test]
async fn one_process_serves_and_a_killed_one_is_succeeded() {
    let operator = operator();
    let service = Service::start(&operator).await;
    let second = operator.run(["serve", "--json"]).await.expect(6);
    assert_eq!(second.json_lines()[0]["reason"], "locked", "{second:?}");
    assert!(second.stderr.contains("serves this database already"), "{second:?}");
    service.running.signal(Signal::KILL);
    let _killed = service.running.end().await;
    Service::start(&operator).await.stop().await;
}

#[tokio::test]
async fn sighup_takes_over_log_levels_and_a_wrong_file_changes_nothing() {
    let operator = operator();
    let service = Service::start(&operator).await;
    let said = || service.running.written().1;
    operator.write("orchestrator.toml", "[nonsense]\n");
    service.running.signal(Signal::HUP);
    eventually("the wrong file is refused", || said().contains("is not used")).await;
    service.get("/health").await.expect(200);
    assert!(!said().contains("operator API request"), "{}", said());
    operator.write("orchestrator.toml", &format!("{CONFIG}[logging]\nlevel = \"debug\"\n"));
    service.running.signal(Signal::HUP);
    eventually("it is read again", || said().contains("were taken over")).await;
    let id = "after-the-reload";
    ask(service.api, "GET", "/health", &[("X-Request-Id", id)]).await.expect(200);
    eventually("requests are logged", || said().contains(id)).await;
    service.stop().await;
}

#[tokio::test]
async fn expired_grants_leave_the_host_and_health_says_when_they_cannot() {
    let (host, operator) = (Host::start(), Operator::new());
    let keys_file = host.sshd.dir.path().join("authorized_keys");
    let config = format!(
        "{CONFIG}[ssh_session]\nauthorized_keys_file = \"{}\"\nkey_cleanup_interval = \"1s\"\n",
        keys_file.display()
    );
    operator.write("orchestrator.toml", &config);
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    fs::copy(host.sshd.dir.path().join("user.pub"), operator.file("key.pub")).unwrap();
    let before = fs::read(&keys_file).unwrap();
    let give = async |duration: &str| {
        let from = ["--from", "127.0.0.1", "--for", duration];
        let give = ["grants", "give", "gpu-01", "--validator", "5V", "--key", "key.pub"];
        operator.run(give.into_iter().chain(from)).await.expect(0);
    };
    give("1s").await;
    assert_ne!(fs::read(&keys_file).unwrap(), before);
    let service = Service::start(&operator).await;
    eventually("the line is gone", || fs::read(&keys_file).unwrap() == before).await;
    // A file that is no file stands in the way of the next one.
    give("1s").await;
    let folder = keys_file.with_file_name("aside");
    fs::rename(&keys_file, &folder).unwrap();
    fs::create_dir(&keys_file).unwrap();
    // The host itself is reached no more then: its operator's key was in that file.
    let unwell = until("health says that a grant is still there", async || {
        let health = service.get("/health").await;
        (health.status == 503).then(|| health.json())
    })
    .await;
    conforms(&document(), &json!({ "$ref": "#/components/schemas/Health" }), &unwell, "health");
    assert!(unwell["checks"].to_string().contains("gpu-01"), "{unwell}");
    fs::remove_dir(&keys_file).unwrap();
    fs::rename(&folder, &keys_file).unwrap();
    eventually("it is put right", || fs::read(&keys_file).unwrap() == before).await;
    service.stop().await;
}

#[tokio::test]
async fn hosts_are_swept_also_those_that_are_deployed_to_meanwhile() {
    let (first, second, operator) = (Host::start(), Host::start(), operator());
    operator.fleet(&[first.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let service = Service::start(&operator).await;
    let swept = async |hosts: i64| {
        until("a sweep of all hosts ends", async || {
            let sweeps = service.get("/api/v1/sweeps?limit=1").await.expect(200).json();
            let last = &sweeps["items"][0];
            (last["hosts"] == hosts && last["ended_ms"].is_i64()).then(|| last.clone())
        })
        .await
    };
    assert_eq!(swept(1).await["unreached"], 0);
    // Its key is trusted by another process while this one runs.
    operator.fleet(&[second.unknown("gpu-02")]);
    operator.deploy(["--accept-new-host-keys"]).await.expect(0);
    assert_eq!(swept(2).await["unreached"], 0);
    until("health tells of it", async || {
        let health = service.get("/health").await.json();
        health["checks"].to_string().contains(" 0 not reached").then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn sweeps_wait_for_their_schedule_and_their_jitter() {
    let host = Host::start();
    for key in ["schedule = \"0 0 29 2 *\"", "jitter = \"1d\""] {
        let operator = operator();
        operator.write("orchestrator.toml", &format!("{CONFIG}[sweep]\n{key}\n"));
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy([]).await.expect(0);
        let service = Service::start(&operator).await;
        until("health says when the first is due", async || {
            let health = service.get("/health").await.json();
            health["checks"].to_string().contains("the first is due 20").then_some(())
        })
        .await;
        let sweeps = service.get("/api/v1/sweeps?limit=1").await.expect(200).json();
        assert_eq!(sweeps["items"], json!([]), "{key}");
        service.stop().await;
    }
    let operator = operator();
    operator.write("orchestrator.toml", &format!("{CONFIG}[sweep]\nschedule = \"each day\"\n"));
    let refused = operator.run(["serve"]).await.expect(1);
    assert!(refused.stderr.contains("cannot use `schedule` of [sweep]"), "{refused:?}");
}

#[tokio::test]
async fn the_unit_names_this_program_and_its_configuration() {
    let operator = operator();
    let unit = operator
        .run(["--config", "orchestrator.toml", "serve", "--print-unit"])
        .await
        .expect(0)
        .stdout;
    let config = operator.file("orchestrator.toml").canonicalize().unwrap();
    let start = format!("/orchestrator\" --config \"{}\" serve\n", config.display());
    assert!(unit.contains(&start), "{unit}");
    assert!(!unit.contains("{{"), "{unit}");
}
