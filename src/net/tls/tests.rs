//! Certificates that are taken and refused, and what the operator is told.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, PublicKeyData, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server with a certificate for `name`, valid in `years`.
pub(in crate::net) struct Server {
    pub(in crate::net) acceptor: TlsAcceptor,
    pub(in crate::net) ca_file: PathBuf,
    pin: [u8; 32],
    _folder: tempfile::TempDir,
}

pub(in crate::net) fn server(name: &str, years: (i32, i32)) -> Server {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certificate.pem()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    // A server that would rather speak h2 must not be given the choice.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let hash = ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .unwrap();
    let pin = hash
        .common
        .hash_provider
        .hash(&key.subject_public_key_info());
    Server {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        ca_file,
        pin: pin.as_ref().try_into().unwrap(),
        _folder: folder,
    }
}

impl Server {
    fn trust(&self) -> Trust {
        Trust {
            ca_file: Some(self.ca_file.clone()),
            ..Trust::default()
        }
    }

    /// The protocol that a handshake under `trust` agrees on.
    async fn greeted(&self, trust: &Trust, alpn: Alpn) -> Result<Option<Vec<u8>>, Error> {
        self.greeted_by("localhost", trust, alpn).await
    }

    /// The same, with `own` for the host of the publisher's URL.
    async fn greeted_by(
        &self,
        own: &str,
        trust: &Trust,
        alpn: Alpn,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (near, far) = tokio::io::duplex(16 << 10);
        let endpoint = Endpoint::new("wss", "localhost", 443);
        let tls = Tls::new(Some(own), trust).unwrap();
        let (secured, accepted) = tokio::join!(
            tls.secure(&endpoint, endpoint.bare_host(), near, alpn),
            self.acceptor.accept(far)
        );
        secured?;
        Ok(accepted
            .unwrap()
            .get_ref()
            .1
            .alpn_protocol()
            .map(<[_]>::to_vec))
    }

    async fn refused(&self, trust: &Trust) -> String {
        let error = self.greeted(trust, Alpn::Http).await.unwrap_err();
        assert_eq!(error.step(), Some(Step::Tls));
        error.to_string()
    }
}

const NOW: (i32, i32) = (2020, 2099);

