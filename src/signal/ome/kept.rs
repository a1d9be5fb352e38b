//! A refused socket between two sessions: kept open, and alive, until the next session wants it.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::net::ws::Socket;

/// A socket in the care of a task that answers its pings, for the server hangs up on whoever is silent for
/// 60 s. Dropping it closes the socket.
pub(super) struct Kept {
    wanted: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<Socket>>,
}

impl Kept {
    pub(super) fn new(socket: Socket) -> Self {
        let (wanted, when) = oneshot::channel();
        Self {
            wanted: Some(wanted),
            task: tokio::spawn(keep(socket, when)),
        }
    }

    /// Takes the socket back, unless it has closed. Cancel-safe: a second call goes on where the first was.
    pub(super) async fn take(&mut self) -> Option<Socket> {
        // Dropping the sender is the sign.
        self.wanted = None;
        (&mut self.task).await.ok().flatten()
    }
}

async fn keep(mut socket: Socket, mut wanted: oneshot::Receiver<()>) -> Option<Socket> {
    loop {
        tokio::select! {
            biased;
            _ = &mut wanted => return Some(socket),
            received = socket.recv() => {
                if let Err(ended) = received {
                    tracing::debug!(?ended, "a refused socket has closed");
                    return None;
                }
            }
        }
    }
}
