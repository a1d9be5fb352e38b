//! One HTTP/1.1 request and its reply, on a connection of its own.
//!
//! Everything that comes back is bounded: the head, the body, the time. Redirects are not followed here, for only the
//! caller knows what may be told to whom. What may hold a secret (the URL, headers, bodies) is never logged.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Error, Step, Stream, Target, USER_AGENT, failed};

/// Largest reply body taken. Answers and error texts have some KiB, but Qencode lists the streams of a whole project at
/// once, of which an operator of kiosks may have hundreds.
pub const BODY_MAX: usize = 4 << 20;
/// Largest reply head taken.
const HEAD_MAX: usize = 16 << 10;
/// Most header fields taken of a reply.
const HEADERS_MAX: usize = 64;
/// Longest wait that a server's `Retry-After` can ask for: beyond it, an operator would take us for dead.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Ends what the URL names.
    Delete,
    /// Shows what the URL names.
    Get,
    /// Asks what can be done with it.
    Options,
    /// Changes it.
    Patch,
    /// Makes something new there.
    Post,
    /// Sets it.
    Put,
}

/// A request. `User-Agent`, `Host` and `Content-Length` are added.
pub struct Request<'a> {
    /// What is asked.
    pub method: Method,
    /// Of whom; the scheme must be `http` or `https`.
    pub target: &'a Target,
    /// Names in lower case, with their values.
    pub headers: &'a [(&'static str, String)],
    /// The body, which may be empty.
    pub body: &'a str,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in lower case, those of one name in their order.
    headers: Vec<(String, String)>,
    /// The body; bytes that are no UTF-8 are replaced.
    pub body: String,
}

/// Sends `request` on a connection of its own, which is closed afterwards. It has `after` for all of its reply.
///
/// An [`Error::Failed`] at [`Step::Http`] whose cause is [`io::ErrorKind::UnexpectedEof`] means that the server closed
/// the connection without a reply.
pub async fn exchange(
    stream: Box<dyn Stream>,
    request: &Request<'_>,
    after: Duration,
) -> Result<Reply, Error> {
    let work = converse(stream, request);
    timeout(after, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout {
            endpoint: request.target.to_string(),
            step: Step::Http,
            after,
        })
    })
}

async fn converse(stream: Box<dyn Stream>, request: &Request<'_>) -> Result<Reply, Error> {
    let broken = |error: hyper::Error| broken(request.target, &error);
    let message = message(request)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(2 * HEAD_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchanged = async {
        let (head, body) = sender
            .send_request(message)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, BODY_MAX)
            .collect()
            .await
            .map_err(|error| unread(request.target, error.as_ref()))?
            .to_bytes();
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), value.trim().to_owned())
        });
        Ok(Reply {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    tokio::pin!(exchanged, connection);
    // The connection works for the exchange, which learns of its end by itself; when it has ended first, what it read
    // may still have to be taken.
    tokio::select! {
        biased;
        reply = &mut exchanged => reply,
        _ = &mut connection => exchanged.await,
    }
}

fn message(request: &Request<'_>) -> Result<hyper::Request<Full<Bytes>>, Error> {
    let unusable = |what: &str| Error::Url {
        why: format!("{}: {what} cannot be sent over HTTP", request.target),
    };
    let url = request.target.expose();
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let host = HeaderValue::try_from(host).map_err(|_| unusable("the host"))?;
    let (method, has_body) = match request.method {
        Method::Delete => (hyper::Method::DELETE, !request.body.is_empty()),
        Method::Get => (hyper::Method::GET, !request.body.is_empty()),
        Method::Options => (hyper::Method::OPTIONS, !request.body.is_empty()),
        Method::Patch => (hyper::Method::PATCH, true),
        Method::Post => (hyper::Method::POST, true),
        Method::Put => (hyper::Method::PUT, true),
    };
    let body = Bytes::copy_from_slice(request.body.as_bytes());
    let mut message = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(CONNECTION, "close");
    if has_body {
        message = message.header(CONTENT_LENGTH, body.len());
    }
    for (name, value) in request.headers {
        // The values may be tokens.
        let mut value =
            HeaderValue::try_from(value.as_str()).map_err(|_| unusable("a header of ours"))?;
        value.set_sensitive(true);
        message = message.header(HeaderName::from_static(name), value);
    }
    message
        .body(Full::new(body))
        .map_err(|_| unusable("the path of its URL"))
}

/// The words of hyper's errors hold nothing of the request.
fn broken(target: &Target, error: &hyper::Error) -> Error {
    let (why, kind) = if error.is_parse() {
        let why = format!("this is not HTTP/1.1 as it should be ({error})");
        (why, io::ErrorKind::InvalidData)
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        let why = "the server closed the connection without a complete reply".to_owned();
        (why, io::ErrorKind::UnexpectedEof)
    } else {
        let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
        match cause.map(io::Error::kind) {
            Some(
                kind @ (io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof),
            ) => (
                format!("the server closed the connection without a reply ({kind})"),
                io::ErrorKind::UnexpectedEof,
            ),
            Some(kind) => (format!("the connection broke ({kind})"), kind),
            None => (error.to_string(), io::ErrorKind::Other),
        }
    };
    let cause = io::Error::new(kind, why.clone());
    failed(target, Step::Http, why, Some(cause))
}

fn unread(target: &Target, error: &(dyn StdError + Send + Sync + 'static)) -> Error {
    if error.is::<LengthLimitError>() {
        let why = format!("the reply is longer than {} KiB", BODY_MAX >> 10);
        return failed(target, Step::Http, why, None);
    }
    match error.downcast_ref::<hyper::Error>() {
        Some(error) => broken(target, error),
        None => failed(target, Step::Http, error.to_string(), None),
    }
}

impl Reply {
    /// A reply with these parts; the names of the headers in lower case.
    pub fn new(status: u16, headers: Vec<(String, String)>, body: String) -> Self {
        Self {
            status,
            headers,
            body,
        }
    }

    /// The first header field of this name (in lower case).
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All header fields of this name (in lower case).
    pub fn headers(&self, name: &'static str) -> impl Iterator<Item = &str> {
        (self.headers.iter())
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// What `Retry-After` asks for (RFC 9110, section 10.2.3), at most an hour. A point in time is measured from the
    /// server's own `Date`, since our clock may be wrong.
    pub fn retry_after(&self) -> Option<Duration> {
        let said = self.header("retry-after")?;
        let wait = match said.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) if said.bytes().all(|b| b.is_ascii_digit()) && !said.is_empty() => {
                RETRY_AFTER_MAX
            }
            Err(_) => {
                let date = httpdate::parse_http_date(self.header("date")?).ok()?;
                let until = httpdate::parse_http_date(said).ok()?;
                until.duration_since(date).unwrap_or_default()
            }
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }

    /// The usual words for the status, where there are any.
    pub fn reason(&self) -> &'static str {
        hyper::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("unknown status")
    }
}

#[cfg(test)]
mod tests;
