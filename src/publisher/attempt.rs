//! One attempt at being on air: the platform makes the stream ready where there is one, a session runs, and at a
//! parting the stream is given back. Runs in a task of its own.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::server::Signallers;
use crate::account::{Lease, Ready, Release};
use crate::config::Server;
use crate::net::{self, Dialer};
use crate::platform;
use crate::session::{self, EndReason, Ended, Progress, Telemetry};
use crate::signal::{self, Dialect, Parting, Signaller};

/// What outlives a session and goes into the next.
pub(super) struct Kept {
    /// It lives on, for a dialect may have to keep a refused socket (see `signal::ome`).
    pub(super) signaller: Option<Box<dyn Signaller>>,
    /// The server that the signaller speaks to.
    pub(super) server: Server,
    /// How it is reached, which is not how its platform is.
    pub(super) dialer: Option<Dialer>,
    /// The stream at its platform.
    pub(super) lease: Option<Lease>,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) kept: Kept,
    /// How the session ended; `None` if there was none to begin with.
    pub(super) ended: Option<Ended>,
    /// The stream was given back, or it was tried.
    pub(super) given: bool,
    /// No media path came up, whatever else is said of the end.
    pub(super) unreached: bool,
}

/// What an attempt needs, besides what is kept.
pub(super) struct Attempt {
    pub(super) parameters: session::Parameters,
    pub(super) signallers: Signallers,
    pub(super) telemetry: watch::Sender<Telemetry>,
    /// Ends the session in order.
    pub(super) part: CancellationToken,
    /// How the stream is given back when the publisher ends.
    pub(super) ends: Arc<OnceLock<Release>>,
    /// The dialect to name where none was spoken.
    pub(super) dialect: Dialect,
}

impl Attempt {
    /// Runs until the session has ended, and the stream is given back if it was told to part.
    pub(super) async fn run(mut self, mut kept: Kept) -> Outcome {
        let mut doubt = None;
        let mut ended = self.session(&mut kept, &mut doubt).await;
        let given = self.part.is_cancelled();
        let unreached = matches!(ended.reason, EndReason::NeverConnected { .. });
        // A server that the platform did not vouch for tells less than the platform's own words.
        if let Some(doubt) = doubt
            && !matches!(ended.progress, Progress::OnAir { .. })
            && !matches!(ended.reason, EndReason::Stopped)
        {
            ended.reason = doubt.into();
        }
        if let Some(lease) = &mut kept.lease {
            lease.session_ended(matches!(ended.progress, Progress::OnAir { .. }));
            if given {
                lease.release(release(&self.ends)).await;
            }
        }
        Outcome {
            kept,
            ended: Some(ended),
            given,
            unreached,
        }
    }

    /// Until its end. `doubt` is why the platform did not vouch for the server, if it did not.
    async fn session(&mut self, kept: &mut Kept, doubt: &mut Option<platform::Error>) -> Ended {
        if let Some(lease) = &mut kept.lease {
            let ready = match self.part.run_until_cancelled(lease.ready()).await {
                None => return self.nothing(EndReason::Stopped),
                Some(Err(error)) => return self.nothing(error.into()),
                Some(Ok(ready)) => ready,
            };
            let Ready {
                server,
                doubt: said,
            } = ready;
            *doubt = said;
            if server != kept.server {
                if let Some(mut former) = kept.signaller.take() {
                    former.close(Parting::Abandon).await;
                }
                kept.server = server;
                kept.dialer = None;
            }
        }
        if let Err(error) = self.reach(kept) {
            return self.nothing(signal::Error::Connect(error).into());
        }
        let signaller = match &mut kept.signaller {
            Some(signaller) => signaller,
            none => match self.new_signaller(&kept.server) {
                Ok(new) => none.insert(new),
                Err(error) => return self.nothing(signal::Error::Connect(error).into()),
            },
        };
        let session = session::run(
            &self.parameters,
            signaller.as_mut(),
            &self.telemetry,
            &self.part,
        );
        match &mut kept.lease {
            None => session.await,
            Some(lease) => {
                let telemetry = self.telemetry.clone();
                tokio::select! {
                    ended = session => ended,
                    never = lease.attend(move || on_air_for(&telemetry.borrow())) => match never {},
                }
            }
        }
    }

    /// Pins and the like hold for the host of the server, whoever named it.
    fn reach(&mut self, kept: &mut Kept) -> Result<(), net::Error> {
        let dialer = match kept.dialer.take() {
            Some(known) => known,
            None => self.signallers.dialer(&kept.server)?,
        };
        self.parameters.dialer = dialer.clone();
        kept.dialer = Some(dialer);
        Ok(())
    }

    fn new_signaller(&mut self, server: &Server) -> Result<Box<dyn Signaller>, net::Error> {
        let dialer = self.parameters.dialer.clone();
        let signaller = self.signallers.signaller(server, dialer);
        signaller.ok_or_else(|| net::Error::Url {
            why: "the platform named no server; look at the stream with `onair stream status`"
                .to_owned(),
        })
    }

    const fn nothing(&self, reason: EndReason) -> Ended {
        Ended {
            reason,
            progress: Progress::Signalling,
            dialect: self.dialect,
        }
    }
}

/// Gives the stream back with no session running.
pub(super) async fn give_back(mut kept: Kept, ends: Arc<OnceLock<Release>>) -> Outcome {
    if let Some(idle) = &mut kept.signaller {
        // It may know of a session that it could not end.
        idle.close(Parting::Stop).await;
    }
    if let Some(lease) = &mut kept.lease {
        lease.release(release(&ends)).await;
    }
    Outcome {
        kept,
        ended: None,
        given: true,
        unreached: false,
    }
}

/// A publisher that does not end is off the air for a while.
fn release(ends: &OnceLock<Release>) -> Release {
    ends.get().copied().unwrap_or(Release::Close)
}

fn on_air_for(telemetry: &Telemetry) -> Option<Duration> {
    match telemetry.progress {
        Progress::OnAir { since, .. } => Some(now().saturating_duration_since(since)),
        Progress::Connecting | Progress::Sending | Progress::Signalling => None,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
