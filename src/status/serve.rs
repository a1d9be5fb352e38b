//! Connections: how many, how long, how large; all small, since nobody needs more.
//!
//! Whoever comes is taken at once. If there are too many, the one that has been silent longest is cut: visitors who
//! ask do so within moments, so that whoever holds connections and says nothing holds up nobody. They are not counted
//! by address, for behind a proxy, and on this host, all have the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{END_WITHIN, Shared, routes};

/// Connections at a time; for whoever comes next one is cut.
const CONNECTIONS: usize = 32;
/// How long one connection lives: one request and its answer, read however slowly.
const EXCHANGE: Duration = Duration::from_secs(15);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// Largest head of a request.
const HEAD_BYTES: usize = 16 * 1024;
/// Most headers in it.
const HEADERS: usize = 64;
/// Pause before an address that cannot be had is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be taken: out of file descriptors, which passes.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// One who is there, in the order of coming.
struct Visitor {
    /// All of the request's head has come.
    has_asked: Arc<AtomicBool>,
    visit: AbortHandle,
}

/// Answers whoever comes to `listen`, until `stop`. Says in `bound` where that is, once it is so.
pub(super) async fn serve(
    listen: SocketAddr,
    shared: Arc<Shared>,
    bound: watch::Sender<Option<SocketAddr>>,
    stop: CancellationToken,
) {
    let visitors = TaskTracker::new();
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept(listen, shared, bound, &visitors) => {}
    }
    visitors.close();
    if tokio::time::timeout(END_WITHIN, visitors.wait())
        .await
        .is_err()
    {
        tracing::debug!("visitors of the status server were cut off");
    }
}

async fn accept(
    listen: SocketAddr,
    shared: Arc<Shared>,
    bound: watch::Sender<Option<SocketAddr>>,
    visitors: &TaskTracker,
) {
    let listener = bind(listen).await;
    if let Ok(address) = listener.local_addr() {
        tracing::info!("status at http://{address}/");
        bound.send_replace(Some(address));
    }
    let router = routes::router(shared);
    let mut present: Vec<Visitor> = Vec::with_capacity(CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a visitor of the status server was not taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        make_room(&mut present);
        let has_asked = Arc::new(AtomicBool::new(false));
        let visit = visit(stream, router.clone(), Arc::clone(&has_asked));
        present.push(Visitor {
            has_asked,
            visit: visitors.spawn(visit).abort_handle(),
        });
    }
}

/// Makes room for one more: who has asked is cut only where nobody is silent.
fn make_room(present: &mut Vec<Visitor>) {
    present.retain(|visitor| !visitor.visit.is_finished());
    if present.len() < CONNECTIONS {
        return;
    }
    let silent = |visitor: &Visitor| !visitor.has_asked.load(Ordering::Relaxed);
    let cut = present.remove(present.iter().position(silent).unwrap_or(0));
    cut.visit.abort();
    tracing::debug!("too many visitors of the status server: one was cut off for the next");
}

/// Binds the address, however long it takes for it to be there and free.
async fn bind(listen: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) if !said => {
                tracing::warn!(
                    "no status server yet: {listen} cannot be had ({error}); trying on. Another process may have it: \
                     see `listen` of [daemon.status]"
                );
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

async fn visit(stream: TcpStream, router: axum::Router, has_asked: Arc<AtomicBool>) {
    let answers = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        answers.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(EXCHANGE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a visitor of the status server left early"),
        Err(_) => tracing::debug!("a visitor of the status server was too slow"),
    }
}
