//! The sockets under the engine, seen together: which of them may speak, what is queued on them, where media flows.
//!
//! The engine lets its user bring the runtime, and with it every socket and task. That is used for five things: its
//! tasks end when the [`Peer`](super::Peer) does, whatever happened; nothing listens for TCP, although the engine
//! believes it does; a connection that will not take more never holds up the engine's only task; what the engine does
//! not tell is seen here (the selected pair, a DTLS alert, a TCP connection that broke); and the rungs of the ladder
//! are kept silent before their turn and after another's victory ([`Race`]), relays among them ([`relay`]).

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime,
};

use crate::config::ice_server::{ICE_SERVERS_MAX, IceServer, IceUrl};
use crate::net::Dialer;

use super::backlog::Backlog;
use super::counters::Shared;
use super::datagrams::Datagrams;
use super::ladder::{Climb, Ladder, Rung};
use super::race::Race;
use super::reflexive;
use super::relay::{self, Relay, RelayedDatagrams};
use super::stream::{self, NoListener};
use super::turn;

/// Bytes queued on a stream beyond which whole frames are thrown away, so that nothing grows without bound.
pub(super) const MOST: usize = 512 * 1024;

pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The two ends between which media flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedPair {
    /// The way between them.
    pub rung: Rung,
    /// Our end; but a stand-in where a relay or a proxy is between.
    pub local: SocketAddr,
    /// The server's end.
    pub remote: SocketAddr,
    /// The address of this host that packets leave from, be it to a relay or a proxy.
    pub leaves_from: IpAddr,
}

impl std::fmt::Display for SelectedPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} to {}", self.rung, self.local, self.remote)
    }
}

/// What the sockets saw that the engine does not report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// A DTLS alert arrived: perhaps the end, to be verified with the engine since anyone can forge one.
    Alert,
    /// The stream that carries the media is gone.
    Broken,
    /// Media takes another pair than before.
    Moved,
}

/// The sockets of one connection, seen together.
pub(super) struct Wires {
    pub(super) counters: Arc<Shared>,
    pub(super) dialer: Dialer,
    /// Wakes whoever waits for a change of the race, of the servers known or of the relays that stand.
    pub(super) changed: Notify,
    pub(super) writers: TaskTracker,
    race: Mutex<Race>,
    servers: Mutex<Vec<IceServer>>,
    stun_servers: Mutex<Vec<IceUrl>>,
    /// The host's UDP sockets that the engine holds.
    sockets: Mutex<Vec<Weak<UdpSocket>>>,
    /// Questions to STUN servers without an answer: whom, and from where.
    questions: Mutex<HashMap<[u8; 12], (SocketAddr, SocketAddr)>>,
    /// What STUN servers say of us, with the socket they say it of.
    reflexive: Mutex<Vec<(SocketAddr, SocketAddr)>>,
    /// Relayed addresses as candidates, in the order of their becoming.
    relayed: Mutex<Vec<(Rung, SocketAddr)>>,
    /// The server's addresses on the rungs that may lead there, with the reason of those that do not.
    ways: Mutex<HashMap<(Rung, SocketAddr), Option<String>>>,
    /// Where the engine believes that it listens for TCP.
    listens: Mutex<Vec<SocketAddr>>,
    selected: Mutex<Option<SelectedPair>>,
    /// What waits for streams; over UDP nothing does.
    pub(super) backlog: Backlog,
    sightings: mpsc::Sender<Sighting>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// They outlive the engine by the moment that it takes to give an allocation back.
    pub(super) relays: TaskTracker,
}

impl std::fmt::Debug for Wires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wires").finish_non_exhaustive()
    }
}

