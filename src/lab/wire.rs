//! A publisher's signalling connection: WebSocket messages, each noted in the session's record.

use std::time::Duration;
use std::time::Instant;

use futures_util::SinkExt;
use futures_util::StreamExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::hub::Record;
use super::hub::Side;
use super::now;

/// Longest message that is read; a longer one ends the connection.
const MESSAGE: usize = 1 << 20;
/// How long a publisher may take to read what is sent to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a publisher did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It ended the connection; `orderly` with a Close frame.
    Closed { orderly: bool },
    /// It sent text, or bytes that are text.
    Text(String),
}

/// The connection. Dropping it cuts it, without a Close frame.
pub(super) struct Wire {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    record: Record,
    heard: Instant,
}

impl Wire {
    /// Takes over an upgraded connection.
    pub(super) async fn new(upgraded: Upgraded, record: Record) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE))
            .max_frame_size(Some(MESSAGE));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self {
            socket,
            record,
            heard: now(),
        }
    }

    /// When anything was last heard, pongs included.
    pub(super) const fn heard(&self) -> Instant {
        self.heard
    }

    /// The next message, or the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            let next = self.socket.next().await;
            self.heard = now();
            let text = match next {
                Some(Ok(Message::Text(text))) => text.to_string(),
                Some(Ok(Message::Binary(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|f| u16::from(f.code));
                    self.remark(&format!("the publisher closed the socket, code {code:?}"));
                    return Heard::Closed { orderly: true };
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => {
                    self.remark(&format!("the socket broke: {error}"));
                    return Heard::Closed { orderly: false };
                }
                None => {
                    self.remark("the socket ended");
                    return Heard::Closed { orderly: false };
                }
            };
            self.record
                .message(self.heard, Some(Side::Publisher), &text);
            return Heard::Text(text);
        }
    }

    /// Sends `message`. A publisher that does not read it in time or is gone shows in [`Wire::next`].
    pub(super) async fn send(&mut self, message: &Value) {
        let text = message.to_string();
        self.record.message(now(), Some(Side::Lab), &text);
        self.put(Message::text(text)).await;
    }

    /// Sends a ping with OvenMediaEngine's payload.
    pub(super) async fn ping(&mut self) {
        self.put(Message::Ping("OvenMediaEngine".into())).await;
    }

    /// Closes the connection as a Wowza engine does that ends a session.
    pub(super) async fn close(&mut self, code: u16, status: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: format!("the Engine ended the session (status {status})").into(),
        };
        self.remark(&format!(
            "the socket is closed, code {code}, status {status}"
        ));
        // A publisher that is gone needs no closing.
        tokio::time::timeout(PATIENCE, self.socket.close(Some(frame)))
            .await
            .ok();
    }

    /// Notes a remark in the session's record.
    pub(super) fn remark(&self, text: &str) {
        self.record.message(now(), None, text);
    }

    async fn put(&mut self, message: Message) {
        let sent = tokio::time::timeout(PATIENCE, self.socket.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.remark("a message could not be sent");
        }
    }
}
