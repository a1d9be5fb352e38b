//! `onair run`: the daemon. Configuration, supervisor, signals, drain; a report at the end if one is asked for.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::outcome::{self, Run};
use super::{clocks, signals};
use crate::cli;
use crate::media::time::MediaClock;
use crate::supervisor::Supervisor;

/// Runs until a signal comes, or for `--for`.
pub async fn run(args: cli::Run, global: cli::Global) -> anyhow::Result<ExitCode> {
    let config = super::load_config(&args.config)?;
    let (began, wall) = clocks();
    let mut run = Run::new(began, wall);
    let supervisor = Supervisor::start(&config, MediaClock::new(began, wall), global.seed()).context("cannot start")?;
    let stop = signals::drain_on_signal();
    let deadline = super::deadline(global.duration);
    tokio::pin!(deadline);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = &mut deadline => break,
            _ = tick.tick() => run.sample(clocks().0),
        }
    }
    let watches = supervisor.publishers();
    let at_end: BTreeMap<_, _> = watches.iter().map(|(name, watch)| (name.clone(), watch.borrow().clone())).collect();
    tracing::info!("draining");
    supervisor.drain().await;
    let sessions = watches.iter().map(|(name, watch)| outcome::session(name, &watch.borrow())).collect();
    let report = run.report(clocks().0, sessions, outcome::off_air(&at_end));
    outcome::conclude(&report, global.report.as_deref())
}
