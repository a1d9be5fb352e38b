//! One file per verb, and what they share: interrupts, output, exit codes.

pub mod bundle;
pub mod check;
pub mod demo;
pub mod devices;
pub mod generate;
pub mod lab;
mod outcome;
pub mod probe;
pub mod run;
pub mod signals;
pub mod stream;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use crate::cli::{Cli, Verb};
use crate::config::load;

/// Exit code for a configuration that cannot be used (`EX_CONFIG`).
pub const CONFIGURATION: u8 = 78;

/// Runs the verb that the command line names.
pub async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.verb {
        Verb::Bundle(args) => bundle::run(args, cli.global).await,
        Verb::Check(args) => check::run(args, cli.global).await,
        Verb::Demo(args) => demo::run(args, cli.global).await,
        Verb::Devices(args) => devices::run(args, cli.global).await,
        Verb::Generate(args) => generate::run(&args),
        Verb::Lab(args) => lab::run(*args, cli.global).await,
        Verb::Probe(args) => probe::run(args, cli.global).await,
        Verb::Run(args) => run::run(args, cli.global).await,
        Verb::Stream(args) => stream::run(args, cli.global).await,
    }
}

/// The exit code of what a verb came to; says why it failed.
pub fn exit_code(ended: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match ended {
        Ok(code) => return code,
        Err(error) => error,
    };
    match error.downcast_ref::<load::Error>() {
        Some(load::Error::Faults { path, faults }) => {
            for fault in faults {
                tracing::error!("{}:{fault}", path.display());
            }
            ExitCode::from(CONFIGURATION)
        }
        Some(unreadable @ load::Error::Unreadable { .. }) => {
            tracing::error!("{unreadable}");
            ExitCode::from(CONFIGURATION)
        }
        None => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Exit code of a run whose report's verdict is fail.
pub const VERDICT_FAIL: u8 = 3;

/// Both clocks at one instant: the only place where a verb reads them.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the clocks are read"
)]
fn clocks() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// Prints a verb's result on standard output. A reader that has gone (`onair devices | head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
