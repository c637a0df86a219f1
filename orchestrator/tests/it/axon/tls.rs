//! TLS, client certificates, and certificates that are renewed while the axon runs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use orchestrator::axon::TlsFiles;
use orchestrator::axon::replay::now_ns;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Axon, btauth_ping, exchange, generous, pairs};
use crate::sshd::{need, succeed};

/// A self-signed certificate for 127.0.0.1, in `NAME.pem` and `NAME.key`.
fn certificate(folder: &Path, name: &str) {
    succeed(
        Command::new(need("/usr/bin/openssl", "openssl"))
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=axon"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(folder.join(format!("{name}.key")))
            .arg("-out")
            .arg(folder.join(format!("{name}.pem"))),
    );
}

fn files(folder: &Path, authorities: Option<&str>) -> TlsFiles {
    TlsFiles {
        certificate: folder.join("axon.pem"),
        key: folder.join("axon.key"),
        client_authorities: authorities.map(|name| folder.join(name)),
    }
}

/// A connection that trusts the certificate `trusted`, and shows `own`.
async fn connect(
    axon: &Axon,
    folder: &Path,
    trusted: &str,
    own: Option<&str>,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let read = |name: &str| CertificateDer::from_pem_file(folder.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(read(trusted)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![read(&format!("{name}.pem"))], key).unwrap()
        }
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, axon.connect().await).await
}

#[tokio::test]
async fn requests_are_answered_over_tls_and_a_renewed_certificate_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificate(folder, "axon");
    certificate(folder, "renewed");
    let axon = Axon::start_with(generous(), Some(files(folder, None))).await;
    let [_, caller, _] = pairs();
    std::fs::copy(folder.join("axon.pem"), folder.join("old.pem")).unwrap();
    let stream = connect(&axon, folder, "old.pem", None).await.unwrap();
    // The handshake shows that it has begun; the nonce is made after it.
    assert_eq!(exchange(stream, &btauth_ping(&caller, now_ns())).await.status, 200);
    assert!(connect(&axon, folder, "renewed.pem", None).await.is_err(), "it is another one");
    // The key first: until the certificate follows the pair does not fit, and the old one is kept.
    for kind in ["key", "pem"] {
        let new = folder.join(format!("renewed.{kind}"));
        std::fs::copy(new, folder.join(format!("axon.{kind}"))).unwrap();
    }
    while connect(&axon, folder, "renewed.pem", None).await.is_err() {
        tokio::task::yield_now().await;
    }
    let stream = connect(&axon, folder, "renewed.pem", None).await.unwrap();
    assert_eq!(exchange(stream, &btauth_ping(&caller, now_ns())).await.status, 200);
}

#[tokio::test]
async fn with_client_authorities_strangers_do_not_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["axon", "validator", "stranger"] {
        certificate(folder, name);
    }
    let axon = Axon::start_with(generous(), Some(files(folder, Some("validator.pem")))).await;
    let [_, caller, _] = pairs();
    let stream = connect(&axon, folder, "axon.pem", Some("validator")).await.unwrap();
    assert_eq!(exchange(stream, &btauth_ping(&caller, now_ns())).await.status, 200);
    for own in [None, Some("stranger")] {
        // In TLS 1.3 the client is done before the server has judged it: the refusal comes at reading.
        if let Ok(mut stream) = connect(&axon, folder, "axon.pem", own).await {
            let read = stream.read_to_end(&mut Vec::new()).await;
            assert!(read.is_err(), "{own:?} got in");
        }
    }
}
