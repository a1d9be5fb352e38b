//! `onair lab`: the strict ingest server alone, for any publisher.

use std::process::ExitCode;

use anyhow::Context as _;

use super::outcome::{self, Run};
use super::{clocks, print, signals};
use crate::cli;
use crate::lab::{Lab, LabConfig, Mutation, Profile};
use crate::media::time::MediaClock;

/// Serves until it is interrupted, or for `--for`; the verdict is on the publishers that came.
pub async fn run(args: cli::Lab, _global: cli::Global) -> anyhow::Result<ExitCode> {
    let stop = signals::watch()?;
    let (began, wall) = clocks();
    let mut run = Run::new(began, wall);
    let profiles: Vec<Profile> = args
        .profiles
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()?;
    let mut config = LabConfig::new(profiles.clone(), MediaClock::new(began, wall));
    config.listen = args.listen;
    config.media_ip = args.listen.ip();
    let mutation = args
        .mutation
        .as_deref()
        .map(str::parse::<Mutation>)
        .transpose();
    config.mutation = mutation.map_err(anyhow::Error::msg)?;
    let lab = Lab::start(config).await.context("cannot start the lab")?;
    for profile in profiles {
        if let Some(endpoint) = lab.endpoint(profile) {
            print(&format!("lab {profile} {}\n", endpoint.url))?;
        }
    }
    print(&format!("page {}\n", lab.page_url()))?;

    run.last(&stop, args.extent.duration, || Ok(())).await?;

    let hub = lab.hub().clone();
    lab.stop().await;
    let sessions = hub.report();
    let mut reasons = hub.reasons();
    if sessions.is_empty() {
        reasons.push("nobody published".to_owned());
    }
    let report = run.report(clocks().0, sessions, reasons);
    print(&outcome::summary(&report))?;
    outcome::conclude(&report, args.extent.report.as_deref())
}
