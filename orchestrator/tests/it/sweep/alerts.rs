//! Alerts, to servers on loopback that fail, hang and recover.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::lock::change_database;
use super::{deployed, operator};
use crate::cli::operator::Operator;
use crate::deploy::host::Host;

/// What stands in the URL and must stand nowhere else.
const SECRET: &str = "T0K3N-do-not-tell";

/// An HTTP server that answers as it is told, and keeps what it got.
pub struct Receiver {
    port: u16,
    /// The status of the next answers; 0 for none at all.
    answer: Arc<Mutex<u16>>,
    got: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, got) = (Arc::new(Mutex::new(200)), Arc::new(Mutex::new(Vec::new())));
        let (status, kept) = (Arc::clone(&answer), Arc::clone(&got));
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                kept.lock().unwrap().push(request);
                let status = *status.lock().unwrap();
                if status == 0 {
                    open.push(stream);
                    continue;
                }
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n");
                let place = format!("location: http://127.0.0.1:{port}/moved\r\n");
                let answer = format!("{head}{place}connection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, answer, got, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/{SECRET}", self.port)
    }

    fn answer(&self, status: u16) {
        *self.answer.lock().unwrap() = status;
    }

    /// The bodies that came since the last call.
    pub fn bodies(&self) -> Vec<Value> {
        let got = std::mem::take(&mut *self.got.lock().unwrap());
        let body = |request: &String| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("POST /hooks/{SECRET} ")), "{head}");
            assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
            serde_json::from_str(body).unwrap()
        };
        got.iter().map(body).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        if read == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

