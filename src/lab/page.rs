//! The lab's page: every session with its live picture, its messages and its verdict, in one file without
//! external assets.
//!
//! | route | what |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /v1/sessions` | all sessions that are kept, oldest first, and the verdict over all |
//! | `GET /v1/sessions/{session}/messages?from=N` | signalling messages from number N on |
//! | `POST /whep/{session}` | an SDP offer for a session's media; answered with 201 and the answer |
//! | `DELETE /whep/{session}/{viewer}` | that viewer leaves |
//!
//! Everything is read-only towards the publisher, except that a viewer asks it for key frames.

use std::net::IpAddr;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::delete;
use axum::routing::get;
use axum::routing::post;
use serde::Deserialize;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::report::Verdict;

use super::hub;
use super::hub::Hub;
use super::hub::Message;
use super::hub::SessionId;
use super::hub::Snapshot;
use super::whep::Refused;
use super::whep::Viewers;

/// The page itself.
const PAGE: &str = include_str!("page.html");
/// What the page may do: its own script and style, its own server, and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
/// An SDP offer of a browser with every codec it knows is a tenth of this.
const OFFER_BYTES: usize = 64 * 1024;

/// The page's routes for the sessions of `hub`. Viewers get their media from UDP ports on `media_ip`; they end
/// when `stop` is cancelled, and `tasks` can wait for them.
pub fn router(hub: Hub, media_ip: IpAddr, tasks: TaskTracker, stop: CancellationToken) -> Router {
    let viewers = Viewers::new(hub.clone(), media_ip, tasks, stop);
    let sessions = Router::new()
        .route("/", get(page))
        .route("/v1/sessions", get(sessions))
        .route("/v1/sessions/{session}/messages", get(messages))
        .with_state(hub);
    let whep = Router::new()
        .route("/whep/{session}", post(watch))
        .route("/whep/{session}/{viewer}", delete(leave))
        .layer(DefaultBodyLimit::max(OFFER_BYTES))
        .with_state(viewers);
    sessions.merge(whep)
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, PAGE)
}

#[derive(Serialize)]
struct Sessions {
    /// `null` until a session is on air or over.
    verdict: Option<Verdict>,
    sessions: Vec<Snapshot>,
}

async fn sessions(State(hub): State<Hub>) -> Response {
    let sessions = hub.sessions();
    let judged = |s: &&Snapshot| s.state >= hub::State::OnAir || s.verdict == Verdict::Fail;
    let verdict = sessions
        .iter()
        .filter(judged)
        .map(|session| session.verdict)
        .min_by_key(|verdict| *verdict == Verdict::Pass);
    let body = Json(Sessions { verdict, sessions });
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}

#[derive(Deserialize)]
struct From {
    #[serde(default)]
    from: u64,
}

async fn messages(
    State(hub): State<Hub>,
    Path(session): Path<u64>,
    Query(From { from }): Query<From>,
) -> Result<Json<Vec<Message>>, StatusCode> {
    hub.messages(SessionId(session), from)
        .map(Json)
        .ok_or(StatusCode::NOT_FOUND)
}

async fn watch(
    State(viewers): State<Viewers>,
    Path(session): Path<u64>,
    offer: String,
) -> Result<Response, Refused> {
    let admitted = viewers.admit(SessionId(session), &offer).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/sdp".to_owned()),
        (
            header::LOCATION,
            format!("/whep/{session}/{}", admitted.viewer),
        ),
    ];
    Ok((StatusCode::CREATED, headers, admitted.answer).into_response())
}

async fn leave(
    State(viewers): State<Viewers>,
    Path((session, viewer)): Path<(u64, u64)>,
) -> StatusCode {
    if viewers.leave(SessionId(session), viewer) {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Offer(_) => StatusCode::BAD_REQUEST,
            Self::Socket(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UnknownSession => StatusCode::NOT_FOUND,
        };
        (status, self.to_string()).into_response()
    }
}
