//! The program: a runtime, one verb, an exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

/// Media engines, signalling and the lab need little; encoders and devices have threads of their own.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = onair::cli::Cli::parse();
    onair::telemetry::start(&cli.global);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("onair-worker")
        .enable_all()
        .build();
    let (runtime, ended) = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(onair::commands::dispatch(cli));
            (Some(runtime), ended)
        }
        Err(error) => (None, Err(error.into())),
    };
    let code = onair::commands::exit_code(ended);
    if let Some(runtime) = runtime {
        // A name lookup or a device may block a thread of the runtime for long; nothing waits for it here.
        runtime.shutdown_timeout(Duration::from_millis(200));
    }
    code
}