fn secret_file(operator: &Operator, name: &str, url: &str) {
    let path = operator.write(name, &format!("{url}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

const AT_ONCE: &str = "[executor_management]\nauto_recovery = false\nmax_retry_attempts = 1\n";

/// An operator whose host lost its runner, with a webhook.
async fn in_trouble(receiver: &Receiver, alerts: &str) -> (Host, Operator) {
    let alerts = format!("{AT_ONCE}[alerts]\nwebhook_url_file = \"hook.url\"\n{alerts}");
    let (host, operator) = deployed("", &alerts).await;
    secret_file(&operator, "hook.url", &receiver.url());
    fs::remove_dir_all(host.home.join(".cache/orchestrator")).unwrap();
    (host, operator)
}

#[tokio::test]
async fn a_change_is_told_once_and_reminded_of_and_its_end_too() {
    let receiver = Receiver::start().await;
    let (host, operator) = in_trouble(&receiver, "").await;
    operator.run(["sweep", "--quiet"]).await.expect(3);
    let bodies = receiver.bodies();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let change = &bodies[0]["changes"][0];
    assert_eq!((&change["host"], &change["after"]), (&"gpu-01".into(), &"degraded".into()));
    assert_eq!(change["fix"], "orchestrator deploy --limit gpu-01");
    assert_eq!(bodies[0]["subject"], "1 host changed: gpu-01 degraded");

    operator.run(["sweep", "--quiet"]).await.expect(3);
    assert_eq!(receiver.bodies(), Vec::<Value>::new(), "nothing changed");
    assert_eq!(change_database(&operator, "UPDATE alert_marks SET told_ms = 1").await, 1);
    operator.run(["sweep", "--quiet"]).await.expect(3);
    let reminder = receiver.bodies();
    assert_eq!(reminder[0]["changes"][0]["reminder"], true, "{reminder:?}");
    assert_eq!(reminder[0]["subject"], "1 host still in trouble: gpu-01 degraded");

    operator.deploy([]).await.expect(0);
    operator.run(["sweep", "--quiet"]).await.expect(0);
    let over = receiver.bodies();
    assert_eq!((over.len(), &over[0]["changes"][0]["after"]), (1, &"ready".into()));
    operator.run(["sweep", "--quiet"]).await.expect(0);
    assert_eq!(receiver.bodies(), Vec::<Value>::new());
    drop(host);
}

#[tokio::test]
async fn an_alert_waits_for_a_server_that_fails_or_hangs_and_comes_once() {
    let receiver = Receiver::start().await;
    let (_host, operator) = in_trouble(&receiver, "timeout = \"500ms\"\n").await;
    receiver.answer(503);
    let failed = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert!(failed.stderr.contains("webhook answered 503; 1 alerts wait"), "{failed:?}");
    assert_eq!(receiver.bodies().len(), 2, "two attempts");
    // Its time has not come: nothing is sent, and nothing is lost.
    let early = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert_eq!((receiver.bodies().len(), early.stderr.as_str()), (0, ""));

    receiver.answer(0);
    let due = "UPDATE alert_outbox SET next_ms = 1";
    assert_eq!(change_database(&operator, due).await, 1);
    let hung = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert!(hung.stderr.contains("cannot reach webhook: no answer in time"), "{hung:?}");
    receiver.bodies();

    // A redirect is an answer, and is not followed.
    receiver.answer(307);
    assert_eq!(change_database(&operator, due).await, 1);
    let moved = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert!(moved.stderr.contains("webhook answered 307"), "{moved:?}");
    assert_eq!(receiver.bodies().len(), 1);

    receiver.answer(200);
    assert_eq!(change_database(&operator, due).await, 1);
    let sent = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert_eq!((sent.stderr.as_str(), receiver.bodies().len()), ("", 1));
    assert_eq!(change_database(&operator, due).await, 0, "the outbox is empty");

    for said in [&failed, &hung, &moved] {
        assert!(!said.stderr.contains(SECRET) && !said.stdout.contains(SECRET), "{said:?}");
    }
    // Not in the database either, its log included.
    for entry in fs::read_dir(operator.database().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

#[tokio::test]
async fn an_alert_that_is_too_old_is_given_up_and_audited() {
    let receiver = Receiver::start().await;
    let (_host, operator) = in_trouble(&receiver, "").await;
    receiver.answer(500);
    operator.run(["sweep", "--quiet"]).await.expect(3);
    let old = "UPDATE alert_outbox SET next_ms = 1, created_ms = 1";
    assert_eq!(change_database(&operator, old).await, 1);
    let given_up = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert!(given_up.stderr.contains("1 alerts were never delivered"), "{given_up:?}");
    assert_eq!(operator.audit().await.last().unwrap(), "alert.given_up");
}

#[tokio::test]
async fn a_test_goes_over_every_channel_and_says_how_each_went() {
    let receiver = Receiver::start().await;
    let operator = operator(
        "",
        "[alerts]\nwebhook_url_file = \"hook.url\"\nwebhook_template = \"body.j2\"\n\
         slack_url_env = \"SLACK\"\ndiscord_url_file = \"discord.url\"\n\
         mail_to = \"ops@example.org\"\nsendmail = \"../bin/sendmail\"\ntimeout = \"20s\"\n",
    );
    let none = Operator::new().run(["sweep", "notify-test"]).await.expect(1);
    assert!(none.stderr.contains("no channel for alerts is set up"), "{none:?}");
    secret_file(&operator, "hook.url", &receiver.url());
    secret_file(&operator, "discord.url", &receiver.url());
    operator.write("body.j2", "{\"mine\": {{ subject | json }}}");
    let sendmail = operator.write("../bin/sendmail", "#!/bin/sh\nexec /bin/cat >../mail\n");
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).unwrap();
    let run = async |code| {
        let mut command = operator.command(["sweep", "notify-test", "--json"]);
        command.env("SLACK", receiver.url());
        crate::cli::operator::Running::start(command).end().await.expect(code)
    };
    let sent = run(0).await;
    let rows = sent.json_lines()[0].as_array().unwrap().clone();
    let names: Vec<_> = rows.iter().map(|row| row["channel"].as_str().unwrap()).collect();
    assert_eq!(names, ["webhook", "slack", "discord", "mail"]);
    let bodies = receiver.bodies();
    assert!(bodies[0]["mine"].as_str().unwrap().starts_with("a test alert of "), "{bodies:?}");
    assert!(bodies[1]["text"].is_string() && bodies[2]["content"].is_string(), "{bodies:?}");
    let mail = fs::read_to_string(operator.file("../mail")).unwrap();
    assert!(mail.starts_with("To: ops@example.org\nSubject: [orchestrator] a test"), "{mail}");

    operator.write("../bin/sendmail", "#!/bin/sh\necho no queue >&2\nexit 75\n");
    receiver.answer(404);
    let failed = run(5).await;
    assert!(failed.stdout.contains("no queue") && failed.stdout.contains("404"), "{failed:?}");
    assert!(!failed.stdout.contains(SECRET) && !failed.stderr.contains(SECRET), "{failed:?}");
}

#[tokio::test]
async fn secrets_that_others_can_read_and_what_is_no_url_are_refused() {
    let operator = operator("", "[alerts]\nslack_url_file = \"slack.url\"\n");
    let test = ["sweep", "notify-test"];
    let missing = operator.run(test).await.expect(1);
    assert!(missing.stderr.contains("which `slack_url_file` names"), "{missing:?}");
    let path = operator.write("slack.url", &format!("ftp://127.0.0.1/{SECRET}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let open = operator.run(test).await.expect(1);
    assert!(open.stderr.contains("chmod 600"), "{open:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let no_url = operator.run(test).await.expect(1);
    assert!(no_url.stderr.contains("no http or https URL"), "{no_url:?}");
    assert!(!no_url.stderr.contains(SECRET), "{no_url:?}");
}
