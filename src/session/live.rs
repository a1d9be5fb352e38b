//! A session while media flows: media out, events in, and what is to be done when the path is lost.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::acceptance::{self, Acceptance};
use super::gate::Gate;
use super::ground::{Change, Ground};
use super::outage::Outage;
use super::rate::Rate;
use super::talk::{Heard, Talk};
use super::{
    EndReason, LOOK_EVERY, Parameters, Progress, Telemetry, add_candidates, is_found, note, now,
};
use crate::feed::Subscription;
use crate::media::access_unit::{AccessUnit, Track};
use crate::network::Network;
use crate::peer::{self, Peer};
use crate::signal::{self, Dialect, RemoteDescription};

/// How long a restart of ICE may take, the exchange and the search together.
const RESTART_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether the path to the server still stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Kept,
    Lost,
}

/// A restart of ICE under way, from asking for it to another path.
struct Restart {
    /// What it is to mend.
    cause: EndReason,
    /// When it counts as failed.
    ends: Instant,
}

/// The session while media flows.
pub(super) struct Live<'a> {
    subscription: Subscription,
    telemetry: &'a watch::Sender<Telemetry>,
    gate: Gate,
    /// What the gate has let through and the connection had no room for yet.
    pending: VecDeque<AccessUnit>,
    rate: Option<Rate>,
    acceptance: acceptance::Watch,
    progress: Progress,
    pub(super) frames_sent: u64,
    outage: Outage,
    restart: Option<Restart>,
    network: watch::Receiver<Network>,
    ground: Ground,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        parameters: &Parameters,
        telemetry: &'a watch::Sender<Telemetry>,
        (mut network, stood_in): (watch::Receiver<Network>, Network),
        dialect: Dialect,
    ) -> Self {
        // What has changed since the sockets were bound is looked at first.
        let ground = Ground::new(stood_in);
        network.mark_changed();
        let tracks = parameters.feed.tracks();
        let subscription = parameters.feed.subscribe();
        subscription.request_key_frame();
        telemetry.send_modify(|t| t.progress = Progress::Sending);
        Self {
            subscription,
            telemetry,
            gate: Gate::new(tracks.video.is_some(), tracks.audio.is_some()),
            pending: VecDeque::new(),
            rate: tracks.video.map(|video| Rate::new(video.max_bitrate)),
            acceptance: acceptance::Watch::new(now(), parameters.feed.budget().accepted),
            progress: Progress::Sending,
            frames_sent: 0,
            outage: Outage::none(dialect),
            restart: None,
            network,
            ground,
        }
    }

    pub(super) async fn run(
        &mut self,
        peer: &mut Peer,
        events: &mut mpsc::Receiver<peer::Event>,
        talk: &mut Talk<'_>,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, EndReason> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let room = peer.has_room();
            if let Some(rate) = &mut self.rate {
                rate.waits(now(), !room);
            }
            let taken = self.outage.takes_media();
            // Biased: control before media, so that a flood of frames can never starve a stop or an error.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(EndReason::Stopped),
                event = events.recv() => match event {
                    Some(peer::Event::Candidates { lines, last }) => talk.trickle(lines, last),
                    // Of the old path, which came back meanwhile.
                    Some(peer::Event::Connected(_))
                        if self.restart.is_some() && (talk.is_restarting() || !is_found(peer)) => {}
                    event => if self.on_event(event)? == Path::Lost {
                        self.move_on(peer, talk, EndReason::Lost).await?;
                    },
                },
                Ok(()) = self.network.changed() => {
                    let network = self.network.borrow_and_update().clone();
                    let local = peer.counters().pair.map(|pair| pair.leaves_from);
                    if let Some(reason) = local.and_then(|local| self.moved(network, local)) {
                        self.move_on(peer, talk, reason).await?;
                    }
                }
                heard = talk.next() => match heard? {
                    Heard::Candidates(candidates) => add_candidates(peer, &candidates).await?,
                    Heard::Restarted(answer) => self.restarted(peer, answer).await?,
                },
                _ = look.tick() => if self.look(peer)? == Path::Lost {
                    self.move_on(peer, talk, EndReason::Lost).await?;
                },
                // What waits for room waits here and not in sending, which would hold up all the others.
                () = peer.room(), if !room && taken => {}
                () = std::future::ready(()), if room && taken && !self.pending.is_empty() => {
                    if self.send(peer).await? == Path::Lost {
                        self.move_on(peer, talk, EndReason::Lost).await?;
                    }
                }
                unit = self.subscription.next(), if room || !taken => {
                    let unit = unit.ok_or(EndReason::FeedEnded)?;
                    // Until there is room or another path, what is meant for this one is dropped.
                    if !taken {
                        self.pending.clear();
                        continue;
                    }
                    let passed = self.gate.pass(unit);
                    if passed.wants_key_frame {
                        self.subscription.request_key_frame();
                    }
                    self.pending.extend(passed.units);
                }
            }
        }
    }

    /// Sends the first of what is pending.
    async fn send(&mut self, peer: &mut Peer) -> Result<Path, EndReason> {
        let Some(unit) = self.pending.pop_front() else {
            return Ok(Path::Kept);
        };
        if unit.track == Track::Video {
            self.frames_sent += 1;
            if let Some(rate) = &mut self.rate {
                rate.sent(unit.data.len());
            }
        }
        match peer.send(&unit).await {
            Err(peer::Error::Stalled { after }) => {
                self.outage.full(now(), after);
                match self.is_lost() {
                    true => Ok(Path::Lost),
                    false => Ok(Path::Kept),
                }
            }
            sent => sent.map(|()| Path::Kept).map_err(EndReason::Engine),
        }
    }

    /// What the change to `network` means for a path whose packets leave from `local`: why it must be left, if so.
    fn moved(&mut self, network: Network, local: IpAddr) -> Option<EndReason> {
        match self.ground.change(network, local) {
            Change::Back => {
                tracing::info!("there is a way out of this host again");
                self.outage.again(now());
                self.is_lost().then_some(EndReason::Lost)
            }
            Change::Left(what) => {
                tracing::info!(what, "the network changed under the session");
                Some(EndReason::NetworkChanged { what })
            }
            Change::None => None,
            Change::Stranded => {
                tracing::warn!("there is no way out of this host; holding still until there is");
                None
            }
        }
    }

    /// The path is lost for `reason`: ICE is restarted in place where the dialect can, or else the session ends. Media goes
    /// on over what there is while the server is asked.
    async fn move_on(
        &mut self,
        peer: &Peer,
        talk: &mut Talk<'_>,
        reason: EndReason,
    ) -> Result<(), EndReason> {
        let elsewhere = matches!(reason, EndReason::NetworkChanged { .. });
        // One restart at a time; one that leads nowhere is the end.
        if self.restart.is_some() || !talk.can_restart(elsewhere) {
            return Err(reason);
        }
        let Ok(offer) = peer.restart().await else {
            return Err(reason);
        };
        tracing::info!(cause = %reason, "restarting ICE");
        note("our offer, to restart", &offer);
        talk.restart(offer);
        self.restart = Some(Restart {
            cause: reason,
            ends: now() + RESTART_TIMEOUT,
        });
        Ok(())
    }

    /// Takes the server's answer to a restart.
    async fn restarted(
        &mut self,
        peer: &Peer,
        answer: Result<RemoteDescription, signal::Error>,
    ) -> Result<(), EndReason> {
        let answer = answer.map_err(|error| {
            tracing::warn!(%error, "the server does not restart ICE");
            self.restart_failed()
        })?;
        note("the server's answer, to restart", &answer.sdp);
        peer.accept(&answer.sdp).await.map_err(EndReason::Engine)?;
        add_candidates(peer, &answer.candidates).await
    }

    /// Whether the path is lost, and nothing under way yet that could mend it: a restart has its own deadline.
    fn is_lost(&self) -> bool {
        let stranded = self.ground.is_stranded();
        self.restart.is_none() && self.outage.is_loss(now(), stranded)
    }

    /// The end that the restart was to spare us.
    fn restart_failed(&mut self) -> EndReason {
        let restart = self.restart.take();
        restart.map_or(EndReason::Lost, |restart| restart.cause)
    }

    fn on_event(&mut self, event: Option<peer::Event>) -> Result<Path, EndReason> {
        match event {
            Some(peer::Event::Connected(pair)) => {
                if self.restart.take().is_some() {
                    tracing::info!(%pair, "ICE is restarted");
                    let network = self.network.borrow().to_string();
                    self.telemetry.send_modify(|t| t.network = network);
                    self.subscription.request_key_frame();
                }
                if !self.outage.takes_media() {
                    self.subscription.request_key_frame();
                }
                self.outage.over();
            }
            Some(peer::Event::Disconnected) => self.outage.silent(now()),
            Some(peer::Event::Failed(_)) if self.restart.is_some() => {}
            // What broke while there was no way out is found again when there is one.
            Some(peer::Event::Failed(_)) if self.ground.is_stranded() => self.outage.broken(),
            Some(peer::Event::Failed(_)) => return Ok(Path::Lost),
            Some(peer::Event::Closed) | None => return Err(EndReason::Lost),
            // The caller's.
            Some(peer::Event::Candidates { .. }) => {}
            Some(peer::Event::KeyFrameRequested) => self.subscription.request_key_frame(),
            Some(peer::Event::ReceiverReport(report)) => {
                self.acceptance
                    .report(now(), report.track, report.highest_sequence);
                if let (Track::Video, Some(rate), Some(loss)) =
                    (report.track, &mut self.rate, report.fraction_lost)
                {
                    rate.loss(now(), f64::from(loss));
                }
                self.judge()?;
            }
            Some(peer::Event::Remb(bitrate)) => {
                if let Some(rate) = &mut self.rate {
                    rate.remb(now(), bitrate);
                }
            }
        }
        Ok(Path::Kept)
    }

    /// Looks at what no event announces.
    fn look(&mut self, peer: &Peer) -> Result<Path, EndReason> {
        let ends = self.restart.as_ref().map(|restart| restart.ends);
        if ends.is_some_and(|at| now() >= at) {
            return Err(self.restart_failed());
        }
        if self.outage.is_full() && peer.has_room() {
            tracing::info!("the connection takes media again");
            self.outage.drained();
            // What was dropped meanwhile is missing to every picture until then.
            self.subscription.request_key_frame();
        }
        // A TCP connection that takes nothing any more: often it is known here first.
        if self.outage.takes_media()
            && let Some(long) = peer.stalled()
        {
            self.outage.full(now(), long);
        }
        if self.is_lost() {
            return Ok(Path::Lost);
        }
        if let Some(rate) = &mut self.rate {
            rate.set_max(self.subscription.max_bitrate());
            let dropped = self.subscription.counters().video.dropped;
            rate.look(now(), peer.backlog(), dropped);
            let target = rate.target(now());
            self.subscription.set_bitrate(target);
            peer.expect(target);
        }
        self.telemetry.send_modify(|t| {
            t.peer = Some(peer.counters());
            t.climbs = peer.climbs();
            t.frames_sent = self.frames_sent;
        });
        self.judge()?;
        Ok(Path::Kept)
    }

    fn judge(&mut self) -> Result<(), EndReason> {
        let confirmed = match self.acceptance.acceptance(now()) {
            Acceptance::Confirmed => true,
            Acceptance::Unconfirmed => false,
            Acceptance::Pending => return Ok(()),
            Acceptance::Stuck => return Err(EndReason::NotAccepted),
        };
        let since = match self.progress {
            Progress::OnAir {
                confirmed: same, ..
            } if same == confirmed => return Ok(()),
            Progress::OnAir { since, .. } => since,
            Progress::Connecting | Progress::Sending | Progress::Signalling => now(),
        };
        if confirmed {
            tracing::info!("on air: the server's receiver reports advance");
        } else {
            tracing::warn!(
                "on air, unconfirmed: the server sends no receiver reports, only its transport is alive"
            );
        }
        self.progress = Progress::OnAir { since, confirmed };
        self.telemetry
            .send_modify(|t| t.progress = self.progress.clone());
        Ok(())
    }
}
