//! TLS towards servers: which authorities are trusted, and what a failed handshake means for the operator.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;

/// How to speak TLS. Cheap to clone; built once, for reading the platform's authorities takes milliseconds.
#[derive(Clone)]
pub struct Tls {
    plain: Arc<ClientConfig>,
    http: Arc<ClientConfig>,
}

/// Which protocol the handshake names (RFC 7301).
#[derive(Clone, Copy, Debug)]
pub(super) enum Alpn {
    /// HTTP/1.1.
    Http,
    /// None is named.
    None,
}

impl Tls {
    /// Trusts the platform's authorities, Mozilla's (for systems that carry none) and those of `ca_file` (PEM).
    ///
    /// Reads files, so it may block for some milliseconds. Fails only if `ca_file` cannot be read or holds no
    /// certificate.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let native = rustls_native_certs::load_native_certs();
        for error in native.errors {
            tracing::debug!(%error, "some of the platform's certificate authorities are unreadable");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = ca_file {
            add_file(&mut roots, path)?;
        }
        let plain = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the ring provider supports every default protocol version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = plain.clone();
        // A WebSocket starts as HTTP/1.1; a server that chose h2 here could not be upgraded.
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            plain: Arc::new(plain),
            http: Arc::new(http),
        })
    }

    /// Secures `stream` for `host`, a name or an address (IPv6 without brackets).
    pub(super) async fn connect<S>(
        &self,
        host: &str,
        stream: S,
        alpn: Alpn,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let config = match alpn {
            Alpn::Http => &self.http,
            Alpn::None => &self.plain,
        };
        TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let unusable = |why: String| Error::CaFile {
        path: path.to_owned(),
        why,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unusable(e.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate in PEM form".to_owned()));
    }
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|e| unusable(e.to_string()))?;
    }
    Ok(())
}

/// What a failed handshake means, with the next step where there is one.
pub(super) fn explain(error: &io::Error) -> String {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => certificate_hint(certificate),
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not speak TLS on this port; is it meant for ws:// ?"
        }
        Some(rustls::Error::AlertReceived(_)) => "the server refused the handshake",
        Some(_) | None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server hung up; is this port meant for TLS?"
        }
        Some(_) | None => return error.to_string(),
    };
    format!("{error}: {hint}")
}

const fn certificate_hint(error: &CertificateError) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate may add causes, and most of them need no advice of their own"
    )]
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired, or the clock of this machine is ahead"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet: the clock of this machine is probably behind"
        }
        CertificateError::UnknownIssuer => {
            "nobody we trust has signed the certificate; if the server uses a private authority, name its certificate in ca_file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate belongs to another host name"
        }
        _ => "the certificate cannot be accepted",
    }
}
