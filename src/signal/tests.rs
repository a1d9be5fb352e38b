//! What both dialects promise alike: no secret in an error or a log, however the server quotes it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::secret::Secret;

use super::testing::{OUR_OFFER, dialer, ome_answer, ome_offer, wowza_answer, wowza_v2_answer};
use super::*;

const SECRETS: [&str; 5] = [
    "planted-name",
    "planted-token",
    "planted/policy",
    "planted%2Fpolicy",
    "planted-credential",
];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Sends each of `script` once to whoever connects, the first after a message of theirs, then hangs up.
async fn serve(listener: TcpListener, scripts: Vec<Vec<String>>) {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    for script in scripts {
        let (stream, _) = listener.accept().await.unwrap();
        let mut far = tokio_tungstenite::accept_async(stream).await.unwrap();
        while !matches!(far.next().await, Some(Ok(Message::Text(_)))) {}
        for text in script {
            far.send(Message::text(text)).await.unwrap();
        }
        far.close(Some(tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: 1011.into(),
            reason: "planted-name planted-token".into(),
        }))
        .await
        .unwrap();
    }
}

/// Everything a server may quote us.
fn quotes() -> Vec<String> {
    let all = SECRETS.join(" ");
    vec![
        format!("no JSON: {all}"),
        json!([all]).to_string(),
        json!({ all.as_str(): all, "command": all }).to_string(),
        json!({ "command": "offer", "id": 1, "sdp": all }).to_string(),
        json!({ "code": 404, "error": all }).to_string(),
        json!({ "status": 504, "statusDescription": all }).to_string(),
        json!({ "statusCode": 504, "statusDescription": all }).to_string(),
        json!({ "statusCode": 502, "statusDescription": all }).to_string(),
        json!({ "statusCode": 200, "message": { "connectionId": all, "sdp": { "sdp": all } } }).to_string(),
        json!({ "messageType": "CANDIDATE", "candidate": all }).to_string(),
        json!({ "status": 200, "sdp": all }).to_string(),
        json!({ "status": 502, "statusDescription": all }).to_string(),
        json!({ "status": 200, "sdp": { "type": "answer", "sdp": format!("v=0\r\nm={all} 0 x\r\n") } }).to_string(),
    ]
}

/// Lets `signaller` run a session against each script; returns its errors.
async fn sessions(signaller: &mut dyn Signaller, count: usize) -> Vec<Error> {
    let mut errors = Vec::new();
    for _ in 0..count {
        let ended = async {
            let local = match signaller.open(0).await? {
                Opening::Offered(remote) => {
                    tracing::trace!(?remote, "offered");
                    ome_answer()
                }
                Opening::SendOffer => OUR_OFFER,
            };
            signaller.exchange(local).await?;
            // A dialect that does not hang on its socket waits for ever.
            match tokio::time::timeout(Duration::from_millis(200), signaller.next()).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Ok(()),
            }
        };
        if let Err(error) = ended.await {
            tracing::warn!(%error, "session ended");
            errors.push(error);
        }
        signaller.close(Parting::Stop).await;
    }
    errors
}

#[tokio::test]
async fn no_secret_reaches_an_error_or_a_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let url = Secret::new(format!(
        "ws://{host}/app/planted-name?policy=planted%2Fpolicy&t=planted-token&c=planted-credential"
    ));
    let mut scripts: Vec<Vec<String>> = quotes().into_iter().map(|quote| vec![quote]).collect();
    let after_offer = quotes()
        .into_iter()
        .map(|quote| vec![ome_offer().to_string(), quote]);
    scripts.extend(after_offer);
    let count = scripts.len();
    let mut ome = ome::Ome::new(&url, &[], dialer());
    let (errors, ()) = tokio::join!(sessions(&mut ome, count), serve(listener, scripts));
    assert_eq!(errors.len(), count);
    let mut said = format!("{errors:?}");

    for newer in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let url = Secret::new(format!(
            "ws://{host}/webrtc-session.json?p=planted%2Fpolicy&c=planted-credential"
        ));
        let stream = Secret::new("planted-name?token=planted-token");
        let answer = if newer {
            wowza_v2_answer()
        } else {
            wowza_answer()
        };
        let mut scripts: Vec<Vec<String>> = quotes().into_iter().map(|quote| vec![quote]).collect();
        let after_answer = (quotes().into_iter()).map(|quote| vec![answer.to_string(), quote]);
        scripts.extend(after_answer);
        let count = scripts.len();
        let mut wowza: Box<dyn Signaller> = if newer {
            Box::new(wowza_v2::WowzaV2::new(&url, "live", &stream, dialer()))
        } else {
            Box::new(wowza_v1::WowzaV1::new(&url, "live", &stream, dialer()))
        };
        let (errors, ()) = tokio::join!(sessions(wowza.as_mut(), count), serve(listener, scripts));
        assert!(errors.len() >= count / 2, "{}", errors.len());
        said += &format!("{errors:?}");
        for error in &errors {
            said += &error.to_string();
        }
    }

    drop(guard);
    said += &String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("***"), "{said}");
    assert!(said.contains("session ended"));
    for secret in SECRETS {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
