//! What the service manager is told (`sd_notify(3)`): the socket and the words. What to say when is decided in
//! `announce`.
//!
//! The socket is opened here rather than by the crate that has the words, because that reads its address from the
//! environment at each word and knows no abstract address, which containers hand out.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// Messages that may wait for the manager: more reloads than anybody asks for while it does not listen.
const UNTOLD_MAX: usize = 16;

/// One thing to tell the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// What is under way takes up to so long from now; its time-out is to wait.
    ExtendTimeout(Duration),
    /// The start is over.
    Ready,
    /// The configuration is being read again; [`Word::Ready`] follows.
    Reloading,
    /// One line for people. Its control characters are replaced, for each line of a message is a word.
    Status(String),
    /// The end has begun.
    Stopping,
    /// All is well.
    Watchdog,
}

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. A socket that cannot
    /// be used is said, and nobody is told anything.
    pub fn from_environment() -> Self {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        Self::new(&socket, sd_notify::watchdog_enabled()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager's socket NOTIFY_SOCKET cannot be used; it is told nothing");
            Self::default()
        })
    }

    /// The manager that listens at `socket`: a path, or an abstract address that begins with `@`. It expects
    /// [`Word::Watchdog`] at least every `watchdog`.
    ///
    /// # Errors
    /// If the address is none, or the system gives no socket.
    pub fn new(socket: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(socket)?,
            _ => {
                let why = "it is neither a path nor an abstract address";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        };
        let from = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up whoever tells it.
        from.set_nonblocking(true)?;
        Ok(Self {
            to: Some((from, address)),
            watchdog: watchdog.filter(|every| !every.is_zero()),
        })
    }

    /// How often at least the manager wants to hear [`Word::Watchdog`]; `None` if it does not watch.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Whether there is a manager, which starts the process anew when it has failed.
    pub const fn is_there(&self) -> bool {
        self.to.is_some()
    }

    /// Tells `words` in one message. False if the manager takes none now: it is busy, or being executed anew.
    pub fn tell(&self, words: &[Word]) -> bool {
        let Some((from, to)) = self.to.as_ref().filter(|_| !words.is_empty()) else {
            return true;
        };
        let message: String = words.iter().map(line).collect();
        let told = from.send_to_addr(message.as_bytes(), to);
        if let Err(error) = &told {
            tracing::debug!(%error, "the service manager was not told");
        }
        told.is_ok()
    }
}

/// What the manager has not taken yet, message by message.
#[derive(Debug, Default)]
pub(super) struct Untold(VecDeque<Vec<Word>>);

impl Untold {
    /// Tells `manager` what waits, then `words`. What it does not take waits, but for what holds only at the moment:
    /// a start of which nobody hears that it is over would be ended.
    pub(super) fn tell(&mut self, manager: &Manager, words: Vec<Word>) {
        self.0.push_back(words);
        while self.0.front().is_some_and(|words| manager.tell(words)) {
            self.0.pop_front();
        }
        let mut newer_status = false;
        for words in self.0.iter_mut().rev() {
            let stopping = words.contains(&Word::Stopping);
            let later = newer_status;
            words.retain(|word| match word {
                Word::ExtendTimeout(_) => stopping,
                Word::Ready | Word::Reloading | Word::Stopping => true,
                Word::Status(_) => {
                    newer_status = true;
                    !later
                }
                Word::Watchdog => false,
            });
        }
        self.0.retain(|words| !words.is_empty());
        while self.0.len() > UNTOLD_MAX {
            self.0.pop_front();
        }
    }
}