#[tokio::test]
async fn a_certificate_of_a_private_authority_needs_ca_file() {
    let server = server("localhost", NOW);
    let told = server.refused(&Trust::default()).await;
    assert!(told.contains("ca_file"), "{told}");
    let agreed = server.greeted(&server.trust(), Alpn::Http).await.unwrap();
    assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn no_protocol_is_named_to_a_turn_server() {
    let server = server("localhost", NOW);
    assert_eq!(
        server.greeted(&server.trust(), Alpn::None).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_is_named() {
    let server = server("other.example", NOW);
    let told = server.refused(&server.trust()).await;
    assert!(told.contains("another host name"), "{told}");
}

#[tokio::test]
async fn certificate_dates_point_at_the_clock() {
    let old = server("localhost", (2020, 2021));
    let told = old.refused(&old.trust()).await;
    assert!(
        told.contains(
            "has expired on 2021-01-01T00:00:00Z, or the clock of this machine is ahead: it says 20"
        ),
        "{told}"
    );
    let young = server("localhost", (2098, 2099));
    let told = young.refused(&young.trust()).await;
    assert!(
        told.contains("only from 2098-01-01T00:00:00Z on: the clock of this machine is probably behind: it says 20"),
        "{told}"
    );
}

#[test]
fn a_clock_before_the_programs_own_year_is_surely_wrong() {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let refused = CertificateError::NotValidYetContext {
        time: at(86_400),
        not_before: at(1_790_000_000),
    };
    assert_eq!(
        told_of(&refused).unwrap(),
        "the certificate is not valid yet, only from 2026-09-21T14:13:20Z on: the clock of this machine is \
         probably behind: it says 1970-01-02T00:00:00Z, which is before this program was written: set the clock"
    );
    assert!(clock(at(1_790_000_000)).ends_with("Z, check it"));
    // No certificate and no clock can make this panic.
    assert_eq!(written(at(u64::MAX)), "a time out of all range");
    assert_eq!(written(at(253_402_300_800)), "a time out of all range");
}

#[tokio::test]
async fn a_pin_is_checked_beside_everything_else() {
    let server = server("localhost", NOW);
    let pinned = |pins: &[[u8; 32]]| Trust {
        pins: pins.to_vec(),
        ..server.trust()
    };
    let held = pinned(&[[7; 32], server.pin]);
    assert!(server.greeted(&held, Alpn::Http).await.is_ok());
    assert!(server.greeted(&held, Alpn::None).await.is_ok());

    let told = server.refused(&pinned(&[[7; 32]])).await;
    let paste = format!("pins = [\"{}\"]", pin::written(&server.pin));
    assert!(told.contains(&paste), "{told}");

    // A pin is no authority.
    let unknown = Trust {
        pins: vec![server.pin],
        ..Trust::default()
    };
    let told = server.refused(&unknown).await;
    assert!(told.contains("ca_file"), "{told}");
}

#[tokio::test]
async fn insecure_takes_any_certificate_and_still_holds_the_pins() {
    let server = server("other.example", (2020, 2021));
    let insecure = |pins: Vec<[u8; 32]>| Trust {
        pins,
        insecure: true,
        ..Trust::default()
    };
    assert!(
        server
            .greeted(&insecure(Vec::new()), Alpn::Http)
            .await
            .is_ok()
    );
    assert!(
        server
            .greeted(&insecure(vec![server.pin]), Alpn::Http)
            .await
            .is_ok()
    );
    let told = server.refused(&insecure(vec![[7; 32]])).await;
    assert!(told.contains("has none of the pins"), "{told}");
}

/// What is logged on this thread while the guard lives.
fn listening() -> (
    Arc<std::sync::Mutex<Vec<u8>>>,
    tracing::subscriber::DefaultGuard,
) {
    struct Ear(Arc<std::sync::Mutex<Vec<u8>>>);
    impl io::Write for Ear {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Ear(Arc::clone(&ear)))
        .finish();
    (heard, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn each_insecure_connection_is_warned_of_with_endpoint_and_key() {
    let server = server("other.example", NOW);
    let insecure = Trust {
        insecure: true,
        ..Trust::default()
    };
    let (heard, _guard) = listening();
    for n in 1..=2 {
        server.greeted(&insecure, Alpn::Http).await.unwrap();
        let log = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        let warnings: Vec<&str> = log.lines().filter(|l| l.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), n, "{log}");
        let last = warnings.last().unwrap();
        assert!(last.contains("insecure_tls is set"), "{last}");
        assert!(last.contains("wss://localhost:443"), "{last}");
        assert!(last.contains(&pin::written(&server.pin)), "{last}");
    }
}

#[tokio::test]
async fn pins_and_insecurity_are_for_the_host_of_the_url_alone() {
    let server = server("localhost", NOW);
    let insecure = Trust {
        insecure: true,
        ..Trust::default()
    };
    let pinned = Trust {
        pins: vec![[7; 32]],
        ..server.trust()
    };
    let taken = async |own: &str, trust: &Trust| {
        let greeted = server.greeted_by(own, trust, Alpn::Http).await;
        greeted.is_ok()
    };
    assert!(taken("LOCALHOST", &insecure).await);
    assert!(!taken("LOCALHOST", &pinned).await);
    assert!(!taken("server.example", &insecure).await);
    assert!(taken("server.example", &pinned).await);
    // What is no name is nobody's.
    assert!(!taken("", &insecure).await);
}

#[tokio::test]
async fn the_rules_for_servers_are_not_those_for_proxies() {
    let server = server("localhost", NOW);
    let insecure = Trust {
        insecure: true,
        ..Trust::default()
    };
    assert!(server.greeted(&insecure, Alpn::Proxy).await.is_err());
    let pinned = Trust {
        pins: vec![[7; 32]],
        ..server.trust()
    };
    assert!(server.greeted(&pinned, Alpn::Proxy).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_ten_seconds() {
    let (near, _far) = tokio::io::duplex(16 << 10);
    let endpoint = Endpoint::new("tls", "turn.example", 443);
    let tls = Tls::new(None, &Trust::default()).unwrap();
    let error = tls
        .secure(&endpoint, "turn.example", near, Alpn::None)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tls://turn.example:443: negotiating TLS took longer than 10 s"
    );
}

#[test]
fn an_unusable_ca_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let trust = Trust {
        ca_file: Some(path.clone()),
        ..Trust::default()
    };
    assert!(matches!(Tls::new(None, &trust), Err(Error::CaFile { .. })));
    for text in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, text).unwrap();
        let Err(error) = Tls::new(None, &trust) else {
            panic!("{text}")
        };
        assert!(error.to_string().contains("ca.pem"), "{error}");
        assert_eq!(error.step(), None);
    }
}
