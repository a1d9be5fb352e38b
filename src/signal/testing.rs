//! What the tests of both dialects share: a server's end of the socket on a pipe, recorded messages, and SDPs
//! of our own.

use std::sync::OnceLock;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::RemoteDescription;
use crate::config::secret::Secret;
use crate::config::{Proxy, Trust};
use crate::net::ws::Socket;
use crate::net::{Dialer, Target};

/// The server's end.
pub(super) struct Far(pub(super) WebSocketStream<DuplexStream>);

pub(super) fn dialer() -> Dialer {
    static DIALER: OnceLock<Dialer> = OnceLock::new();
    let url = Secret::new("wss://server.example/");
    let new = || Dialer::new(&url, &Trust::default(), &Proxy::None).unwrap();
    DIALER.get_or_init(new).clone()
}

/// An open WebSocket on a pipe of 64 KiB.
pub(super) async fn pipe() -> (Socket, Far) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let target = Target::parse("wss://server.example/path", &[]).unwrap();
    let (socket, far) = tokio::join!(
        Socket::upgrade(Box::new(near), &target),
        tokio_tungstenite::accept_async(far)
    );
    (socket.unwrap(), Far(far.unwrap()))
}

impl Far {
    pub(super) async fn say(&mut self, value: &Value) {
        self.say_text(&value.to_string()).await;
    }

    pub(super) async fn say_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn say_binary(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// `text` in frames of `size` bytes.
    pub(super) async fn say_fragmented(&mut self, text: &str, size: usize) {
        let mut pieces = text.as_bytes().chunks(size).enumerate().peekable();
        while let Some((n, piece)) = pieces.next() {
            let kind = if n == 0 { Data::Text } else { Data::Continue };
            let last = pieces.peek().is_none();
            let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), last);
            self.0.send(Message::Frame(frame)).await.unwrap();
        }
    }

    /// The next text message, which must be JSON; control frames are passed over.
    pub(super) async fn hear(&mut self) -> Value {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no message but {other:?}"),
            }
        }
    }

    /// Closes the socket with `code`.
    pub(super) async fn hang_up(&mut self, code: u16, reason: &str) {
        let (code, reason) = (code.into(), reason.to_owned().into());
        self.0
            .close(Some(CloseFrame { code, reason }))
            .await
            .unwrap();
    }

    /// Whether the connection was closed with code 1000; any other message fails the test.
    pub(super) async fn hear_goodbye(&mut self) -> bool {
        match self.0.next().await {
            Some(Ok(Message::Close(Some(frame)))) => u16::from(frame.code) == 1000,
            None | Some(Err(_)) => false,
            Some(Ok(other)) => panic!("no goodbye but {other:?}"),
        }
    }
}

/// A recorded file of `tests/data`.
pub(super) fn recorded(path: &str) -> Value {
    let path = format!("{}/tests/data/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap()
}

/// The recorded offer of OvenMediaEngine 0.21.
pub(super) fn ome_offer() -> Value {
    let file = recorded("ome/v0.21.0-publish-udp.json");
    file["signalling"][1]["msg"].clone()
}

/// The SDP of a recorded answer to it, by Chromium.
pub(super) fn ome_answer() -> &'static str {
    static ANSWER: OnceLock<String> = OnceLock::new();
    ANSWER.get_or_init(|| {
        let file = recorded("ome/v0.21.0-publish-udp.json");
        let messages = file["signalling"].as_array().unwrap();
        let answer = messages.iter().find(|m| m["msg"]["command"] == "answer");
        let sdp = &answer.unwrap()["msg"]["sdp"]["sdp"];
        sdp.as_str().unwrap().to_owned()
    })
}

pub(super) fn wowza_answer() -> Value {
    recorded("wowza/v1-answer-synthetic.json")["answer"].clone()
}

/// The same answer in the words of the newer dialect.
pub(super) fn wowza_v2_answer() -> Value {
    json!({
        "statusCode": 200,
        "statusDescription": "OK",
        "message": { "connectionId": "b4f0c2", "sdp": wowza_answer()["sdp"]["sdp"] },
    })
}

/// An offer of ours, as far as a signaller looks at it.
pub(super) const OUR_OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\n\
    a=candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host\r\na=end-of-candidates\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 108\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=rtpmap:108 H264/90000\r\na=rtcp-fb:108 transport-cc\r\na=rtcp-fb:108 nack pli\r\n";

pub(super) fn error(code: u16, text: &str) -> Value {
    json!({ "code": code, "error": text })
}

/// Whether a description has exactly these candidates, given as transport and port.
pub(super) fn has_candidates(remote: &RemoteDescription, wanted: &[(&str, u16)]) -> bool {
    let found: Vec<_> = (remote.candidates.iter())
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields[2].to_owned(), fields[5].parse().unwrap())
        })
        .collect();
    let wanted: Vec<_> = wanted.iter().map(|(t, p)| ((*t).to_owned(), *p)).collect();
    found == wanted
}
