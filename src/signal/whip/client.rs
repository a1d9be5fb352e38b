//! Requests with their redirects, and to whom the token is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::redirect::{Trail, Turn};
use crate::config::secret::Secret;
use crate::net::http::{self, Method, Reply, Request};
use crate::net::{self, Dialer, Stream, Target};
use crate::signal::{Error, Step};

/// Longest wait for one reply. It comes within milliseconds, unless a webhook decides first.
const REPLY_DEADLINE: Duration = Duration::from_secs(15);

/// How a connection is made.
pub(super) type Dial =
    Arc<dyn Fn(Target) -> BoxFuture<'static, Result<Box<dyn Stream>, net::Error>> + Send + Sync>;

/// Connections by `dialer`.
pub(super) fn dial_with(dialer: Dialer) -> Dial {
    Arc::new(move |target| {
        let dialer = dialer.clone();
        Box::pin(async move { dialer.dial(&target).await })
    })
}

/// Asks, as long as it takes to arrive.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) dial: Dial,
    /// The configured URL: its origin, and no other, is told the token.
    pub(super) home: Target,
    pub(super) token: Option<Secret>,
}

/// A request, without its token.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// A reply, and how it was come by.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) reply: Reply,
    /// Who replied.
    pub(super) at: Target,
    /// Whether the token was held back from the one who replied.
    pub(super) withheld: bool,
}

impl Client {
    /// Asks, follows redirects, and returns the reply at their end. Each reply is bounded by fifteen seconds, beside what
    /// connecting may take.
    pub(super) async fn ask(self, question: Question) -> Result<Asked, Error> {
        let mut trail = Trail::new(question.target);
        loop {
            let target = trail.target();
            let is_home = target.same_origin(&self.home);
            let mut headers = question.headers.clone();
            let token = self.token.as_ref();
            if let Some(token) = token.filter(|_| is_home) {
                headers.push(("authorization", format!("Bearer {}", token.expose())));
            }
            let request = Request {
                method: question.method,
                target,
                headers: &headers,
                body: &question.body,
            };
            let stream = (self.dial)(target.clone()).await?;
            let reply = http::exchange(stream, &request, REPLY_DEADLINE)
                .await
                .map_err(unanswered)?;
            match trail.take(&reply) {
                Turn::Arrived => {
                    return Ok(Asked {
                        reply,
                        at: trail.target().clone(),
                        withheld: self.token.is_some() && !is_home,
                    });
                }
                Turn::On => {}
                Turn::Stuck(text) => {
                    return Err(Error::Refused {
                        endpoint: trail.target().to_string(),
                        status: reply.status,
                        text,
                        step: Step::Answered,
                        retry_after: None,
                    });
                }
            }
        }
    }
}

/// Says of a reply that failed to come what it means here.
fn unanswered(error: net::Error) -> Error {
    match error {
        net::Error::Timeout {
            endpoint,
            step: net::Step::Http,
            after,
        } => Error::Timeout {
            endpoint,
            waiting_for: "its reply was awaited",
            after,
        },
        net::Error::Failed {
            endpoint,
            step: net::Step::Http,
            source: Some(cause),
            ..
        } if cause.kind() == io::ErrorKind::UnexpectedEof => Error::Protocol {
            endpoint,
            expected: "an HTTP reply",
            got: "nothing and closed the connection (SRS does so when the stream name is in use, or it cannot take the \
                  offer)"
                .to_owned(),
        },
        other @ (net::Error::CaFile { .. }
        | net::Error::Failed { .. }
        | net::Error::Proxy { .. }
        | net::Error::Status { .. }
        | net::Error::Timeout { .. }
        | net::Error::Url { .. }) => Error::Connect(other),
    }
}
