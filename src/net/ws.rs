//! A text channel over WebSocket (RFC 6455), on any byte stream.
//!
//! Messages of at most 1 MiB, sent unfragmented and uncompressed because OvenMediaEngine reads each frame as
//! one message. Pings are answered while somebody receives, and pings of our own keep routers from forgetting
//! an idle connection.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{Dialer, Error, Step, Stream, Target, USER_AGENT, failed, within};

/// Longest wait for the server's 101.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(10);
/// Largest message taken; real ones have some 10 KiB.
pub const MESSAGE_MAX: usize = 1 << 20;
/// Distance of our own pings: below the 30 s after which the most impatient routers forget a TCP connection.
const PING_PERIOD: Duration = Duration::from_secs(25);
/// Longest wait for the close frame to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A binary message of that many bytes; no dialect uses them.
    Binary(usize),
    /// A text message.
    Text(String),
}

/// Why nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The connection is closed, with the code and reason of the close frame if there was one.
    Closed {
        /// Code of the close frame; `None` for a bare TCP close or reset.
        code: Option<u16>,
        /// Reason in the close frame.
        reason: String,
    },
    /// The server broke the protocol, or sent more than [`MESSAGE_MAX`] at once.
    Violation(String),
}

/// An open WebSocket. Dropping it closes the TCP connection without a close frame.
pub struct Socket {
    inner: WebSocketStream<Box<dyn Stream>>,
    ping_at: Instant,
}

impl Socket {
    /// Opens a WebSocket to `target`.
    pub async fn connect(target: &Target, dialer: &Dialer) -> Result<Self, Error> {
        let stream = dialer.dial(target).await?;
        Self::upgrade(stream, target).await
    }

    /// Turns an open byte stream into a WebSocket.
    pub async fn upgrade(stream: Box<dyn Stream>, target: &Target) -> Result<Self, Error> {
        let mut request = target
            .expose()
            .as_str()
            .into_client_request()
            .map_err(|_| Error::Url {
                why: "unusable server URL: it cannot be asked for over HTTP".to_owned(),
            })?;
        request
            .headers_mut()
            .insert("User-Agent", HeaderValue::from_static(USER_AGENT));
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX))
            // The buffer is zeroed at each look for a message; at the default 128 KiB that was a tenth of what a
            // publisher costs beside its encoder.
            .read_buffer_size(4 * 1024)
            // A server that does not read must not make us hoard: a message of ours and some pings fit.
            .max_write_buffer_size(2 * MESSAGE_MAX);
        let (inner, _) = within(target, Step::Upgrade, UPGRADE_DEADLINE, async {
            client_async_with_config(request, stream, Some(limits))
                .await
                .map_err(|e| not_upgraded(target, e))
        })
        .await?;
        Ok(Self {
            inner,
            ping_at: Instant::now() + PING_PERIOD,
        })
    }

    /// Sends one text message. A server that does not read makes this wait: give it a deadline.
    pub async fn send(&mut self, text: String) -> Result<(), Ended> {
        self.inner.send(Message::text(text)).await.map_err(ended)
    }

    /// The next message; answers pings meanwhile and sends our own. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Received, Ended> {
        loop {
            let Ok(next) = timeout_at(self.ping_at, self.inner.next()).await else {
                self.ping_at = Instant::now() + PING_PERIOD;
                // Not awaited: on a connection that takes no more bytes the ping stays in the buffer, and
                // whoever receives goes on receiving.
                if let Some(Err(error)) = self
                    .inner
                    .send(Message::Ping("onair".into()))
                    .now_or_never()
                {
                    return Err(ended(error));
                }
                continue;
            };
            match next {
                Some(Ok(Message::Text(text))) => return Ok(Received::Text(text.to_string())),
                Some(Ok(Message::Binary(bytes))) => return Ok(Received::Binary(bytes.len())),
                Some(Ok(Message::Close(frame))) => {
                    return Err(Ended::Closed {
                        code: frame.as_ref().map(|f| f.code.into()),
                        reason: frame.map_or_else(String::new, |f| f.reason.to_string()),
                    });
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(ended(error)),
                None => return Err(bare_close()),
            }
        }
    }

    /// Says goodbye with code 1000 and closes the connection, without waiting for an answer: OvenMediaEngine
    /// never gives one.
    pub async fn close(mut self) {
        let goodbye = self.inner.close(Some(tungstenite::protocol::CloseFrame {
            code: tungstenite::protocol::frame::coding::CloseCode::Normal,
            reason: "".into(),
        }));
        if !matches!(timeout(CLOSE_DEADLINE, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("the close frame did not get through");
        }
    }
}

fn bare_close() -> Ended {
    Ended::Closed {
        code: None,
        reason: String::new(),
    }
}

fn ended(error: tungstenite::Error) -> Ended {
    use tungstenite::Error as E;
    match error {
        E::ConnectionClosed
        | E::AlreadyClosed
        | E::Io(_)
        | E::Tls(_)
        | E::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => bare_close(),
        E::Capacity(CapacityError::MessageTooLong { size, .. }) => {
            Ended::Violation(format!("a message of {size} bytes or more"))
        }
        E::WriteBufferFull(_) => Ended::Violation("nothing: it does not read either".to_owned()),
        E::Utf8(_) => Ended::Violation("a text message that is not UTF-8".to_owned()),
        E::Capacity(CapacityError::TooManyHeaders)
        | E::Protocol(_)
        | E::AttackAttempt
        | E::Url(_)
        | E::Http(_)
        | E::HttpFormat(_) => Ended::Violation(format!("a broken frame ({error})")),
    }
}

fn not_upgraded(target: &Target, error: tungstenite::Error) -> Error {
    use tungstenite::Error as E;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other errors say enough by themselves"
    )]
    match error {
        E::Http(response) => Error::Status {
            endpoint: target.to_string(),
            status: response.status().as_u16(),
        },
        E::Io(source) => failed(target, Step::Upgrade, source.to_string(), Some(source)),
        E::Protocol(ProtocolError::HandshakeIncomplete) => {
            failed(target, Step::Upgrade, "the server hung up".to_owned(), None)
        }
        E::Protocol(ProtocolError::HttparseError(_)) => failed(
            target,
            Step::Upgrade,
            "the server does not speak HTTP on this port; is it meant for wss:// ?".to_owned(),
            None,
        ),
        other => failed(target, Step::Upgrade, other.to_string(), None),
    }
}
