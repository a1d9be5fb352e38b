//! TLS towards servers: which authorities are trusted, and what a failed handshake means for the operator.

mod verify;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) use self::verify::sha256;
use self::verify::{NotPinned, Verifier};
use super::target::Endpoint;
use super::{Error, Secured, Step, Stream, failed, within};
use crate::config::{Trust, pin};

/// Longest wait for the TLS handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// 2026-01-01T00:00:00Z: this program is younger, so a clock before it is wrong.
const WRITTEN: Duration = Duration::from_secs(1_767_225_600);

/// How to speak TLS. Cheap to clone; built once, for reading the platform's authorities takes milliseconds.
#[derive(Clone)]
pub(super) struct Tls {
    http: Arc<ClientConfig>,
    plain: Arc<ClientConfig>,
    proxy: Arc<ClientConfig>,
    servers: Arc<Verifier>,
}

/// Which protocol the handshake names (RFC 7301), and whose rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// HTTP/1.1, with a server.
    Http,
    /// None is named, with a server.
    None,
    /// HTTP/1.1, with a proxy, to which nothing applies that was configured for the server of the publisher's URL.
    Proxy,
}

impl Tls {
    /// Trusts the platform's authorities, Mozilla's (for systems that carry none) and those of `ca_file` (PEM).
    ///
    /// `own` is the name or address of the server to which pins apply, and leave to take any certificate.
    ///
    /// Reads files, so it may block for some milliseconds. Fails only if `ca_file` cannot be read or holds no
    /// certificate.
    pub(super) fn new(own: Option<&str>, trust: &Trust) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let native = rustls_native_certs::load_native_certs();
        for error in native.errors {
            tracing::debug!(%error, "some of the platform's certificate authorities are unreadable");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = &trust.ca_file {
            add_file(&mut roots, path)?;
        }
        let provider = Arc::new(ring::default_provider());
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .expect("there are roots, and no revocation lists that could be broken");
        let config = |verifier, alpn: &[&[u8]]| {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("the ring provider supports every default protocol version")
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let servers = Arc::new(Verifier {
            authorities: Arc::clone(&authorities),
            own: own.and_then(|own| ServerName::try_from(own.to_owned()).ok()),
            pins: trust.pins.clone(),
            insecure: trust.insecure,
            algorithms: provider.signature_verification_algorithms,
        });
        // A WebSocket starts as HTTP/1.1; a server that chose h2 here could not be upgraded.
        let http: &[&[u8]] = &[b"http/1.1"];
        Ok(Self {
            http: config(servers.clone(), http),
            plain: config(servers.clone(), &[]),
            proxy: config(authorities, http),
            servers,
        })
    }

    /// Secures `stream`, which leads to `endpoint`, whose certificate must be for `name`.
    pub(super) async fn secure<S: Stream>(
        &self,
        endpoint: &Endpoint,
        name: &str,
        stream: S,
        alpn: Alpn,
    ) -> Result<TlsStream<S>, Error> {
        let config = match alpn {
            Alpn::Http => &self.http,
            Alpn::None => &self.plain,
            Alpn::Proxy => &self.proxy,
        };
        let refused = |e: io::Error| failed(endpoint, Step::Tls, explain(&e), Some(e));
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| refused(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        let unverified = alpn != Alpn::Proxy && self.servers.takes_any(&name);
        let secured = within(endpoint, Step::Tls, TLS_DEADLINE, async {
            TlsConnector::from(Arc::clone(config))
                .connect(name, stream)
                .await
                .map_err(refused)
        })
        .await?;
        if unverified {
            tracing::warn!(
                %endpoint,
                key = key(&secured),
                "insecure_tls is set: who this server is was not verified"
            );
        }
        Ok(secured)
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn leaves_from(&self) -> Option<IpAddr> {
        self.get_ref().0.leaves_from()
    }
}

/// What the handshake of `stream`, which took so long, came to.
pub(super) fn secured<S>(stream: &TlsStream<S>, took: Duration) -> Secured {
    let version = stream.get_ref().1.protocol_version();
    Secured {
        took,
        version: version.map_or_else(String::new, |version| format!("{version:?}")),
        pin: key(stream),
    }
}

/// The server's key, in the form of a pin.
fn key<S>(stream: &TlsStream<S>) -> Option<String> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let seen = verify::digest(certificate).ok()?;
    Some(pin::written(&seen))
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
fn explain(error: &io::Error) -> String {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => {
            if let Some(whole) = told_of(certificate) {
                return whole;
            }
            certificate_hint(certificate)
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not speak TLS on this port; is it meant for ws:// or http:// ?"
        }
        Some(rustls::Error::AlertReceived(_)) => "the server refused the handshake",
        Some(_) | None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server hung up; is this port meant for TLS?"
        }
        Some(_) | None => return error.to_string(),
    };
    format!("{error}: {hint}")
}

/// What is better said in our words alone: times, and keys that are not pinned.
fn told_of(error: &CertificateError) -> Option<String> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate may add causes, and most of them say enough by themselves"
    )]
    match error {
        CertificateError::Other(other) => {
            let not_pinned = other.0.downcast_ref::<NotPinned>();
            not_pinned.map(ToString::to_string)
        }
        CertificateError::ExpiredContext { time, not_after } => Some(format!(
            "the certificate has expired on {}, or the clock of this machine is ahead: {}",
            written(*not_after),
            clock(*time)
        )),
        CertificateError::NotValidYetContext { time, not_before } => Some(format!(
            "the certificate is not valid yet, only from {} on: the clock of this machine is probably behind: {}",
            written(*not_before),
            clock(*time)
        )),
        _ => None,
    }
}

/// What the clock says, and what to do about it.
fn clock(now: UnixTime) -> String {
    let advice = match now.as_secs() < WRITTEN.as_secs() {
        true => "which is before this program was written: set the clock",
        false => "check it",
    };
    format!("it says {}, {advice}", written(now))
}

fn written(time: UnixTime) -> String {
    // The formatter ends with the year 9999, as certificates do.
    let within = time.as_secs() < 253_402_300_800;
    let known = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    known.filter(|_| within).map_or_else(
        || "a time out of all range".to_owned(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

const fn certificate_hint(error: &CertificateError) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate may add causes, and most of them need no advice of their own"
    )]
    match error {
        CertificateError::UnknownIssuer => {
            "nobody we trust has signed the certificate; if the server uses a private authority, name its certificate in ca_file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate belongs to another host name"
        }
        _ => "the certificate cannot be accepted",
    }
}

#[cfg(test)]
pub(super) mod tests;
