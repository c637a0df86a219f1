//! TLS and client certificates from PEM files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at. Certificates are renewed days before they end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose client certificates are demanded (mTLS), PEM.
    pub client_authorities: Option<PathBuf>,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or holds nothing of its kind.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// `the certificate`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("there is no certificate in {}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The client authorities are unusable.
    #[error("cannot use the client authorities")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit, or are unusable.
    #[error("cannot use the certificate with its key")]
    Pair(#[source] rustls::Error),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&self.certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::File {
            what: "the private key",
            path: self.key.clone(),
            source,
        })?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, "the client authorities")? {
                    roots.add(certificate).map_err(TlsError::Pair)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(TlsError::Authorities)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// When each file was changed last.
    fn changed(&self) -> Vec<Option<(SystemTime, u64)>> {
        let files = [&self.certificate, &self.key].into_iter().chain(&self.client_authorities);
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        files.map(stamp).collect()
    }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what, path: path.to_owned(), source };
    let all = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(failed)?;
    if all.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

/// The configuration of this moment.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    pub fn start(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(files.load()?))))
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Looks for changed files for ever. Files that cannot be used leave the old ones in force.
    pub async fn watch(self, files: TlsFiles) {
        let mut known = files.changed();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let found = files.changed();
            if found == known {
                continue;
            }
            known = found;
            match files.load() {
                Ok(config) => {
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
                    tracing::info!("the axon's TLS certificate was read again");
                }
                Err(error) => tracing::warn!(
                    "the axon keeps its old TLS certificate: {error}: {}",
                    crate::error_chain::causes(&error).join(": ")
                ),
            }
        }
    }
}
