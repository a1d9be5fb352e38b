//! `onair run`: the daemon. Configuration, supervisor, interrupt, drain; a report at the end if one is asked for.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;

use super::outcome::{self, Run};
use super::{clocks, print, signals};
use crate::cli;
use crate::config::load;
use crate::media::time::MediaClock;
use crate::network;
use crate::recorder::Recorder;
use crate::supervisor::Supervisor;

/// Runs until it is interrupted, or for `--for`.
pub async fn run(args: cli::Run, global: cli::Global) -> anyhow::Result<ExitCode> {
    let config = load::load(&args.config, load::Scope::Everything)?;
    let stop = signals::watch()?;
    let mut recorder = Recorder::start(&config.daemon, load::secrets(&args.config).secrets);
    let (began, wall) = clocks();
    let mut run = Run::new(began, wall);
    let clock = MediaClock::new(began, wall);
    let network = network::watch().await;
    let supervisor =
        Supervisor::start(&config, clock, &network, global.seed()).context("cannot start")?;
    recorder.follow(supervisor.view());

    run.last(&stop, args.extent.duration, || Ok(())).await?;

    let watches = supervisor.view().publishers();
    let at_end: BTreeMap<_, _> = watches
        .iter()
        .map(|(name, watch)| (name.clone(), watch.borrow().clone()))
        .collect();
    tracing::info!("draining");
    supervisor.drain().await;
    recorder.finish().await;
    let sessions = watches
        .iter()
        .map(|(name, watch)| outcome::session(name, &watch.borrow()));
    let report = run.report(clocks().0, sessions.collect(), outcome::off_air(&at_end));
    // A daemon that is told to stop has done its duty, on air or not; a run of a given extent is judged.
    if args.extent.report.is_none() && args.extent.duration.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    print(&outcome::summary(&report))?;
    outcome::conclude(&report, args.extent.report.as_deref())
}
