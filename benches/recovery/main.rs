//! `make recovery`: how long until back on air after a fault, a hundred seeded runs of each and more, as a table.
//!
//! Each run is an agent and a lab of its own in this process, over the real engine and real sockets, and the fault
//! comes at an instant of chance. The time counts from the instant at which the server could be published to again
//! (at which it listens, the hole is over, the name is free) to media accepted. Nothing is asserted: a shared machine
//! is noisy, a person reads it. What takes minutes is told on virtual time by [`told`]. What sticks for good does so in
//! the real program, run as its unit has it, and the time counts to the picture that is decoded: see [`stuck`].
//!
//! `cargo bench --bench recovery -- [WORDS] [--runs N] [--together N]` runs the faults whose names hold all words.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clocks and sleeps"
)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

mod fault;
mod held;
mod pair;
mod service;
mod stuck;
mod told;

use fault::Fault;
use stuck::Stuck;
use told::Told;

/// Runs of each fault.
const RUNS: u64 = 100;

/// Runs at the same time; each costs a twentieth of a core.
const TOGETHER: usize = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = Vec::new();
    let (mut runs, mut together) = (RUNS, TOGETHER);
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).context("a number");
        match arg.as_str() {
            "--runs" => runs = number()?,
            "--together" => together = usize::try_from(number()?)?,
            _ => words.push(arg),
        }
    }
    println!(
        "{:44} {:>5} {:>7} {:>7} {:>7}   back on air in ms, from when it is possible again",
        "fault", "runs", "p50", "p95", "max"
    );
    let wanted = |name: &str| words.iter().all(|word| name.contains(word));
    let mut rows = Vec::new();
    for fault in Fault::ALL {
        let name = fault.to_string();
        if wanted(&name) {
            let sample = sample(&name, runs, together, move |seed| fault.run(seed));
            rows.push(row(&name, sample.await?));
        }
    }
    for stuck in Stuck::ALL {
        let name = stuck.to_string();
        if wanted(&name) {
            let together = (together / stuck.cost()).max(1);
            let sample = sample(&name, runs, together, move |seed| stuck.run(seed));
            rows.push(row(&name, sample.await?));
        }
    }
    for told in Told::ALL {
        let name = told.to_string();
        if wanted(&name) {
            let sample = (0..runs * 10).map(|seed| told.run(seed).as_millis() as u64);
            rows.push(row(&name, sample.collect()));
        }
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recovery.json");
    std::fs::write(&path, serde_json::to_string_pretty(&rows)?)?;
    println!("written to {}", path.display());
    Ok(())
}

/// Prints the percentiles of `sample`, in milliseconds, and returns them.
fn row(name: &str, mut sample: Vec<u64>) -> serde_json::Value {
    sample.sort_unstable();
    let at = |part: usize| sample[(sample.len() - 1) * part / 100];
    let (p50, p95, max) = (at(50), at(95), at(100));
    println!("{name:44} {:5} {p50:7} {p95:7} {max:7}", sample.len());
    serde_json::json!({
        "fault": name, "runs": sample.len(), "back_on_air_ms": { "p50": p50, "p95": p95, "max": max }
    })
}

/// Milliseconds of each `run`, which is told its seed.
async fn sample<R>(
    name: &str,
    runs: u64,
    together: usize,
    run: impl Fn(u64) -> R,
) -> anyhow::Result<Vec<u64>>
where
    R: Future<Output = anyhow::Result<Duration>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(together));
    let mut set = JoinSet::new();
    for seed in 0..runs {
        let permit = permits.clone().acquire_owned().await?;
        let (run, name) = (run(seed), name.to_owned());
        set.spawn(async move {
            let took = run.await;
            drop(permit);
            took.with_context(|| format!("{name}, seed {seed}"))
        });
    }
    let mut sample = Vec::new();
    while let Some(took) = set.join_next().await {
        sample.push(u64::try_from(took??.as_millis())?);
    }
    Ok(sample)
}
