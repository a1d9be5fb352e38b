//! `onair devices`.

use std::process::ExitCode;

use crate::cli;

/// Runs the verb.
#[expect(clippy::unused_async, reason = "not built yet")]
pub async fn run(_args: cli::Devices, _globals: cli::Global) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
