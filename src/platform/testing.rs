//! A scripted vendor for tests: it takes one request a connection, checks it and says the next reply of its script.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Pace, Platform};
use crate::config::platform::{Create, OnExit, Platform as Config, StreamRef, Vendor};
use crate::config::secret::{Bearer, Secret, SecretSource};
use crate::config::{self, Proxy, Server, WowzaDialect};

/// One request as it came: `METHOD path`, its authorization, its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) line: String,
    pub(super) authorization: String,
    pub(super) body: String,
}

/// A reply of the script: status, further header lines, body.
pub(super) type Said = (u16, &'static str, &'static str);

/// A vendor that says its script and tells what it heard.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    heard: JoinHandle<Vec<Heard>>,
}

impl Scripted {
    pub(super) async fn new(script: &[Said]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = script.to_vec();
        let heard = tokio::spawn(async move {
            let mut heard = Vec::new();
            for (status, headers, body) in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                let request = loop {
                    let mut piece = [0; 4096];
                    let n = stream.read(&mut piece).await.unwrap();
                    assert!(n > 0, "cut short: {text}");
                    text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let field = |name: &str| {
                        let found = head.lines().find_map(|line| line.strip_prefix(name));
                        found.unwrap_or_default().to_owned()
                    };
                    let length = field("content-length: ");
                    if body.len() == length.parse().unwrap_or(0) {
                        let line = head.lines().next().unwrap();
                        break Heard {
                            line: line.trim_end_matches(" HTTP/1.1").to_owned(),
                            authorization: field("authorization: "),
                            body: body.to_owned(),
                        };
                    }
                };
                heard.push(request);
                let mut reply = format!("HTTP/1.1 {status} Words\r\n{headers}");
                write!(reply, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                stream.write_all(reply.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            heard
        });
        Self { address, heard }
    }

    /// All that it heard, once its script is said.
    pub(super) async fn heard(self) -> Vec<Heard> {
        self.heard.await.unwrap()
    }

    /// The lines of what it heard.
    pub(super) async fn lines(self) -> Vec<String> {
        self.heard().await.into_iter().map(|h| h.line).collect()
    }

    pub(super) fn wowza(&self) -> Box<dyn Platform> {
        let vendor = Vendor::WowzaVideo {
            dialect: WowzaDialect::V1,
            create: Some(Create::at("eu_germany")),
        };
        self.platform(vendor, "planted-token", None)
    }

    pub(super) fn qencode(&self) -> Box<dyn Platform> {
        let vendor = Vendor::Qencode { callback_url: None };
        self.platform(vendor, "planted-key", None)
    }

    pub(super) fn platform(
        &self,
        vendor: Vendor,
        credential: &str,
        source: Option<SecretSource>,
    ) -> Box<dyn Platform> {
        let config = Config {
            vendor,
            credential: Bearer {
                token: Secret::new(credential),
                source,
            },
            api: Secret::new(format!("http://{}/api", self.address)),
            stream: StreamRef::Id("s1".to_owned()),
            on_exit: OnExit::Stop,
            daily_minutes: None,
        };
        let server = Server::Platform(Box::new(config.clone()));
        let mut publisher = config::Publisher::new("feed", server);
        publisher.proxy = Proxy::None;
        super::connect(&config, &publisher, &Pace::default()).unwrap()
    }
}
