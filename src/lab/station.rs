//! What the sessions of one profile share: names, faults, numbers that scale, and how a session is run.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::media::time::MediaClock;

use super::Foreign;
use super::IceServer;
use super::OmeTurn;
use super::engine::Command;
use super::engine::End;
use super::engine::Engine;
use super::faults::Faults;
use super::faults::Mutation;
use super::faults::Step;
use super::hub::Hub;
use super::hub::Record;
use super::hub::SessionId;
use super::hub::State;
use super::ingest::Credentials;
use super::ingest::Ingest;
use super::ingest::Options;
use super::ingest::PayloadTypes;
use super::ingest::Remote;
use super::judge::Rules;
use super::now;
use super::profile::Dialect;
use super::profile::IceRole;
use super::profile::Profile;
use super::reception::Reception;
use super::rest::Doors;
use super::sdp;
use super::sdp::Description;
use super::tls::Acceptor;
use super::turn::Handle;
use super::turn::embedded;
use super::turn::embedded::Embedded;
use super::whip;

/// Commands that may wait for an engine.
const COMMANDS: usize = 16;

/// One profile's server.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) profile: Profile,
    pub(super) hub: Hub,
    pub(super) faults: Faults,
    pub(super) media_ip: IpAddr,
    pub(super) clock: MediaClock,
    /// Factor on the server's own time-outs.
    pub(super) time_scale: f64,
    pub(super) withhold: Option<u32>,
    /// The lab's TURN server, if it has one.
    pub(super) turn: Option<Handle>,
    /// OvenMediaEngine's own TURN server; of no use to others.
    pub(super) embedded: Option<Embedded>,
    /// How offers tell of it.
    pub(super) ome_turn: OmeTurn,
    /// With which connections are secured, if they are.
    pub(super) tls: Option<Acceptor>,
    /// Only ever answer checks, in WHIP also saying so.
    pub(super) ice_lite: bool,
    /// What publishers by WHIP have to show.
    pub(super) bearer: Option<String>,
    /// What publishers are told of relays.
    pub(super) ice_servers: Vec<IceServer>,
    pub(super) foreign: Foreign,
    /// Where redirected publishers are sent.
    pub(super) elsewhere: Option<SocketAddr>,
    /// Under which names one may publish now, if a control plane decides on that.
    pub(super) doors: Option<Doors>,
    /// Sessions by WHIP, each under the key in its URL.
    pub(super) whip: whip::Sessions,
    /// Names that are live, and the engine behind each.
    pub(super) names: Mutex<HashMap<String, Holder>>,
}

/// Who has a name.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    session: SessionId,
    engine: mpsc::Sender<Command>,
}

/// What is known of a publisher when its signalling connection opens.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) user_agent: String,
}

impl Request {
    /// A parameter of the query, as it is: nothing is unescaped.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(of, value)| (of == name).then_some(value))
    }
}

/// Sockets and engine of a session that is being agreed on, and how they are described.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) ingest: Ingest,
    pub(super) described: sdp::Engine,
}

/// An engine at work.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) engine: mpsc::Sender<Command>,
    task: JoinHandle<End>,
}

impl Running {
    /// Waits for the engine's end. Safe to cancel.
    pub(super) async fn ended(&mut self) -> End {
        // An engine that panics has been reported by the panic; for the session it is a silence.
        (&mut self.task).await.unwrap_or(End::Silent)
    }

    /// Tells the engine to stop, and waits until it has.
    pub(super) async fn stop(mut self, command: Command) -> End {
        // An engine that has ended already needs no telling.
        self.engine.send(command).await.ok();
        self.ended().await
    }
}

