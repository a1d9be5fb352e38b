//! Requests with their redirects, to whom the token is told, and when it is read again.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Token;
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
    pub(super) token: Option<Arc<Mutex<Token>>>,
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

impl Asked {
    /// `words` of the one who replied, with what we have to add.
    pub(super) fn explained(&self, mut words: String) -> String {
        if self.withheld && is_unauthorized(&self.reply) {
            words += " (this is another origin than that of the configured URL, and is not told our token)";
        }
        words
    }
}

impl Client {
    /// The token as it was read last.
    pub(super) fn token(&self) -> Option<Secret> {
        Some(self.held()?.value.clone())
    }

    fn held(&self) -> Option<MutexGuard<'_, Token>> {
        let token = self.token.as_ref()?;
        Some(token.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the token anew; says whether it is another one than that which was `refused`.
    fn renew(&self, refused: &Secret) -> bool {
        let Some(mut token) = self.held() else {
            return false;
        };
        let renewed = token.reread.as_ref().and_then(|reread| reread());
        if let Some(renewed) = renewed {
            token.value = renewed;
        }
        let changed = token.value != *refused;
        if changed {
            tracing::info!("the token was refused and has been renewed meanwhile");
        }
        changed
    }

    /// Asks, follows redirects, and returns the reply at their end. Each reply is bounded by fifteen seconds, beside what
    /// connecting may take. A refused token is read again once, and a new one tried at once.
    pub(super) async fn ask(self, question: Question) -> Result<Asked, Error> {
        let mut trail = Trail::new(question.target);
        let mut renewed = false;
        loop {
            let target = trail.target();
            let is_home = target.same_origin(&self.home);
            let mut headers = question.headers.clone();
            let token = self.token().filter(|_| is_home);
            if let Some(token) = &token {
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
                    let refused = token.filter(|_| is_unauthorized(&reply) && !renewed);
                    if refused.is_some_and(|token| self.renew(&token)) {
                        renewed = true;
                        continue;
                    }
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

fn is_unauthorized(reply: &Reply) -> bool {
    matches!(reply.status, 401 | 403)
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
