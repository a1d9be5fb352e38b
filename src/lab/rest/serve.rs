//! A control plane's listener: HTTP around an account, and the faults that happen there.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use http_body_util::BodyExt;
use http_body_util::Limited;
use hyper::Request as HttpRequest;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lab::door;
use crate::lab::door::HungUp;
use crate::lab::faults::RestFault;
use crate::lab::tls::Acceptor;

use super::Body;
use super::Plane;
use super::Reply;
use super::Request;

/// Longest body that is read.
const BODY: usize = 64 * 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Length of a reply that is far too long.
const OVERSIZED: usize = 8 * 1024 * 1024;

/// Serves everyone who comes, until `stop`.
pub(in crate::lab) async fn serve(
    listener: TcpListener,
    plane: Arc<Plane>,
    tls: Option<Acceptor>,
    tracked: TaskTracker,
    stop: CancellationToken,
) {
    let what = format!("the REST API of {}", plane.vendor);
    let (tasks, until) = (tracked.clone(), stop.clone());
    let visit = move |stream, _remote| {
        let (plane, tls, stop) = (Arc::clone(&plane), tls.clone(), stop.clone());
        async move {
            match tls {
                None => connection(stream, plane, stop).await,
                Some(acceptor) => {
                    if let Some(stream) = acceptor.accept(stream).await {
                        connection(stream, plane, stop).await;
                    }
                }
            }
        }
    };
    door::accept(listener, &what, tasks, until, visit).await;
}

async fn connection<S>(stream: S, plane: Arc<Plane>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let until = stop.clone();
    let service = service_fn(move |request| {
        let (plane, stop) = (Arc::clone(&plane), stop.clone());
        async move { answered(&plane, request, &stop).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // What ends badly here was no client.
        ended = connection => ended.unwrap_or_default(),
        () = until.cancelled() => {}
    }
}

async fn answered(
    plane: &Plane,
    request: HttpRequest<Incoming>,
    stop: &CancellationToken,
) -> Result<Response<HttpBody>, HungUp> {
    let Some(mut request) = read(plane, request).await else {
        return Ok(response(Reply::nothing(413), false));
    };
    let call = plane.call(&request);
    let fault = plane.faults.rest(plane.vendor.profile(), call);
    let mut malformed = false;
    let reply = match fault {
        Some(RestFault::HangUp { done }) => {
            if done {
                plane.answer(&request);
            }
            plane.note(&request, call, None);
            return Err(HungUp);
        }
        Some(RestFault::Silence) => {
            plane.note(&request, call, None);
            stop.cancelled().await;
            return Err(HungUp);
        }
        Some(RestFault::Status {
            status,
            retry_after_s,
        }) => {
            let mut reply = plane.refusal(status);
            reply.retry_after = retry_after_s;
            reply
        }
        Some(RestFault::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            plane.answer(&request)
        }
        Some(RestFault::ExpiredToken) => {
            request.expired = true;
            plane.answer(&request)
        }
        Some(RestFault::Malformed) => {
            malformed = true;
            plane.answer(&request)
        }
        Some(RestFault::Oversized) => {
            let mut reply = plane.answer(&request);
            let padding = "x".repeat(OVERSIZED);
            reply.body = Body::Json(serde_json::json!({ "padding": padding }));
            reply
        }
        Some(RestFault::StuckStart) => {
            request.stuck = true;
            plane.answer(&request)
        }
        None => plane.answer(&request),
    };
    plane.note(&request, call, Some(reply.status));
    Ok(response(reply, malformed))
}

/// Reads a request; `None` if its body is too long or does not come.
async fn read(plane: &Plane, request: HttpRequest<Incoming>) -> Option<Request> {
    let (head, body) = request.into_parts();
    let bearer = head.headers.get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, BODY).collect());
    let body = collected.await.ok()?.ok()?.to_bytes();
    let path = head.uri.path();
    Some(Request {
        method: head.method.as_str().to_owned(),
        // What is not below the root of the API is nothing of it.
        path: path
            .strip_prefix(plane.vendor.root())
            .unwrap_or("/nothing")
            .to_owned(),
        query: head.uri.query().unwrap_or("").to_owned(),
        bearer: bearer.map(str::to_owned),
        body: body.to_vec(),
        expired: false,
        stuck: false,
    })
}

/// `reply` by HTTP; cut in the middle if it is to be `malformed`.
fn response(reply: Reply, malformed: bool) -> Response<HttpBody> {
    let (kind, mut text) = match reply.body {
        Body::Json(value) => ("application/json", value.to_string()),
        Body::Nothing => ("", String::new()),
        Body::Text(text) => ("text/html", text),
    };
    if malformed {
        // Half of nothing would be in order.
        text = if text.is_empty() {
            "{".to_owned()
        } else {
            half(&text)
        };
    }
    let mut response = Response::new(HttpBody::from(text));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !kind.is_empty() {
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    }
    if let Some(seconds) = reply.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The first half of `text`.
fn half(text: &str) -> String {
    text.chars().take(text.chars().count() / 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_no_json() {
        for text in [r#"{"a":"ä"}"#, "{}", "[1,2]"] {
            assert!(serde_json::from_str::<serde_json::Value>(&half(text)).is_err());
        }
    }
}
