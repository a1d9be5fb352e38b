//! Webhooks: what a vendor's control plane posts to the URL that a stream's owner named.
//!
//! Best effort, and bounded: one after the other, each with a time limit, never again. Over `http` alone, for rehearsals.

use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::Uri;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::account::Call;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a call did not come through. The URL is not told: it may hold a token.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the callback URL is none of http://host[:port]/path")]
    Url,
    #[error("no connection to it")]
    Connect(#[from] std::io::Error),
    #[error("it does not speak HTTP")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}")]
    Status(u16),
    #[error("it does not answer")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Makes the calls that come out of `calls`, until `stop`.
pub(super) async fn deliver(mut calls: mpsc::Receiver<Call>, stop: CancellationToken) {
    loop {
        let call = tokio::select! {
            call = calls.recv() => call,
            () = stop.cancelled() => return,
        };
        let Some(call) = call else {
            return;
        };
        let delivered = tokio::select! {
            delivered = tokio::time::timeout(PATIENCE, post(call)) => delivered,
            () = stop.cancelled() => return,
        };
        if let Err(error) = delivered.map_err(Error::from).flatten() {
            tracing::warn!(%error, "a webhook of the lab's control plane was not delivered");
        }
    }
}

async fn post(call: Call) -> Result<(), Error> {
    let uri: Uri = call.url.parse().map_err(|_| Error::Url)?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(Error::Url);
    };
    let port = uri.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(call.body.to_string()))
        .map_err(|_| Error::Url)?;
    let answered = async move {
        let response = sender.send_request(request).await?;
        Ok::<_, Error>(response.status())
    };
    // What becomes of the connection after the answer is of no interest.
    let (status, _ended) = tokio::join!(answered, connection);
    let status = status?;
    if status.is_success() {
        Ok(())
    } else {
        Err(Error::Status(status.as_u16()))
    }
}