/// Locks what several tasks share, never across an await.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves facts, not broken promises, so poison is ignored.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Wires {
    /// No sockets yet. `stop` ends every task, `tasks` knows when they have ended.
    pub(super) fn new(
        counters: Arc<Shared>,
        ladder: Ladder,
        dialer: Dialer,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> (Arc<Self>, mpsc::Receiver<Sighting>) {
        let (sightings, seen) = mpsc::channel(8);
        let wires = Self {
            counters,
            dialer,
            changed: Notify::new(),
            writers: TaskTracker::new(),
            race: Mutex::new(Race::new(ladder)),
            servers: Mutex::new(Vec::new()),
            stun_servers: Mutex::new(Vec::new()),
            sockets: Mutex::new(Vec::new()),
            questions: Mutex::new(HashMap::new()),
            reflexive: Mutex::new(Vec::new()),
            relayed: Mutex::new(Vec::new()),
            ways: Mutex::new(HashMap::new()),
            listens: Mutex::new(Vec::new()),
            selected: Mutex::new(None),
            backlog: Backlog::new(),
            sightings,
            stop,
            tasks,
            relays: TaskTracker::new(),
        };
        (Arc::new(wires), seen)
    }

    /// Where media flows; `None` before the first DTLS packet was sent.
    pub(super) fn selected(&self) -> Option<SelectedPair> {
        *locked(&self.selected)
    }

    /// Spawns a task of this connection: ended with it, waited for by it.
    pub(super) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::AbortHandle {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = future => {}
                }
            })
            .abort_handle()
    }

    /// Waits until TCP has taken all that was queued. To be called when nothing queues any more.
    pub(super) async fn flushed(&self) {
        self.writers.close();
        self.writers.wait().await;
    }

    /// Waits until every allocation has been given back. To be called when the engine has gone.
    pub(super) async fn released(&self) {
        self.relays.close();
        self.relays.wait().await;
    }

    /// Starts the rungs in their turn, for as long as the connection lives.
    pub(super) async fn climb(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            let due = self.advance();
            tokio::select! {
                () = changed => {}
                () = until(due) => {}
            }
        }
    }

    fn advance(&self) -> Option<std::time::Instant> {
        let runs = |race: &Race| Rung::ALL.map(|rung| race.runs(rung));
        let mut race = locked(&self.race);
        let before = runs(&race);
        let due = race.advance(now());
        if runs(&race) != before {
            self.changed.notify_waiters();
        }
        due
    }

    /// Runs the race anew, after an ICE restart.
    pub(super) fn restart(&self) {
        locked(&self.race).restart();
        locked(&self.relayed).clear();
        locked(&self.reflexive).clear();
        locked(&self.sockets).clear();
        locked(&self.ways).clear();
        locked(&self.listens).clear();
        *locked(&self.selected) = None;
        self.changed.notify_waiters();
    }

    /// The server has candidates, on these rungs. As long as one of them may be reached its rung has not failed.
    pub(super) fn offered(&self, ways: impl IntoIterator<Item = (Rung, SocketAddr)>) {
        let mut known = locked(&self.ways);
        let mut race = locked(&self.race);
        for (rung, remote) in ways {
            known.entry((rung, remote)).or_insert(None);
            race.offered(rung, now());
        }
        drop((known, race));
        self.advance();
        self.changed.notify_waiters();
    }

    /// More STUN and TURN servers are known; those known already are passed over.
    pub(super) fn add_servers(&self, more: &[IceServer]) {
        let mut servers = locked(&self.servers);
        for server in more {
            let Some(rung) = turn::rung(server.url.kind) else {
                let mut stun = locked(&self.stun_servers);
                if stun.len() < ICE_SERVERS_MAX && !stun.contains(&server.url) {
                    stun.push(server.url.clone());
                }
                continue;
            };
            if servers.len() < ICE_SERVERS_MAX && !servers.contains(server) {
                servers.push(server.clone());
                locked(&self.race).served(rung);
            }
        }
        drop(servers);
        self.advance();
        self.changed.notify_waiters();
    }

    /// The TURN servers of a rung, in the order of their becoming known.
    pub(super) fn servers(&self, rung: Rung) -> Vec<IceServer> {
        let servers = locked(&self.servers);
        let of_rung = servers
            .iter()
            .filter(|s| turn::rung(s.url.kind) == Some(rung));
        of_rung.cloned().collect()
    }

    /// Whether this rung's turn has come and none has won.
    pub(super) fn runs(&self, rung: Rung) -> bool {
        locked(&self.race).runs(rung)
    }

    /// Waits until this rung's turn has come; for ever if another wins.
    pub(super) async fn started(&self, rung: Rung) {
        loop {
            let changed = self.changed.notified();
            if locked(&self.race).passes(rung) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until another rung has won.
    pub(super) async fn beaten(&self, rung: Rung) {
        loop {
            let changed = self.changed.notified();
            if locked(&self.race)
                .winner()
                .is_some_and(|winner| winner != rung)
            {
                return;
            }
            changed.await;
        }
    }

    /// Whether packets may pass over this rung.
    pub(super) fn passes(&self, rung: Rung) -> bool {
        locked(&self.race).passes(rung)
    }

    /// What became of each rung so far.
    pub(super) fn climbs(&self) -> Vec<Climb> {
        locked(&self.race).climbs()
    }

    /// This rung cannot be used. If media took it, that is the end of the connection.
    pub(super) fn failed(&self, rung: Rung, why: String) {
        locked(&self.race).failed(rung, why, now());
        self.advance();
        self.changed.notify_waiters();
        if self.selected().is_some_and(|pair| pair.rung == rung) {
            self.sight(Sighting::Broken);
        }
    }

    /// Whether a rung has won, wherever it led.
    pub(super) fn has_won(&self) -> bool {
        locked(&self.race).winner().is_some()
    }

    /// The rung that won has led nowhere.
    pub(super) fn winner_failed(&self, why: &str) {
        let mut race = locked(&self.race);
        if let Some(winner) = race.winner() {
            race.failed(winner, why.to_owned(), now());
        }
    }

    /// A relay stands. What another one of this rung refused may pass through this one.
    pub(super) fn relayed(&self, rung: Rung, address: SocketAddr) {
        locked(&self.relayed).push((rung, address));
        for ((of, _), why) in locked(&self.ways).iter_mut() {
            if *of == rung {
                *why = None;
            }
        }
        self.changed.notify_waiters();
    }

    /// The relays that stand or stood, and whether there will be no more that are worth waiting for.
    pub(super) fn relays_found(&self) -> (Vec<(Rung, SocketAddr)>, bool) {
        let relayed = locked(&self.relayed).clone();
        let servers = locked(&self.servers);
        let race = locked(&self.race);
        let open = |server: &IceServer| {
            turn::rung(server.url.kind).is_some_and(|rung| {
                race.may(rung)
                    && !race.has_failed(rung)
                    && !relayed.iter().any(|(relayed, _)| *relayed == rung)
            })
        };
        let settled = race.winner().is_some() || !servers.iter().any(open);
        (relayed, settled)
    }

    /// The STUN servers known.
    pub(super) fn stun_servers(&self) -> Vec<IceUrl> {
        locked(&self.stun_servers).clone()
    }

    /// The host's UDP sockets.
    pub(super) fn sockets(&self) -> Vec<Arc<UdpSocket>> {
        let sockets = locked(&self.sockets);
        sockets.iter().filter_map(Weak::upgrade).collect()
    }

    /// A question to a STUN server goes out from `local`.
    pub(super) fn asked(&self, id: [u8; 12], server: SocketAddr, local: SocketAddr) {
        locked(&self.questions).insert(id, (server, local));
    }

    /// Whether no question to a STUN server is open.
    pub(super) fn all_answered(&self) -> bool {
        locked(&self.questions).is_empty()
    }

    /// Answers from now on come too late.
    pub(super) fn forget_questions(&self) {
        locked(&self.questions).clear();
    }

    /// What STUN servers say of our sockets, where that is news.
    pub(super) fn reflexive(&self) -> Vec<(SocketAddr, SocketAddr)> {
        locked(&self.reflexive).clone()
    }

    /// Takes a STUN server's answer to a question of ours; whether it was one.
    fn told(&self, remote: SocketAddr, packet: &[u8]) -> bool {
        let Some((BINDING_SUCCESS, id)) = stun(packet) else {
            return false;
        };
        let mut questions = locked(&self.questions);
        let Some(&(server, local)) = questions.get(&id) else {
            return false;
        };
        if server != remote {
            return false;
        }
        questions.remove(&id);
        drop(questions);
        if let Some(mapped) = reflexive::answer(packet) {
            let mut known = locked(&self.reflexive);
            let news = mapped != local && !known.iter().any(|(address, _)| *address == mapped);
            if news && known.len() < ICE_SERVERS_MAX {
                known.push((mapped, local));
            }
        }
        self.changed.notify_waiters();
        true
    }

    /// Whether a rung leads to one of the server's addresses; `why` not, if it does not: no dial over TCP succeeds, or
    /// the TURN server refuses to relay there. The rung fails when it leads to none.
    pub(super) fn led(&self, rung: Rung, remote: SocketAddr, why: Option<String>) {
        let mut ways = locked(&self.ways);
        ways.insert((rung, remote), why);
        let of_rung = ways.iter().filter(|((of, _), _)| *of == rung);
        let reasons: Option<Vec<String>> = of_rung.map(|(_, why)| why.clone()).collect();
        drop(ways);
        let mut race = locked(&self.race);
        match reasons {
            // What has won has led there.
            Some(_) if race.has_failed(rung) || race.winner() == Some(rung) => {}
            Some(mut reasons) => {
                reasons.sort();
                race.failed(rung, reasons.swap_remove(0), now());
            }
            None => race.recovered(rung),
        }
        drop(race);
        self.advance();
        self.changed.notify_waiters();
    }

    /// One of our own addresses that the engine knows for TCP towards `remote`, with the port that stands for that of a
    /// dialled connection: at the listener's own, the engine would take it for one that it accepted, and as the
    /// controlling side never select it.
    pub(super) fn local_for(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let listens = locked(&self.listens);
        let family = |local: &&SocketAddr| local.is_ipv4() == remote.is_ipv4();
        let mut fitting = listens.iter().filter(family);
        let first = fitting.clone().next().copied();
        fitting
            .find(|local| !local.ip().is_loopback())
            .copied()
            .or(first)
            .map(|local| SocketAddr::new(local.ip(), DIALLED))
    }

    /// Whether a packet may leave over this rung now. Our checks are noted on the way.
    pub(super) fn leaves(&self, rung: Rung, packet: &[u8]) -> bool {
        let mut race = locked(&self.race);
        let passes = race.passes(rung);
        if passes && let Some((BINDING_REQUEST, transaction)) = stun(packet) {
            race.checked(rung, transaction);
        }
        passes
    }

    /// Whether a packet that came over this rung is for the engine. The first answer to one of our checks decides the
    /// race. Checks may come from anywhere; the engine would take the rest from anywhere too, and warn about each
    /// that does not decrypt.
    pub(super) fn arrives(&self, rung: Rung, remote: SocketAddr, packet: &[u8]) -> bool {
        if rung == Rung::Udp && self.told(remote, packet) {
            return false;
        }
        let mut race = locked(&self.race);
        if !race.passes(rung) {
            return false;
        }
        if race.winner().is_none()
            && let Some((BINDING_SUCCESS, transaction)) = stun(packet)
            && race.answered(rung, transaction, now())
        {
            drop(race);
            tracing::debug!(%rung, "the first check is answered");
            self.changed.notify_waiters();
        } else {
            drop(race);
        }
        if packet.first().is_none_or(|&first| first >= 20) {
            if self.selected().is_some_and(|pair| pair.remote != remote) {
                self.counters.lock().strangers += 1;
                return false;
            }
            // DTLS says the kind of a record in the clear; 21 is an alert (RFC 5246, section 6.2.1).
            if packet.first() == Some(&21) {
                self.sight(Sighting::Alert);
            }
        }
        true
    }

    /// Everything but connectivity checks flows over the selected pair.
    pub(super) fn leaving(&self, pair: SelectedPair, packet: &[u8]) {
        if packet.first().is_none_or(|&first| first < 20) {
            return;
        }
        let mut selected = locked(&self.selected);
        if *selected != Some(pair) {
            *selected = Some(pair);
            self.counters.lock().pair = Some(pair);
            self.sight(Sighting::Moved);
        }
    }

    /// The stream between the two ends of `pair` is gone.
    pub(super) fn broken(&self, pair: SelectedPair) {
        if self.selected() == Some(pair) {
            self.sight(Sighting::Broken);
        }
    }

    fn sight(&self, sighting: Sighting) {
        if self.sightings.try_send(sighting).is_err() {
            tracing::trace!("sightings enough are queued to act upon");
        }
    }

    /// The relay behind a socket that the engine has bound, if it is one.
    fn relay(self: &Arc<Self>, local: SocketAddr) -> Option<RelayedDatagrams> {
        let rung = relay::rung(local.ip())?;
        let relay = Arc::new(Relay::new(rung));
        let given_up = CancellationToken::new();
        let serving = turn::serve(Arc::clone(&relay), Arc::clone(self), given_up.clone());
        self.relays.spawn(serving);
        Some(RelayedDatagrams {
            relay,
            local,
            wires: Arc::clone(self),
            _given_up: given_up.drop_guard(),
        })
    }
}

/// The port of a candidate that dials (RFC 6544, section 4.5).
const DIALLED: u16 = 9;

/// A check (RFC 8489, section 5: the class request and the method Binding).
const BINDING_REQUEST: u16 = 0x0001;

/// The answer to one.
const BINDING_SUCCESS: u16 = 0x0101;

/// Type and transaction of a STUN message.
fn stun(packet: &[u8]) -> Option<(u16, [u8; 12])> {
    let (head, _) = packet.split_first_chunk::<20>()?;
    let transaction = head.last_chunk::<12>()?;
    Some((u16::from_be_bytes([head[0], head[1]]), *transaction))
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}

/// The engine's view of tokio.
#[derive(Debug)]
pub(super) struct Engine(pub(super) Arc<Wires>);

impl Runtime for Engine {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        Box::new(Task(self.0.spawn(future)))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        if let Some(relay) = self.0.relay(local) {
            return Ok(Arc::new(relay));
        }
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        locked(&self.0.sockets).push(Arc::downgrade(&socket));
        let wires = Arc::clone(&self.0);
        Ok(Arc::new(Datagrams {
            socket,
            local,
            wires,
        }))
    }

    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        let local = listener.local_addr()?;
        locked(&self.0.listens).push(local);
        Ok(Arc::new(NoListener { local }))
    }

    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async move {
            let stream = stream::dial(&self.0, remote).await?;
            Ok(Arc::new(stream) as Arc<dyn AsyncTcpStream>)
        })
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }
}

