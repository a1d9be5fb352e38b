//! Which certificates of servers are taken: those that authorities vouch for, and of these the pinned ones.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use crate::config::pin;

/// The rule for one publisher's servers. What was configured for the server of its URL is not for others, to which that
/// one may send us: where it redirects to, the TURN servers that it names.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Who vouches for name, time and chain.
    pub(super) authorities: Arc<WebPkiServerVerifier>,
    /// The server of the publisher's URL.
    pub(super) own: Option<ServerName<'static>>,
    /// Digests of the keys that are taken of it; none, and any key is.
    pub(super) pins: Vec<[u8; 32]>,
    /// Nobody has to vouch for it.
    pub(super) insecure: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Whether any certificate is taken of the server of that name.
    pub(super) fn takes_any(&self, name: &ServerName<'_>) -> bool {
        self.insecure && self.is_own(name)
    }

    fn is_own(&self, name: &ServerName<'_>) -> bool {
        self.own.as_ref() == Some(name)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.takes_any(server_name) {
            self.authorities.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
        }
        if !self.pins.is_empty() && self.is_own(server_name) {
            let seen = digest(end_entity)?;
            if !self.pins.contains(&seen) {
                let other = OtherError(Arc::new(NotPinned { seen }));
                return Err(CertificateError::Other(other).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // That the server holds the key of its certificate is checked always: a pin means nothing otherwise.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The server's key is none of the pinned ones.
#[derive(Debug)]
pub(super) struct NotPinned {
    seen: [u8; 32],
}

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server's key has none of the pins; if it was changed on purpose: pins = [\"{}\"]",
            pin::written(&self.seen)
        )
    }
}

impl std::error::Error for NotPinned {}

/// SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 7469, section 2.4).
pub(super) fn digest(certificate: &CertificateDer<'_>) -> Result<[u8; 32], rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    sha256(&parsed.subject_public_key_info())
        .ok_or_else(|| rustls::Error::General("no SHA-256".to_owned()))
}

/// SHA-256 of `bytes`; `None` only if the provider of cryptography lacks it.
pub(in crate::net) fn sha256(bytes: &[u8]) -> Option<[u8; 32]> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().try_into().ok()
}
