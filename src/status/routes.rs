//! The routes, and what each answers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::guard::{self, Asked, Matter, Refusal};
use super::picture::Missing;
use super::reading::Reading;
use super::{Shared, metrics, now};
use crate::daemon::{self, Command};

/// The page itself.
const PAGE: &str = include_str!("page.html");
/// What the page may do: its own script and style, its own server, and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What goes with every answer.
const ALWAYS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
/// What is said in the first moment.
const UNREAD: &str = "nothing has been looked at yet; ask again in a moment";
/// Longest wait for a command; less than a connection has.
const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(12);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .route("/v1/history", get(history))
        .route("/v1/feeds/{name}/picture", get(picture))
        .route("/v1/reload", post(reload))
        .route("/v1/publishers/{name}/{order}", post(order))
        .layer(from_fn_with_state(Arc::clone(&shared), guarded))
        .with_state(shared)
}

/// Turns away who may not ask, and adds what every answer has.
async fn guarded(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let matter = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/" | "/healthz" | "/readyz") => Matter::Open,
        (&Method::GET | &Method::HEAD, _) => Matter::State,
        _ => Matter::Control,
    };
    let asked = asked(request.headers());
    let mut response = match guard::admit(matter, &asked, shared.token.as_ref()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refused(refusal),
    };
    for (name, value) in ALWAYS {
        response
            .headers_mut()
            .insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn asked(headers: &HeaderMap) -> Asked<'_> {
    // A header that is no text is one that admits nobody.
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    Asked {
        host: text("host"),
        origin: text("origin"),
        site: text("sec-fetch-site"),
        authorization: text("authorization"),
    }
}

fn refused(refusal: Refusal) -> Response {
    let words = format!("{refusal}\n");
    match refusal {
        Refusal::CrossSite => (StatusCode::FORBIDDEN, words).into_response(),
        Refusal::Host => (StatusCode::MISDIRECTED_REQUEST, words).into_response(),
        Refusal::Token => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"onair\"")];
            (StatusCode::UNAUTHORIZED, challenge, words).into_response()
        }
    }
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE)
}

async fn healthz(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    // Not from the reading: the judgement is there even if the reading hangs.
    let health = shared.health.borrow().clone();
    let now = now();
    judged(&shared, &headers, health.is_good(now), health.words(now))
}

async fn readyz(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let (ready, words) = match read(&shared) {
        Some(reading) => (reading.ready, reading.readiness),
        None => (false, UNREAD.to_owned()),
    };
    judged(&shared, &headers, ready, words)
}

/// A judgement as status code, and in words for those who may know more.
fn judged(shared: &Shared, headers: &HeaderMap, good: bool, words: String) -> Response {
    let status = match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let words = match guard::admit(Matter::State, &asked(headers), shared.token.as_ref()) {
        Ok(()) => words,
        Err(_) if good => "yes".to_owned(),
        Err(_) => "no".to_owned(),
    };
    (status, words + "\n").into_response()
}

fn read(shared: &Shared) -> Option<Reading> {
    let health = shared.health.borrow().clone();
    let latest = shared.latest();
    latest.as_ref().map(|latest| latest.as_of(now(), &health))
}

/// The answer of the first moment.
fn unread() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, UNREAD).into_response()
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    let Some(Ok(text)) = read(&shared).map(metrics::text) else {
        return unread();
    };
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    match read(&shared) {
        Some(reading) => Json(reading).into_response(),
        None => unread(),
    }
}

#[derive(Deserialize)]
struct From {
    #[serde(default)]
    from: u64,
}

async fn history(State(shared): State<Arc<Shared>>, Query(From { from }): Query<From>) -> Response {
    Json(shared.history().points(from)).into_response()
}

async fn picture(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    let Some(pictures) = &shared.pictures else {
        let words = "pictures are not shown here: see `picture` of [daemon.status]";
        return (StatusCode::FORBIDDEN, words).into_response();
    };
    match pictures.latest(&shared.view, &name).await {
        Ok((of, bitmap)) => {
            let age = now().saturating_duration_since(of).as_secs();
            let headers = [
                (header::CONTENT_TYPE, "image/bmp".to_owned()),
                (header::AGE, age.to_string()),
            ];
            (headers, bitmap).into_response()
        }
        Err(missing) => {
            let status = match missing {
                Missing::Feed => StatusCode::NOT_FOUND,
                Missing::Picture => StatusCode::SERVICE_UNAVAILABLE,
                Missing::Undecodable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, missing.to_string()).into_response()
        }
    }
}

/// What became of a control.
#[derive(Serialize)]
struct Done {
    ok: bool,
    words: String,
}

fn done(status: StatusCode, words: impl Into<String>) -> Response {
    let done = Done {
        ok: status.is_success(),
        words: words.into(),
    };
    (status, Json(done)).into_response()
}

async fn order(
    State(shared): State<Arc<Shared>>,
    Path((name, order)): Path<(String, String)>,
) -> Response {
    if !shared.view.publishers().contains_key(&name) {
        return done(StatusCode::NOT_FOUND, "there is no publisher of this name");
    }
    let command = match order.as_str() {
        "restart" => Command::Restart(name),
        "start" => Command::Start(name),
        "stop" => Command::Stop(name),
        _ => {
            return done(
                StatusCode::NOT_FOUND,
                "the orders are restart, start and stop",
            );
        }
    };
    ask(&shared, command).await
}

async fn reload(State(shared): State<Arc<Shared>>) -> Response {
    ask(&shared, Command::Reload).await
}

/// Has a command carried out and tells what came of it.
async fn ask(shared: &Shared, command: Command) -> Response {
    tracing::info!("asked over HTTP: {command:?}");
    let (reply, replied) = oneshot::channel();
    if shared
        .requests
        .try_send(daemon::Request { command, reply })
        .is_err()
    {
        let words = "too much was asked before, or the process is ending; ask again in a moment";
        return done(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    match tokio::time::timeout(CARRIED_OUT_WITHIN, replied).await {
        Ok(Ok(Ok(words))) => done(StatusCode::OK, words),
        Ok(Ok(Err(words))) => done(StatusCode::CONFLICT, words),
        Ok(Err(_)) => done(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
        Err(_) => done(
            StatusCode::ACCEPTED,
            "still at it; the log says what becomes of it",
        ),
    }
}
