//! `onair run`: the daemon. Configuration, supervisor, interrupt, drain; a report at the end if one is asked for.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::outcome::{self, Run};
use super::{clocks, print, signals};
use crate::cli;
use crate::config::load;
use crate::daemon::notify::Manager;
use crate::daemon::reload::Files;
use crate::daemon::{self, Daemon, Relapse};
use crate::feed::Budget;
use crate::media::time::MediaClock;
use crate::network;
use crate::recorder::Recorder;
use crate::status;
use crate::supervisor::Supervisor;

/// Runs until it is interrupted, or for `--for`.
pub async fn run(args: cli::Run, global: cli::Global) -> anyhow::Result<ExitCode> {
    // Before anything takes time: it would end a process that does not watch for it.
    let hangup = signals::hangup()?;
    let mut secrets = load::Secrets::new(args.config.clone());
    let mut files = Files::new(args.config);
    let config = files.read().config?;
    let stop = signals::watch()?;
    let mut recorder = Recorder::start(&config.daemon, move || secrets.renewed());
    let (began, wall) = clocks();
    let mut run = Run::new(began, wall);
    let clock = MediaClock::new(began, wall);
    let network = network::watch().await;
    let manager = Manager::from_environment();
    let budget = budget(manager.watchdog());
    let is_started_again = manager.is_there();
    let relapse = Relapse::read(config.daemon.state_dir.as_deref());
    let mut supervisor = Supervisor::start_within(budget, &config, clock, &network, global.seed())
        .context("cannot start")?;
    let view = supervisor.view();
    let look = move || view.overview();
    let mut daemon = Daemon::start_after(relapse.ends(), look, manager, &budget)
        .context("cannot start a watchdog")?;
    daemon.relieve(supervisor.view());
    recorder.follow(supervisor.view());

    let (health, requests) = (daemon.health(), daemon.requests());
    let status = &config.daemon.status;
    let status = status::Server::start(status, supervisor.view(), health, requests)
        .context("cannot start the status server")?;

    let over = CancellationToken::new();
    let lasting = async {
        let ended = tokio::select! {
            ended = run.last(&stop, args.extent.duration, || Ok(())) => ended,
            () = over.cancelled() => Ok(()),
        };
        over.cancel();
        ended
    };
    let tending = async {
        let ended = daemon
            .tend(&mut supervisor, files, args.watch, hangup, &over)
            .await;
        over.cancel();
        ended
    };
    let (lasted, stuck) = tokio::join!(lasting, tending);
    lasted?;

    let away = outcome::away(&supervisor.view().overview().feeds);
    let watches = supervisor.view().publishers();
    let at_end: BTreeMap<_, _> = watches
        .iter()
        .map(|(name, watch)| (name.clone(), watch.borrow().clone()))
        .collect();
    tracing::info!("draining");
    daemon.stopping(stuck.as_deref().unwrap_or("parting from the servers"));
    let (is_stuck, lived) = (stuck.is_some(), clocks().0.saturating_duration_since(began));
    // A disk that hangs holds nothing up.
    drop(tokio::task::spawn_blocking(move || {
        relapse.end(is_stuck, lived)
    }));
    match is_stuck && is_started_again {
        // A stream takes a minute to start, and the next process goes on with it.
        true => supervisor.hand_over().await,
        false => supervisor.drain().await,
    }
    recorder.finish().await;
    if let Some(status) = status {
        status.stop().await;
    }
    if stuck.is_some() {
        return Ok(ExitCode::from(daemon::STUCK));
    }
    let sessions = watches
        .iter()
        .map(|(name, watch)| outcome::session(name, &watch.borrow()));
    let mut reasons = outcome::off_air(&at_end);
    reasons.extend(away);
    let report = run.report(clocks().0, sessions.collect(), reasons);
    // A daemon that is told to stop has done its duty, on air or not; a run of a given extent is judged.
    if args.extent.report.is_none() && args.extent.duration.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    print(&outcome::summary(&report))?;
    outcome::conclude(&report, args.extent.report.as_deref())
}

/// The stages' share of the time within which the service manager wants to hear that all is well.
fn budget(watchdog: Option<Duration>) -> Budget {
    let fits = watchdog.map_or_else(|| Some(Budget::default()), Budget::within);
    fits.unwrap_or_else(|| {
        tracing::warn!(
            "WatchdogSec= is shorter than {} s, the least in which a device can be given up in order; a slow device \
             may cost a restart",
            Budget::LEAST.as_secs()
        );
        Budget::default()
    })
}
