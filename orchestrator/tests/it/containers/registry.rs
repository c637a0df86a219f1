//! A registry on the Engine's own loopback interface that demands credentials and has one image
//! (OCI distribution, Docker's manifest version 2).

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::engine::{Engine, IMAGE};
use crate::deploy::host::sha256;
use crate::sshd::succeed;

pub struct Registry {
    address: String,
    basic: String,
    password: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Registry {
    /// Starts one that lets this user in, with the image that every engine has.
    pub async fn start(engine: &Engine, user: &str, password: &str) -> Self {
        let listener = engine.listen();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let basic = STANDARD.encode(format!("{user}:{password}"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let served = Arc::new(Served { pages: pages(engine), basic: format!("Basic {basic}") });
        let heard = Arc::clone(&asked);
        let app = Router::new().fallback(move |request: Request| {
            let served = Arc::clone(&served);
            let heard = Arc::clone(&heard);
            async move {
                let said = request.headers().get(header::AUTHORIZATION);
                let said = said.map(|value| value.to_str().unwrap().to_owned());
                heard.lock().unwrap().extend(said.clone());
                served.answer(request.uri().path(), said.as_deref())
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, basic, password: password.to_owned(), asked, task }
    }

    /// The name of its image.
    pub fn image(&self) -> String {
        format!("{}/guarded/busybox:1", self.address)
    }

    /// A `config.json` of Docker's client with its credentials.
    pub fn docker_config(&self) -> String {
        json!({ "auths": { &self.address: { "auth": &self.basic } } }).to_string()
    }

    /// What must be nowhere, in the forms it is written in.
    pub fn secrets(&self) -> [String; 2] {
        [self.password.clone(), self.basic.clone()]
    }

    /// Whether somebody came with these credentials.
    pub fn was_asked_by(&self, user: &str, password: &str) -> bool {
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        self.asked.lock().unwrap().contains(&expected)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    /// Media type and content by path.
    pages: HashMap<String, (&'static str, Vec<u8>)>,
    basic: String,
}

impl Served {
    fn answer(&self, path: &str, authorization: Option<&str>) -> Response {
        if authorization != Some(&self.basic) {
            let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"guarded\"")];
            return (StatusCode::UNAUTHORIZED, ask).into_response();
        }
        match self.pages.get(path) {
            Some((kind, content)) => {
                ([(header::CONTENT_TYPE, *kind)], content.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

/// The image as its registry serves it.
fn pages(engine: &Engine) -> HashMap<String, (&'static str, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    engine.docker_says(["save", "--output", archive.to_str().unwrap(), IMAGE]);
    succeed(Command::new("/bin/busybox").arg("tar").arg("-xf").arg(&archive).current_dir(&dir));
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let saved: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    let layers: Vec<&str> =
        saved[0]["Layers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let mut pages = HashMap::from([("/v2/".to_owned(), ("application/json", b"{}".to_vec()))]);
    let mut blob = |kind: &'static str, content: Vec<u8>| {
        let digest = format!("sha256:{}", sha256(&content));
        let described = json!({ "mediaType": kind, "size": content.len(), "digest": &digest });
        let path = format!("/v2/guarded/busybox/blobs/{digest}");
        pages.insert(path, ("application/octet-stream", content));
        described
    };
    let config = blob(
        "application/vnd.docker.container.image.v1+json",
        read(saved[0]["Config"].as_str().unwrap()),
    );
    let layers: Vec<Value> = layers
        .into_iter()
        .map(|name| blob("application/vnd.docker.image.rootfs.diff.tar.gzip", read(name)))
        .collect();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    for reference in ["1".to_owned(), format!("sha256:{}", sha256(&manifest))] {
        pages
            .insert(format!("/v2/guarded/busybox/manifests/{reference}"), (kind, manifest.clone()));
    }
    pages
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn dockers_own_client_needs_the_credentials_and_gets_the_image() {
        let engine = Engine::shared();
        let registry = Registry::start(engine, "robot", "self-test").await;
        let (image, config) = (registry.image(), tempfile::tempdir().unwrap());
        let path = config.path().to_str().unwrap().to_owned();
        let pull = move |image: String| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                Engine::shared().docker(["--config", &path, "pull", &image])
            })
        };
        let refused = pull(image.clone()).await.unwrap();
        assert!(!refused.status.success(), "{refused:?}");
        std::fs::write(config.path().join("config.json"), registry.docker_config()).unwrap();
        let pulled = pull(image.clone()).await.unwrap();
        assert!(pulled.status.success(), "{pulled:?}");
        assert!(registry.was_asked_by("robot", "self-test"));
        engine.docker_says(["rmi", &image]);
    }
}
