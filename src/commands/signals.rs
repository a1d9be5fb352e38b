//! Signals: the first interrupt asks for an orderly end, the second ends the process; a hang-up asks for a reload.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was told twice: 128 and the number of SIGINT, as shells count.
const KILLED: i32 = 130;

/// Watches SIGINT and SIGTERM from now on. The token is cancelled by the first; the second ends the process at
/// once, whatever is stuck.
pub fn watch() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let first = CancellationToken::new();
    let token = first.clone();
    // Lives as long as the process, so nobody waits for it.
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; interrupt again to end at once");
        first.cancel();
        next().await;
        tracing::warn!("interrupted twice, ending without waiting");
        std::process::exit(KILLED);
    });
    Ok(token)
}

/// Watches SIGHUP from now on, which would otherwise end the process.
pub fn hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};
    use std::time::Duration;

    #[tokio::test]
    async fn a_first_signal_asks_for_an_orderly_end() {
        let token = super::watch().unwrap();
        assert!(!token.is_cancelled());
        let told = Command::new("kill")
            .arg("-TERM")
            .arg(id().to_string())
            .status();
        assert!(told.unwrap().success());
        let asked = tokio::time::timeout(Duration::from_secs(5), token.cancelled());
        asked.await.unwrap();
    }
}