struct Task(tokio::task::AbortHandle);

impl JoinHandle for Task {
    fn detach(&self) {}

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::secret::Secret;
    use crate::config::{Proxy, Transport, Trust};
    use crate::peer::ladder::Outcome;

    use super::*;

    fn wires(transport: Transport) -> Arc<Wires> {
        let url = Secret::new("wss://server.example/");
        let dialer = Dialer::new(&url, &Trust::default(), &Proxy::None).expect("no files are read");
        let ladder = Ladder {
            transport,
            first: None,
        };
        let counters = Arc::new(Shared::default());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Wires::new(counters, ladder, dialer, stop, tasks).0
    }

    fn at(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 10_000))
    }

    fn failure(wires: &Wires, rung: Rung) -> Option<String> {
        let climb = wires.climbs().into_iter().find(|climb| climb.rung == rung);
        match climb.expect("a rung that may be tried").outcome {
            Outcome::Failed(why) => Some(why),
            Outcome::Absent(_) | Outcome::Chosen | Outcome::Idle | Outcome::Unanswered => None,
        }
    }

    #[test]
    fn a_rung_fails_when_it_leads_to_none_of_the_servers_addresses() {
        for rung in [Rung::Tcp, Rung::TurnTcp] {
            let wires = wires(Transport::Auto);
            let no = |why: &str| Some(why.to_owned());
            let server = "turn:192.0.2.9?transport=tcp".parse().expect("a URL");
            wires.add_servers(&[IceServer {
                url: server,
                username: String::new(),
                credential: Secret::new(""),
            }]);
            wires.offered([(rung, at(1)), (rung, at(2))]);
            // An inner address, as servers name first, is refused by most relays.
            wires.led(rung, at(1), no("inner"));
            assert_eq!(failure(&wires, rung), None);
            wires.led(rung, at(2), no("outer"));
            assert_eq!(failure(&wires, rung), no("inner"));
            wires.led(rung, at(2), None);
            assert_eq!(failure(&wires, rung), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_asking_that_was_cut_short_leaves_nothing_for_the_next() {
        let wires = wires(Transport::Auto);
        let ours = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        locked(&wires.sockets).push(Arc::downgrade(&ours));
        let at = silent.local_addr().expect("bound");
        wires.add_servers(&[IceServer {
            url: format!("stun:{at}").parse().expect("a URL"),
            username: String::new(),
            credential: Secret::new(""),
        }]);
        for _ in 0..3 {
            let asking = reflexive::ask(Arc::clone(&wires));
            let cut = tokio::time::timeout(Duration::from_millis(10), asking).await;
            assert!(cut.is_err());
            assert_eq!(locked(&wires.questions).len(), 1);
        }
        reflexive::ask(Arc::clone(&wires)).await;
        assert!(wires.all_answered());
    }

    #[test]
    fn what_one_relay_refused_the_next_one_may_not() {
        let wires = wires(Transport::Relay);
        let server = |n: u8| IceServer {
            url: format!("turn:192.0.2.{n}").parse().expect("a URL"),
            username: String::new(),
            credential: Secret::new(""),
        };
        let rung = Rung::TurnUdp;
        let refused = |n| wires.led(rung, at(n), Some("refused".to_owned()));
        wires.add_servers(&[server(8)]);
        wires.offered([(rung, at(1)), (rung, at(2))]);
        wires.relayed(rung, at(8));
        refused(1);
        refused(2);
        assert!(failure(&wires, rung).is_some());
        wires.add_servers(&[server(9)]);
        wires.relayed(rung, at(9));
        refused(1);
        assert_eq!(failure(&wires, rung), None);
        refused(2);
        assert!(failure(&wires, rung).is_some());
    }
}
