//! `make bench`: what the agent costs and how quick it is, by measurement on this machine.
//!
//! CPU is compared within one run, as CPU seconds of whole processes: the *floor* is a process that does nothing but
//! encode the same pictures and sound at the same pace (openh264 and Opus alone); the *agent* is `onair run`
//! publishing them to a lab in this process. What reading the pictures costs is measured beside them. Nothing is
//! asserted: a shared machine is noisy, a person reads it.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clocks and sleeps"
)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

mod clip;
mod floor;
mod latency;

/// Length of each CPU run.
const CPU_RUN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, clip] = &args[..] {
        match verb.as_str() {
            "--floor" => return floor::run(Path::new(clip)),
            "--source" => return floor::source(Path::new(clip)),
            _ => {}
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let clip = clip::make(folder)?;
    println!(
        "1280x720 at 30 fps, 2 Mbit/s, Opus 64 kbit/s stereo, {} s a run",
        CPU_RUN.as_secs()
    );
    cpu(folder, &clip).await?;
    latency::starts(folder).await?;
    latency::media(folder, &clip).await
}

/// CPU of the agent over the floor, memory, and the cost of further publishers of the same feed.
async fn cpu(folder: &Path, clip: &Path) -> anyhow::Result<()> {
    let floor = floor::measure("--floor", clip)?;
    println!("floor (encoders alone)         {floor:6.2} CPU s");
    let source = floor::measure("--source", clip)?;
    println!("reading the clip alone         {source:6.2} CPU s");
    let one = agent(folder, clip, 1).await?;
    println!(
        "agent, 1 publisher             {:6.2} CPU s   {:.2} x the floor, {:.2} x floor and reading; RSS peak {:.1} MiB, threads {}",
        one.cpu_s,
        one.cpu_s / floor,
        one.cpu_s / (floor + source),
        mib(one.rss_peak_bytes),
        one.threads
    );
    let many = 10;
    let ten = agent(folder, clip, many).await?;
    let further = (many - 1) as f64;
    println!(
        "agent, {many} publishers           {:6.2} CPU s   each further one {:.1} ms of CPU a second, {:.2} MiB",
        ten.cpu_s,
        (ten.cpu_s - one.cpu_s) / further / CPU_RUN.as_secs_f64() * 1_000.0,
        (mib(ten.rss_peak_bytes) - mib(one.rss_peak_bytes)) / further,
    );
    Ok(())
}

struct AgentRun {
    cpu_s: f64,
    rss_peak_bytes: u64,
    threads: u64,
}

/// Runs the built `onair run` with `publishers` publishers of the clip against a lab in this process.
async fn agent(folder: &Path, clip: &Path, publishers: usize) -> anyhow::Result<AgentRun> {
    let lab = latency::lab(&[onair::lab::Profile::Ome021]).await?;
    let endpoint = lab
        .endpoint(onair::lab::Profile::Ome021)
        .context("the lab has no such profile")?;
    let mut config = format!(
        "[feed.bench]\nvideo = {{ source = \"file\", path = {clip:?}, size = \"1280x720\", fps = 30, bitrate = \"2 Mbit/s\" }}\n\
         audio = {{ source = \"tone\", bitrate = \"64 kbit/s\" }}\n"
    );
    for n in 0..publishers {
        config += &format!(
            "[publisher.p{n}]\nfeed = \"bench\"\nto = \"ome\"\nurl = \"{}-{n}\"\n",
            endpoint.url
        );
    }
    let path = folder.join("bench.toml");
    let report = folder.join("bench-report.json");
    std::fs::write(&path, config)?;
    let arguments: [PathBuf; 7] = [
        "run".into(),
        "--config".into(),
        path,
        "--report".into(),
        report.clone(),
        "--for".into(),
        format!("{}s", CPU_RUN.as_secs()).into(),
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_onair"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let status = tokio::task::spawn_blocking(move || child.wait()).await??;
    ensure!(
        status.success(),
        "the agent's verdict is not pass: {status}"
    );
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report)?)?;
    let decoded: u64 = lab
        .report()
        .iter()
        .filter_map(|s| s.video.frames_decoded)
        .sum();
    let expected = (publishers as u64) * CPU_RUN.as_secs() * 30;
    ensure!(
        decoded * 100 >= expected * 90,
        "only {decoded} of {expected} pictures reached the lab"
    );
    lab.stop().await;
    let process = &report["process"];
    Ok(AgentRun {
        cpu_s: process["cpu_s"]
            .as_f64()
            .context("no cpu_s in the report")?,
        rss_peak_bytes: process["rss_peak_bytes"]
            .as_u64()
            .context("no rss_peak_bytes")?,
        threads: process["threads_peak"]
            .as_u64()
            .context("no threads_peak")?,
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Prints a distribution of milliseconds.
fn print_ms(what: &str, sample: &[f64]) {
    match onair::report::Percentiles::of(sample) {
        Some(p) => println!(
            "{what:<30} p50 {:.1} ms, p95 {:.1} ms, max {:.1} ms (n = {})",
            p.p50,
            p.p95,
            p.max,
            sample.len()
        ),
        None => println!("{what:<30} no sample"),
    }
}

fn since_ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1_000.0
}
