//! The TURN server that OvenMediaEngine has inside: over TCP only, relaying nowhere but into its own sessions.
//!
//! What a client sends goes to the session whose user fragment the client's connectivity checks name, whatever
//! peer the client addresses it to; answers go back in the form that the client used last (`words`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames;
use super::words;
use super::words::Said;
use super::words::Words;
use crate::lab::now;

pub(in crate::lab) use super::words::DUMMY;
pub(in crate::lab) use super::words::PASSWORD;
pub(in crate::lab) use super::words::RELAYED;
pub(in crate::lab) use super::words::USERNAME;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Messages that may wait to be written, and packets that may wait for a session.
const WAITING: usize = 256;

/// A packet of a publisher that came through the relay.
#[derive(Debug)]
pub(in crate::lab) struct Relayed {
    pub(in crate::lab) arrived: Instant,
    pub(in crate::lab) packet: Vec<u8>,
    /// Where answers go.
    pub(in crate::lab) answers: mpsc::Sender<Vec<u8>>,
}

type Sessions = Arc<Mutex<HashMap<String, mpsc::Sender<Relayed>>>>;

/// The server, as sessions know it. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::lab) struct Embedded {
    address: SocketAddr,
    sessions: Sessions,
}

/// A session's place in the server; dropping it gives it up.
#[derive(Debug)]
pub(in crate::lab) struct Place {
    ufrag: String,
    sessions: Sessions,
    packets: mpsc::Receiver<Relayed>,
}

impl Embedded {
    /// Serves those who come to `listener`, which listens at `address`, until `stop`.
    pub(in crate::lab) fn start(
        listener: TcpListener,
        address: SocketAddr,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let embedded = Self {
            address,
            sessions: Sessions::default(),
        };
        let serving = embedded.clone();
        tasks.spawn(serving.serve(listener, tasks.clone(), stop.clone()));
        embedded
    }

    /// Where it listens.
    pub(in crate::lab) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the session with the user fragment `ufrag` be reached.
    pub(in crate::lab) fn place(&self, ufrag: &str) -> Place {
        let (inbox, packets) = mpsc::channel(WAITING);
        lock(&self.sessions).insert(ufrag.to_owned(), inbox);
        Place {
            ufrag: ufrag.to_owned(),
            sessions: Arc::clone(&self.sessions),
            packets,
        }
    }

    async fn serve(self, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, remote)) = accepted else {
                // Out of file descriptors, or a connection reset before it was accepted: either passes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            // A small message is not to wait for the acknowledgement of the one before it.
            stream.set_nodelay(true).ok();
            let (sessions, stop) = (Arc::clone(&self.sessions), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = connection(stream, remote, sessions) => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

impl Place {
    /// The next packet that came through the relay. Safe to cancel.
    pub(in crate::lab) async fn recv(&mut self) -> Relayed {
        match self.packets.recv().await {
            Some(relayed) => relayed,
            // Another session took the same user fragment: by chance, this one cannot be reached any more.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.sessions).remove(&self.ufrag);
    }
}

/// Serves one connection until it ends, or until it holds what is no TURN.
async fn connection(stream: TcpStream, remote: SocketAddr, sessions: Sessions) {
    let (mut reader, mut writer) = stream.into_split();
    let (inbox, mut heard) = mpsc::channel(WAITING);
    let (outbox, mut replies) = mpsc::channel(WAITING);
    let (answers, mut packets) = mpsc::channel::<Vec<u8>>(WAITING);
    let reading = async move {
        while let Ok(Some(message)) = frames::read(&mut reader).await {
            if inbox.send(message).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some(message) = replies.recv().await {
            let frame = frames::padded(message);
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    let talking = async move {
        let mut words = Words::new(remote);
        let mut session: Option<mpsc::Sender<Relayed>> = None;
        loop {
            let reply = tokio::select! {
                message = heard.recv() => match message.map(|message| words.hear(&message)) {
                    None => return,
                    Some(Said::Nothing) => continue,
                    Some(Said::Reply(reply)) => reply,
                    Some(Said::Packet(packet)) => {
                        if let Some(ufrag) = words::addressee(&packet) {
                            session = lock(&sessions).get(&ufrag).cloned();
                        }
                        if let Some(session) = &session {
                            let relayed = Relayed {
                                arrived: now(),
                                packet,
                                answers: answers.clone(),
                            };
                            // A session that does not keep up loses packets, as over a network.
                            session.try_send(relayed).ok();
                        }
                        continue;
                    }
                },
                Some(packet) = packets.recv() => match words.envelop(&packet) {
                    Some(message) => message,
                    None => continue,
                },
            };
            // So does a client that does not read.
            outbox.try_send(reply).ok();
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(reading, talking) } => {}
        () = writing => {}
    }
}

fn lock(sessions: &Sessions) -> MutexGuard<'_, HashMap<String, mpsc::Sender<Relayed>>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}
