//! TLS on the server's side: the lab's certificate, for its doors and for its TURN server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::secret::Secret;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The certificate and those that it was issued by, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: Secret,
}

/// Why an [`Identity`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Caused by a certificate that is no PEM, or by none at all.
    #[error("the certificate is unreadable: {0}")]
    Certificate(String),
    /// Caused by a key that is no PEM.
    #[error("the key is unreadable: {0}")]
    Key(String),
    /// Caused by names that no certificate can have.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Caused by a key that is another certificate's.
    #[error("certificate and key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
    /// Caused by a file that is missing or may not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Identity {
    /// Makes a new one for `names` (host names and addresses) that vouches for itself: clients trust it if they are
    /// given its certificate as an authority's.
    ///
    /// # Errors
    ///
    /// If one of the names is no host name.
    pub fn self_signed(names: &[String]) -> Result<Self, Error> {
        let made = rcgen::generate_simple_self_signed(names)?;
        Ok(Self {
            certificate: made.cert.pem(),
            key: Secret::new(made.signing_key.serialize_pem()),
        })
    }

    /// Reads certificate and key from PEM files.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read. What they hold is judged when it is used.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.display().to_string(),
                source,
            })
        };
        Ok(Self {
            certificate: text(certificate)?,
            key: Secret::new(text(key)?),
        })
    }
}

/// Takes TLS connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// With the certificate of `identity`.
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        let certificates = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Certificate(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.expose().as_bytes())
            .map_err(|error| Error::Key(error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake; `None` if the other side does not finish it.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let handshake = tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await;
        handshake.ok()?.ok()
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}