/// Waits for the end of an engine, if there is one.
pub(super) async fn ended(running: Option<&mut Running>) -> End {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

impl Station {
    /// A time of the server's, scaled.
    pub(super) fn scaled(&self, time: Duration) -> Duration {
        time.mul_f64(self.time_scale)
    }

    /// OvenMediaEngine's TURN server as publishers are told of it.
    pub(super) fn embedded_turn(&self) -> Option<IceServer> {
        let mut at = self.embedded.as_ref()?.address();
        at.set_ip(self.ome_turn.advertised.unwrap_or(at.ip()));
        let password = match self.faults.mutation(self.profile) {
            Some(Mutation::WrongTurnPassword) => "another",
            Some(_) | None => embedded::PASSWORD,
        };
        Some(IceServer {
            url: format!("turn:{at}?transport=tcp"),
            login: Some((embedded::USERNAME.to_owned(), password.to_owned())),
        })
    }

    /// Whether `application` exists here.
    pub(super) fn has_application(&self, application: &str) -> bool {
        match (&self.doors, self.profile.dialect()) {
            // Every stream at Wowza Video has an application of its own.
            (Some(doors), Dialect::WowzaV1 | Dialect::WowzaV2) => {
                doors.has_application(application)
            }
            (Some(_) | None, _) => application == self.profile.application(),
        }
    }

    /// Whether the stream of that name runs, so that one may publish.
    pub(super) fn is_running(&self, name: &str) -> bool {
        self.doors.as_ref().is_none_or(|doors| doors.is_open(name))
    }

    /// Whether `name` is taken, or held by a fault.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.faults.is_held(self.profile, now()) || self.names().contains_key(name)
    }

    /// Frees `name` if `session` has it.
    pub(super) fn release(&self, name: &str, session: SessionId) {
        let mut names = self.names();
        if names.get(name).is_some_and(|h| h.session == session) {
            names.remove(name);
        }
    }

    /// Ends whoever has `name`, without a word to it.
    pub(super) fn delete(&self, name: &str) -> Option<SessionId> {
        let holder = self.names().remove(name)?;
        holder
            .engine
            .try_send(Command::Drop { orderly: false })
            .ok();
        Some(holder.session)
    }

    /// Binds sockets and prepares an engine, described as the mutation in force wants it.
    pub(super) async fn prepare(
        &self,
        (udp, tcp): (bool, bool),
        payload_types: PayloadTypes,
        (ufrag, pwd): Credentials,
    ) -> std::io::Result<Prepared> {
        let options = Options {
            profile: self.profile,
            ice_role: if self.ice_lite {
                IceRole::Lite
            } else {
                self.profile.ice_role()
            },
            ghost: self.scaled(self.profile.ghost()),
            key_frame_every: self.scaled(self.profile.key_frame_every()),
            nack: self.profile.nack(),
            withhold: self.withhold,
        };
        let credentials = (ufrag.clone(), pwd.clone());
        let mut ingest = Ingest::bind(
            self.media_ip,
            (udp, tcp),
            payload_types,
            credentials,
            options,
        )
        .await?;
        ingest.turn = self.turn.clone();
        let mut described = sdp::Engine {
            ufrag,
            pwd,
            fingerprint: Some(ingest.fingerprint()),
        };
        match self.faults.mutation(self.profile) {
            Some(Mutation::WrongIcePwd) => {
                described.pwd = described.pwd.chars().rev().collect();
            }
            Some(Mutation::MissingFingerprint) => described.fingerprint = None,
            Some(Mutation::WrongFingerprint) => {
                let other = vec!["A5"; 32].join(":");
                described.fingerprint = Some(format!("sha-256 {other}"));
            }
            Some(Mutation::Code404 | Mutation::WrongTurnPassword) | None => {}
        }
        Ok(Prepared { ingest, described })
    }

    /// Takes the publisher's description and starts the engine under `name`. The error says what is unusable.
    pub(super) fn run(
        &self,
        mut ingest: Ingest,
        remote: &Description,
        name: &str,
        rules: Rules,
        record: &Record,
    ) -> Result<Running, String> {
        let value = |name: &str| {
            let value = remote.value(name).map(str::to_owned);
            value.ok_or_else(|| format!("no a={name}"))
        };
        let remote = Remote {
            ufrag: value("ice-ufrag")?,
            pwd: value("ice-pwd")?,
            fingerprint: value("fingerprint")?,
            tracks: remote.ssrcs(),
        };
        ingest.accept(&remote)?;
        let now = now();
        let mut reception = Reception::start(record.clone(), rules, self.clock, now)
            .map_err(|error| error.to_string())?;
        if let Some(patience) = self.profile.waits_for_reports() {
            reception.wait_for_reports(self.scaled(patience));
        }
        let black_hole = if self.faults.silent(self.profile, Step::Media) {
            let ever = Duration::from_secs(86_400);
            tokio::sync::watch::channel(Some(now + ever)).1
        } else {
            self.faults.black_hole(self.profile)
        };
        let (engine, commands) = mpsc::channel(COMMANDS);
        let task = Engine::new(
            ingest,
            remote,
            record.clone(),
            reception,
            commands,
            (black_hole, self.faults.throttle(self.profile)),
            now,
        )
        .run();
        let holder = Holder {
            session: record.id(),
            engine: engine.clone(),
        };
        self.names().insert(name.to_owned(), holder);
        record.state(State::Connecting);
        Ok(Running {
            engine,
            task: tokio::spawn(task),
        })
    }

    /// Names of the streams that `application` has now.
    pub(super) fn streams(&self, application: &str) -> Vec<String> {
        let prefix = format!("{application}/");
        let names = self.names();
        let streams = names.keys().filter_map(|name| name.strip_prefix(&prefix));
        let mut streams: Vec<String> = streams.map(str::to_owned).collect();
        streams.sort();
        streams
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<String, Holder>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random word of `length` characters out of `alphabet`, for mids and credentials of rehearsals.
pub(super) fn word(length: usize, alphabet: &[u8]) -> String {
    (0..length)
        .map(|_| char::from(alphabet[fastrand::usize(..alphabet.len())]))
        .collect()
}