fn line(word: &Word) -> String {
    let micros = |time: &Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let state = match word {
        Word::ExtendTimeout(time) => NotifyState::ExtendTimeoutUsec(micros(time)),
        Word::Ready => NotifyState::Ready,
        Word::Reloading => {
            // From version 253 on the manager tells by the instant which reload this is.
            let at = NotifyState::monotonic_usec_now()
                .map_or_else(|_| String::new(), |at| format!("{at}\n"));
            return format!("{}\n{at}", NotifyState::Reloading);
        }
        Word::Status(text) => {
            let text = text.replace(char::is_control, " ");
            return format!("{}\n", NotifyState::Status(&text));
        }
        Word::Stopping => NotifyState::Stopping,
        Word::Watchdog => NotifyState::Watchdog,
    };
    format!("{state}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let n_bytes = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n_bytes].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_told_at_a_path_and_at_an_abstract_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("onair-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [
            (at_path, path.into_os_string()),
            (abstract_one, format!("@{name}").into()),
        ] {
            let manager = Manager::new(&name, Some(Duration::from_secs(30))).unwrap();
            assert_eq!(manager.watchdog(), Some(Duration::from_secs(30)));
            assert!(manager.tell(&[Word::Ready, Word::Status("on air".to_owned())]));
            assert_eq!(received(&socket), "READY=1\nSTATUS=on air\n");
            manager.tell(&[Word::ExtendTimeout(Duration::from_secs(20)), Word::Watchdog]);
            assert_eq!(
                received(&socket),
                "EXTEND_TIMEOUT_USEC=20000000\nWATCHDOG=1\n"
            );
            manager.tell(&[]);
            manager.tell(&[Word::Reloading]);
            let said = received(&socket);
            let at = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
            assert!(
                at.is_some_and(|at| at.trim().parse::<u64>().is_ok()),
                "{said}"
            );
        }
    }

    #[test]
    fn what_the_manager_must_know_is_told_once_it_listens_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = Manager::new(path.as_os_str(), None).unwrap();
        let mut n_waiting = 0;
        while manager.tell(&[Word::Watchdog]) {
            n_waiting += 1;
        }
        let status = |text: &str| Word::Status(text.to_owned());
        let mut untold = Untold::default();
        let soon = Duration::from_secs(20);
        for words in [
            vec![Word::Ready, status("one")],
            vec![Word::Watchdog, Word::ExtendTimeout(soon)],
            vec![status("two"), Word::Watchdog],
            vec![Word::Stopping, Word::ExtendTimeout(soon), status("three")],
        ] {
            untold.tell(&manager, words);
        }
        for _ in 0..n_waiting {
            assert_eq!(received(&socket), "WATCHDOG=1\n");
        }
        untold.tell(&manager, vec![Word::Watchdog]);
        assert_eq!(received(&socket), "READY=1\n");
        let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nSTATUS=three\n";
        assert_eq!(received(&socket), stopping);
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        assert!(socket.recv(&mut [0; 64]).is_err() && untold.0.is_empty());

        // One that never listens again costs no more than this.
        drop(socket);
        for _ in 0..1_000 {
            untold.tell(&manager, vec![Word::Reloading]);
        }
        assert_eq!(untold.0.len(), UNTOLD_MAX);
    }

    #[test]
    fn what_a_server_says_is_no_word_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(path.as_os_str(), None).unwrap();
        let hostile = "refused: gone\nWATCHDOG=trigger\r\nREADY=1";
        manager.tell(&[Word::Status(hostile.to_owned())]);
        let said = received(&socket);
        assert_eq!(said.lines().count(), 1, "{said}");
    }

    #[test]
    fn a_manager_that_has_gone_or_never_was_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(path.as_os_str(), None).unwrap();
        // It does not read: what no longer fits is dropped.
        let told = (0..10_000).filter(|_| manager.tell(&[Word::Watchdog]));
        let told = told.count();
        assert!(told > 0 && told < 10_000, "{told}");
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        assert!(!manager.tell(&[Word::Stopping]));
        assert!(
            Manager::default().tell(&[Word::Stopping]),
            "there is nobody to tell"
        );
        assert!(Manager::new(OsStr::new("vsock:2:1"), None).is_err());
        // A manager that is executed anew binds another socket at the same place.
        let socket = UnixDatagram::bind(&path).unwrap();
        manager.tell(&[Word::Watchdog]);
        assert_eq!(received(&socket), "WATCHDOG=1\n");
    }
}
