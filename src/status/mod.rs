//! Seeing it: health, metrics, status, a page and a little control, over HTTP on this host.
//!
//! | route | what |
//! |---|---|
//! | `GET /healthz` | 200 unless something is stuck, else 503; in words |
//! | `GET /readyz` | 200 if every publisher that is to be on air is, else 503; in words, also who is off the air on purpose, why and until when |
//! | `GET /metrics` | Prometheus and OpenMetrics |
//! | `GET /v1/status` | a [`Reading`] as JSON |
//! | `GET /v1/history?from=N` | the last five minutes, a point a second, from point N on |
//! | `GET /v1/feeds/{name}/picture` | the last key frame, small, if the configuration lets it be shown |
//! | `POST /v1/publishers/{name}/restart` | begins it anew; also `stop` (off air until told otherwise) and `start`. Restart and start open a lost microphone with `after_loss = "silence"` again |
//! | `POST /v1/reload` | the configuration is read again |
//! | `GET /` | all of it for people, in one page |
//!
//! It has a thread and a runtime of its own, and looks at the rest once a second, whoever asks: no number of visitors
//! and no slow one costs media anything, and it answers even if all else hangs; what it answers then is that the last
//! look is too old. It never ends the process either: an address that is in use, or not there yet, is tried again.

mod counts;
mod guard;
mod history;
mod metrics;
mod picture;
mod reading;
mod routes;
mod serve;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use reading::{Reading, SCHEMA};

use history::History;
use picture::Pictures;
use reading::Latest;

use crate::config;
use crate::config::secret::Secret;
use crate::daemon::Request;
use crate::health::Health;
use crate::process;
use crate::publisher::Snapshot;
use crate::supervisor::View;

/// Longest wait for visitors at the end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The running server. Dropping it ends it without waiting.
#[derive(Debug)]
#[must_use]
pub struct Server {
    stop: CancellationToken,
    address: watch::Receiver<Option<SocketAddr>>,
    /// Says nothing, and is gone when the thread has done its work.
    ended: oneshot::Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

/// The publishers that run, by name.
type Publishers = BTreeMap<String, watch::Receiver<Snapshot>>;

/// What the visitors share.
struct Shared {
    view: View,
    token: Option<Secret>,
    health: watch::Receiver<Health>,
    requests: mpsc::Sender<Request>,
    latest: Mutex<Option<Latest>>,
    /// `None` if they are not to be seen.
    pictures: Option<Pictures>,
    history: Mutex<History>,
}

impl Server {
    /// Starts to look at what `view` shows and to answer whoever asks; `None` if `config` wants no server. `health` is
    /// the judgement as it is renewed, and `requests` takes what is asked for.
    ///
    /// # Errors
    /// If the system gives no thread. An address that cannot be had is no error: it is tried again.
    pub fn start(
        config: &config::Status,
        view: View,
        health: watch::Receiver<Health>,
        requests: mpsc::Sender<Request>,
    ) -> std::io::Result<Option<Self>> {
        let Some(listen) = config.listen else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            view,
            token: config.token.clone(),
            health,
            requests,
            latest: Mutex::default(),
            pictures: config.picture.then(Pictures::default),
            history: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (bound, address) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let stopped = stop.clone();
        let work = move || {
            runtime.spawn(look(Arc::clone(&shared), now()));
            runtime.block_on(serve::serve(listen, shared, bound, stopped));
            // A look that hangs is left behind.
            runtime.shutdown_background();
            drop(end);
        };
        let thread = std::thread::Builder::new()
            .name("status".to_owned())
            .spawn(work)?;
        Ok(Some(Self {
            stop,
            address,
            ended,
            thread: Some(thread),
        }))
    }

    /// Where it listens, once it does.
    pub fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.clone()
    }

    /// Ends it; whoever is being answered has a moment for it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(END_WITHIN * 2, &mut self.ended).await;
        if let (Ok(_), Some(thread)) = (ended, self.thread.take()) {
            // Joining takes no time now; a panic in it was logged where it happened.
            drop(thread.join());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn latest(&self) -> MutexGuard<'_, Option<Latest>> {
        // A panic elsewhere leaves facts, not broken promises, so poison is ignored.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at everything once a second, for ever.
async fn look(shared: Arc<Shared>, began: Instant) {
    let mut tick = tokio::time::interval(history::EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Publishers::new();
    loop {
        tick.tick().await;
        let view = shared.view.clone();
        // It takes locks, which a part that hangs may hold for ever.
        let read = move || {
            let (mut overview, publishers) = (view.overview(), view.publishers());
            // Those of the same moment as the list.
            let now = |(name, watch): (&String, &watch::Receiver<Snapshot>)| {
                (name.clone(), watch.borrow().clone())
            };
            overview.publishers = publishers.iter().map(now).collect();
            (overview, publishers, process::read().unwrap_or_default())
        };
        let Ok((overview, publishers, process)) = tokio::task::spawn_blocking(read).await else {
            continue;
        };
        let (now, wall) = (now(), shared.view.wall());
        let health = shared.health.borrow().clone();
        let mut history = shared.history();
        for (name, watch) in &publishers {
            if let Some(other) = before.get(name)
                && !watch.same_channel(other)
            {
                history.replaced(name, &other.borrow());
            }
        }
        before = publishers;
        history.note(now, &overview);
        let reading = Reading::new(now, wall, began, &overview, &history, &health, process);
        let pictures = shared.pictures.is_some();
        drop(history);
        let reading = Reading {
            pictures,
            ..reading
        };
        *shared.latest() = Some(Latest { at: now, reading });
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
