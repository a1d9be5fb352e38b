//! The looks themselves: the list of streams is asked for on a second socket, a fresh one each time, as the official
//! page does. What follows is decided by [`Liveness`].

use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::super::Error;
use super::super::server::{Message, Server};
use super::liveness::{FIRST_LOOK, Liveness, Next, Seen, question, read_list};
use crate::net::ws::Socket;

/// Longest time for one look, from connecting to the list.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// How the looking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The stream is gone.
    Gone {
        /// The list had held it before.
        was_listed: bool,
    },
    /// The server's lists say nothing about the stream.
    Silence,
}

/// What is looked for.
pub(super) struct Wanted {
    pub(super) application: String,
    /// The stream, without a query.
    pub(super) name: String,
    /// See [`Liveness::new`].
    pub(super) doubted: bool,
}

/// Looks for the stream until it is gone or looking is of no use, on the sockets that `connect` opens.
pub(super) async fn watch<F>(
    server: &Server,
    wanted: &Wanted,
    connect: impl Fn() -> F + Send + Sync,
) -> Finding
where
    F: Future<Output = Result<Socket, Error>> + Send,
{
    let mut liveness = Liveness::new(wanted.doubted);
    let mut wait = FIRST_LOOK;
    loop {
        sleep(wait).await;
        let seen = match timeout(LOOK_DEADLINE, look(server, wanted, connect())).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the list of streams could not be had");
                Seen::Nothing
            }
            Err(_) => {
                tracing::debug!("the list of streams did not come");
                Seen::Nothing
            }
        };
        match liveness.on(seen) {
            Next::Look(after) => wait = after,
            Next::Gone { was_listed } => return Finding::Gone { was_listed },
            Next::Stop => {
                tracing::info!(?seen, "the server's list of streams is of no use to us");
                return Finding::Silence;
            }
        }
    }
}

async fn look(
    server: &Server,
    wanted: &Wanted,
    socket: impl Future<Output = Result<Socket, Error>>,
) -> Result<Seen, Error> {
    const WAITING: &str = "its list of streams was awaited";
    let question = question(&wanted.application);
    let mut socket = socket.await?;
    server.send(&mut socket, &question, WAITING).await?;
    let seen = loop {
        let answer: Option<Value> = match server.recv(&mut socket, WAITING).await? {
            Message::Json(value) => Some(value),
            Message::Other(_) => None,
        };
        if let Some(seen) = answer.and_then(|answer| read_list(&answer, &wanted.name)) {
            break seen;
        }
    };
    socket.close().await;
    Ok(seen)
}
