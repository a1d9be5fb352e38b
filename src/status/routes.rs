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
use super::reading::Reading;
use super::{Reload, Shared, metrics, now};
use crate::publisher::{Order, OrderError};

/// The page itself.
const PAGE: &str = include_str!("page.html");
/// What the page may do: its own script and style, its own server, and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
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
/// Longest wait for a configuration to be read and put in place.
const RELOAD_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .route("/v1/history", get(history))
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
    judged(&shared, &headers, |reading| {
        (reading.healthy, reading.health)
    })
}

async fn readyz(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    judged(&shared, &headers, |reading| {
        (reading.ready, reading.readiness)
    })
}

/// A judgement as status code, and in words for those who may know more.
fn judged(
    shared: &Shared,
    headers: &HeaderMap,
    judge: impl Fn(Reading) -> (bool, String),
) -> Response {
    let (good, words) = match read(shared) {
        Some(reading) => judge(reading),
        None => (false, "nothing has been looked at yet".to_owned()),
    };
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
    shared.latest().as_ref().map(|latest| latest.as_of(now()))
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    let Some(Ok(text)) = read(&shared).map(metrics::text) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    match read(&shared) {
        Some(reading) => Json(reading).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
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
    let order = match order.as_str() {
        "restart" => Order::Restart,
        "start" => Order::Start,
        "stop" => Order::Stop,
        _ => {
            return done(
                StatusCode::NOT_FOUND,
                "the orders are restart, start and stop",
            );
        }
    };
    match shared.view.order(&name, order) {
        Ok(()) => {
            tracing::info!(publisher = name, ?order, "ordered over the status server");
            done(StatusCode::ACCEPTED, "the publisher was told")
        }
        Err(error @ OrderError::Unknown) => done(StatusCode::NOT_FOUND, error.to_string()),
        Err(error @ OrderError::Busy) => done(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn reload(State(shared): State<Arc<Shared>>) -> Response {
    let Some(reload) = &shared.reload else {
        return done(
            StatusCode::NOT_IMPLEMENTED,
            "this process does not read its configuration again",
        );
    };
    let (answer, answered) = oneshot::channel();
    if reload.try_send(Reload { answer }).is_err() {
        return done(
            StatusCode::CONFLICT,
            "a reload is under way; ask again when it is done",
        );
    }
    match tokio::time::timeout(RELOAD_WITHIN, answered).await {
        Ok(Ok(Ok(words))) => done(StatusCode::OK, words),
        Ok(Ok(Err(words))) => done(StatusCode::UNPROCESSABLE_ENTITY, words),
        Ok(Err(_)) => done(StatusCode::SERVICE_UNAVAILABLE, "the process is ending"),
        Err(_) => done(
            StatusCode::ACCEPTED,
            "still at it; see the log for what becomes of it",
        ),
    }
}
