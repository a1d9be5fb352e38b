//! One call to a vendor's interface: paced, bounded, with its credential; the reply as JSON or as a refusal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bucket::Bucket;
use super::error::{Call, Error, Refusal};
use crate::config::load;
use crate::config::secret::{Bearer, Secret};
use crate::net::http::{self, Method, Reply, Request};
use crate::net::{self, Dialer, Step, Target};

/// Longest wait for a reply once the connection stands.
const REPLY_WITHIN: Duration = Duration::from_secs(15);
/// Longest time for all of an urgent call: at the end there is time for some of them, and a vendor that hangs in one
/// may answer the next.
const URGENT_WITHIN: Duration = Duration::from_secs(5);
/// Requests to one interface that may go out at once.
const BURST: u32 = 10;
/// Pace beyond the burst: together below the 60 connections a minute that Wowza's documents name (protocols.md 8.1.4).
const PACE: Duration = Duration::from_millis(1_200);
/// Quiet after a vendor complained of too many requests, unless it asks for more.
const QUIET: Duration = Duration::from_secs(60);
/// Interval at which a refused credential that is still the same is shown again.
const REFUSED_RECHECK: Duration = Duration::from_secs(300);
/// Longest text of a vendor that is repeated.
const TEXT_MAX: usize = 300;
/// Longest time that a request waits for its turn; whoever has to wait longer is told so and may have something better
/// to do.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Secrets of the configuration among those that are never repeated: a key and the address of a callback at most.
const CONFIGURED: usize = 4;

/// How fast each interface may be asked, whoever of this process asks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pace(Arc<Mutex<BTreeMap<String, Bucket>>>);

impl Pace {
    fn with<T>(&self, api: &str, work: impl FnOnce(&mut Bucket) -> T) -> T {
        // A bucket is whole after any panic.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work((buckets.entry(api.to_owned())).or_insert_with(|| Bucket::new(BURST, PACE)))
    }
}

/// What a call is.
pub(super) struct Ask<'a> {
    pub(super) call: Call,
    /// What costs as long as it is not said is said at once, and given up soon, to be said again.
    pub(super) urgent: bool,
    pub(super) method: Method,
    /// Parts of the path after the base, escaped here.
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    /// Sent as `Authorization: Bearer`.
    pub(super) bearer: Option<&'a Secret>,
    pub(super) body: Option<Value>,
}

/// How a vendor says no: from a reply to its meaning, code and words.
pub(super) type Read = fn(Call, &Reply, &Value) -> Option<(Refusal, String, String)>;

/// A vendor's interface.
pub(super) struct Client {
    vendor: &'static str,
    api: String,
    dialer: Dialer,
    pace: Pace,
    refused: Read,
    /// Never repeated, whoever says it.
    secrets: Vec<Secret>,
}

impl Client {
    pub(super) fn new(
        vendor: &'static str,
        api: &str,
        dialer: Dialer,
        pace: &Pace,
        refused: Read,
    ) -> Self {
        Self {
            vendor,
            api: api.to_owned(),
            dialer,
            pace: pace.clone(),
            refused,
            secrets: Vec::new(),
        }
    }

    /// Never repeats `secret` from now on.
    pub(super) fn hide(&mut self, secret: &Secret) {
        if !self.secrets.contains(secret) {
            // A token that was hidden long ago is long out of use; what the configuration holds came first and stays.
            if self.secrets.len() >= 16 {
                self.secrets.remove(CONFIGURED);
            }
            self.secrets.push(secret.clone());
        }
    }

