//! What the two control planes have in common: a request, a reply, the limit on requests, and what is asked of an
//! account.
//!
//! Pure. An account is told the time with everything it is told, and draws its chance from a generator that it was given.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::billing::Bill;

/// Requests that are remembered for the limit on them; more in a minute are refused anyway.
const REMEMBERED: usize = 10_000;
/// Whoever lacks a name is given one out of these.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// An instant, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// For what is shown to people and signed into tokens.
    pub(super) wall: SystemTime,
}

/// What a request to a control plane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestCall {
    /// Wowza's ingest analytics.
    Analytics,
    /// A stream is created.
    Create,
    /// A stream is deleted.
    Delete,
    /// A stream is read.
    Get,
    /// Streams are listed.
    List,
    /// Something else that exists, of no use to publishers by WebRTC (Wowza).
    Other,
    /// A stream is reset (Wowza).
    Reset,
    /// A stream is started.
    Start,
    /// A stream's state is read (Wowza).
    State,
    /// A stream is stopped.
    Stop,
    /// An access token is fetched (Qencode).
    Token,
    /// A stream is changed.
    Update,
}

/// A request, as far as an account minds it.
#[derive(Clone, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// From the root of the API on.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) bearer: Option<String>,
    pub(super) body: Vec<u8>,
    /// A fault: whatever is shown has expired.
    pub(super) expired: bool,
    /// A fault: what this starts never gets to be started.
    pub(super) stuck: bool,
}

impl fmt::Debug for Request {
    // Paths can hold API keys, and the bearer is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Elements of the path.
    pub(super) fn elements(&self) -> Vec<&str> {
        self.path.split('/').filter(|e| !e.is_empty()).collect()
    }

    /// Names and values of the query, unescaped, in order.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (unescaped(name), unescaped(value))
            })
            .collect()
    }
}

/// `text` with `+` and `%XX` put back; what is no escape stays as it is.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3);
        let escape = escape.and_then(|hex| std::str::from_utf8(hex).ok());
        match (
            byte,
            escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(value)) => {
                plain.push(value);
                at += 2;
            }
            (b'+', _) => plain.push(b' '),
            (other, _) => plain.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Body,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<u32>,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Json(Value),
    Nothing,
    Text(String),
}

impl Reply {
    pub(super) const fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Body::Json(body),
            retry_after: None,
        }
    }

    pub(super) const fn nothing(status: u16) -> Self {
        Self {
            status,
            body: Body::Nothing,
            retry_after: None,
        }
    }

    pub(super) const fn text(status: u16, text: String) -> Self {
        Self {
            status,
            body: Body::Text(text),
            retry_after: None,
        }
    }

    /// What the JSON says; `null` without.
    #[cfg(test)]
    pub(super) fn value(&self) -> Value {
        match &self.body {
            Body::Json(value) => value.clone(),
            Body::Nothing | Body::Text(_) => Value::Null,
        }
    }
}

/// Media that arrives under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::lab) struct Input {
    /// Of the picture, once one was decoded.
    pub(in crate::lab) size: Option<(u32, u32)>,
    pub(in crate::lab) fps: f64,
    /// RTP payload of both tracks.
    pub(in crate::lab) bitrate_bps: u64,
}

/// A webhook that is to be called.
#[derive(Clone, PartialEq)]
pub(super) struct Call {
    pub(super) url: String,
    pub(super) body: Value,
}

impl fmt::Debug for Call {
    // URLs of callbacks carry tokens, and the body a stream key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// One account at a vendor: its streams and what is done to them.
pub(super) trait Account: fmt::Debug + Send {
    /// What `request` is for; `None` if it is for nothing that exists.
    fn call(&self, request: &Request) -> Option<RestCall>;

    /// Does what is asked, and says so.
    fn answer(&mut self, now: Moment, request: &Request) -> Reply;

    /// A refusal with `status`, in the vendor's words.
    fn refusal(&self, status: u16) -> Reply;

    /// Time has passed.
    fn advance(&mut self, now: Moment);

    /// When time will do something next; `None` if it will not.
    fn deadline(&self) -> Option<Instant>;

    /// Media arrives under these names (`application/stream`) and no others.
    fn inputs(&mut self, now: Moment, inputs: &BTreeMap<String, Input>);

    /// Stops every stream that runs, as a vendor does that thinks it should.
    fn stop_all(&mut self, now: Moment);

    /// Every name that exists, and whether one may publish under it now.
    fn doors(&self) -> BTreeMap<String, bool>;

    /// What each stream has cost so far, deleted ones too.
    fn bills(&self, now: Instant) -> Vec<Bill>;

    /// From now on only this credential is good.
    fn renew(&mut self, credential: String);

    /// Webhooks to be called since this was last asked.
    fn calls(&mut self) -> Vec<Call>;
}

/// So many requests in any minute of the vendor's.
#[derive(Debug)]
pub(super) struct Limit {
    times: VecDeque<Instant>,
    most: usize,
    minute: Duration,
}

impl Limit {
    /// `most` requests in any `minute`.
    pub(super) fn new(most: u32, minute: Duration) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            times: VecDeque::new(),
            most: most.min(REMEMBERED),
            minute,
        }
    }

    /// Takes one more; otherwise after how long there is room again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while let Some(first) = self.times.front()
            && now.saturating_duration_since(*first) >= self.minute
        {
            self.times.pop_front();
        }
        if self.times.len() < self.most {
            self.times.push_back(now);
            return Ok(());
        }
        let first = self.times.front().copied().unwrap_or(now);
        Err(self
            .minute
            .saturating_sub(now.saturating_duration_since(first)))
    }
}

/// A word of `length` lower-case letters and digits.
pub(super) fn word(chance: &mut fastrand::Rng, length: usize) -> String {
    (0..length)
        .map(|_| char::from(LETTERS[chance.usize(..LETTERS.len())]))
        .collect()
}

/// A UUID of version 4.
pub(super) fn uuid(chance: &mut fastrand::Rng) -> String {
    let bits = chance.u128(..) & !(0xF << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_unescaped_once_and_never_trips() {
        let request = Request {
            query: "filter%5B0%5D%5Bfield%5D=state&a=b+c%2Bd&%=%zz&last=%4&empty".to_owned(),
            ..Request::default()
        };
        let read = request.parameters();
        let pairs: Vec<(&str, &str)> = read.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(
            pairs,
            [
                ("filter[0][field]", "state"),
                ("a", "b c+d"),
                ("%", "%zz"),
                ("last", "%4"),
                ("empty", ""),
            ]
        );
    }

    #[test]
    fn a_limit_lets_through_so_many_in_any_minute() {
        let now = Instant::now();
        let mut limit = Limit::new(2, Duration::from_secs(60));
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(limit.take(now), Ok(()));
        assert_eq!(limit.take(at(20)), Ok(()));
        assert_eq!(limit.take(at(30)), Err(Duration::from_secs(30)));
        assert_eq!(limit.take(at(60)), Ok(()));
        assert_eq!(limit.take(at(60)), Err(Duration::from_secs(20)));
    }

    #[test]
    fn identifiers_have_the_form_they_should() {
        let mut chance = fastrand::Rng::with_seed(1);
        let id = uuid(&mut chance);
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
        assert_ne!(id, uuid(&mut chance));
        assert_eq!(word(&mut chance, 8).len(), 8);
    }

    #[test]
    fn neither_keys_nor_tokens_are_printed() {
        let request = Request {
            path: "/access_token/planted".to_owned(),
            bearer: Some("planted".to_owned()),
            ..Request::default()
        };
        assert!(!format!("{request:?}").contains("planted"));
    }
}