    /// Asks, and returns the reply's JSON; `Null` for an empty body.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Value, Error> {
        let connect = |source| Error::Connect {
            vendor: self.vendor,
            call: ask.call,
            source: Arc::new(source),
        };
        let target = self.target(&ask).map_err(connect)?;
        if !ask.urgent {
            let wait = self.pace.with(&self.api, |bucket| bucket.wait(now()));
            if wait > WAIT_MAX {
                return Err(Error::Refused {
                    vendor: self.vendor,
                    call: ask.call,
                    refusal: Refusal::TooOften,
                    status: 429,
                    code: String::new(),
                    text: "it wants to be left alone for now, and was not asked".to_owned(),
                    retry_after: Some(wait),
                });
            }
            let wait = self.pace.with(&self.api, |bucket| bucket.take(now()));
            tokio::time::sleep(wait).await;
        }
        let mut headers = vec![("accept", "application/json".to_owned())];
        if ask.body.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        if let Some(bearer) = ask.bearer {
            headers.push(("authorization", format!("Bearer {}", bearer.expose())));
        }
        let body = ask.body.as_ref().map(Value::to_string).unwrap_or_default();
        let request = Request {
            method: ask.method,
            target: &target,
            headers: &headers,
            body: &body,
        };
        let exchanged = async {
            let stream = self.dialer.dial(&target).await?;
            http::exchange(stream, &request, REPLY_WITHIN).await
        };
        let reply = if ask.urgent {
            let late = |_| net::Error::Timeout {
                endpoint: target.to_string(),
                step: Step::Http,
                after: URGENT_WITHIN,
            };
            let within = tokio::time::timeout(URGENT_WITHIN, exchanged).await;
            within.map_err(late).and_then(|exchanged| exchanged)
        } else {
            exchanged.await
        };
        self.read(ask.call, &reply.map_err(connect)?)
    }

    fn target(&self, ask: &Ask<'_>) -> Result<Target, net::Error> {
        let path: Vec<String> = ask.path.iter().map(|part| escaped(part)).collect();
        let query: Vec<String> = (ask.query.iter())
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        let mut url = format!("{}/{}", self.api, path.join("/"));
        if !query.is_empty() {
            url = format!("{url}?{}", query.join("&"));
        }
        Target::parse_http(&url, &[])
    }

    fn read(&self, call: Call, reply: &Reply) -> Result<Value, Error> {
        let body = serde_json::from_str::<Value>(&reply.body);
        let json = body.as_ref().unwrap_or(&Value::Null);
        if let Some((refusal, code, text)) = (self.refused)(call, reply, json) {
            let retry_after = reply.retry_after();
            if refusal == Refusal::TooOften {
                let quiet = retry_after.unwrap_or(QUIET).max(QUIET);
                self.pace
                    .with(&self.api, |bucket| bucket.hold(now() + quiet));
            }
            let text = match text.trim() {
                "" => reply.reason(),
                text => text,
            };
            return Err(Error::Refused {
                vendor: self.vendor,
                call,
                refusal,
                status: reply.status,
                code: self.printable(&code),
                text: self.printable(text),
                retry_after,
            });
        }
        match body {
            Ok(json) => Ok(json),
            Err(_) if reply.body.trim().is_empty() => Ok(Value::Null),
            // The parser's words say where, and nothing of what stands there.
            Err(error) => Err(self.useless(call, format!("it is not JSON ({error})"))),
        }
    }

    /// The error for a reply from which something is missing.
    pub(super) const fn useless(&self, call: Call, why: String) -> Error {
        Error::Reply {
            vendor: self.vendor,
            call,
            why,
        }
    }

    fn printable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.expose(), "***");
        }
        let printable: String = (text.chars())
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        match printable.char_indices().nth(TEXT_MAX) {
            Some((at, _)) => format!("{}...", &printable[..at]),
            None => printable,
        }
    }
}

/// A credential as the configuration gives it, which its owner may renew while we run.
pub(super) struct Credential {
    vendor: &'static str,
    bearer: Bearer,
    /// When the present value was refused, and in which words.
    refused: Option<(Instant, Error)>,
}

impl Credential {
    pub(super) const fn new(vendor: &'static str, bearer: Bearer) -> Self {
        Self {
            vendor,
            bearer,
            refused: None,
        }
    }

    /// The value to show now. A refused one is read again, and shown again only after a while if it is still the same,
    /// unless that is `urgent`: whoever refused it may have changed his mind.
    pub(super) fn value(&mut self, urgent: bool) -> Result<Secret, Error> {
        if !self.renewed()
            && !urgent
            && let Some((at, error)) = &self.refused
            && now().saturating_duration_since(*at) < REFUSED_RECHECK
        {
            return Err(error.clone());
        }
        Ok(self.bearer.token.clone())
    }

    /// Notes a refusal; true if another value is there by now, which is worth a try at once.
    pub(super) fn refused(&mut self, error: &Error) -> bool {
        self.refused = Some((now(), error.clone()));
        self.renewed()
    }

    /// Notes that it was taken.
    pub(super) fn taken(&mut self) {
        self.refused = None;
    }

    fn renewed(&mut self) -> bool {
        let Some(source) = self
            .bearer
            .source
            .as_ref()
            .filter(|_| self.refused.is_some())
        else {
            return false;
        };
        match load::reread(source) {
            Ok(token) if token != self.bearer.token => {
                tracing::info!("the credential for {} was renewed", self.vendor);
                self.bearer.token = token;
                self.refused = None;
                true
            }
            Ok(_) => false,
            Err(why) => {
                tracing::warn!(
                    "the credential for {} cannot be read again: {why}",
                    self.vendor
                );
                false
            }
        }
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
