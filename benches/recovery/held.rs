//! A thread of another process that sticks. To the program that is a call that does not return.
//!
//! The thread alone is stopped, by `ptrace(2)`, whose every call for it has to come from one thread here; that one
//! also takes notice of the end, without which the process would not be gone after its end.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// How often the holder looks whether anything has happened to what it holds.
const TURN: Duration = Duration::from_millis(10);

/// Longest search for the instant at which the thread is where it is to stick.
const SEARCH: Duration = Duration::from_secs(60);

/// Where the thread is to stick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// In a call of the system, as one does that waits for a device.
    Call,
    /// In a computation of its own.
    Work,
}

/// A thread that sticks until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    /// When it was stopped.
    pub(crate) since: Instant,
    _release: mpsc::Sender<()>,
}

/// Which thread is to stick, and how.
#[derive(Clone, Debug)]
pub(crate) struct Victim {
    /// Of this process.
    pub(crate) process: u32,
    /// Its name.
    pub(crate) name: String,
    /// The place where it sticks.
    pub(crate) place: Where,
    /// Threads begun by the one of this name stick too, from their first instruction on.
    pub(crate) heirs_of: Option<String>,
}

impl Victim {
    /// Makes it stick, at an instant that `seed` has a part in.
    pub(crate) async fn hold(self, seed: u64) -> anyhow::Result<Held> {
        let (release, released) = mpsc::channel();
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new()
            .name("holder".to_owned())
            .spawn(move || match self.catch(fastrand::Rng::with_seed(seed)) {
                Ok(since) => {
                    // Whoever asked may have gone, and then it goes on at once.
                    drop(tell.send(Ok(since)));
                    keep(&released);
                }
                Err(error) => drop(tell.send(Err(error))),
            })?;
        let since = told.await.context("the holder ended")??;
        Ok(Held {
            since,
            _release: release,
        })
    }

    fn catch(&self, mut chance: fastrand::Rng) -> anyhow::Result<Instant> {
        if let Some(name) = &self.heirs_of {
            let parent = self.thread(name)?;
            ptrace::seize(parent, Options::PTRACE_O_TRACECLONE).context("ptrace")?;
        }
        let thread = self.thread(&self.name)?;
        ptrace::seize(thread, Options::empty())
            .context("ptrace: is it allowed to trace one's own children here?")?;
        let begun = Instant::now();
        while begun.elapsed() < SEARCH {
            std::thread::sleep(Duration::from_micros(chance.u64(0..3_000)));
            if !self.is_there(thread)? {
                continue;
            }
            ptrace::interrupt(thread)?;
            waitpid(thread, Some(WaitPidFlag::__WALL))?;
            if self.is_there(thread)? {
                return Ok(Instant::now());
            }
            ptrace::cont(thread, None)?;
        }
        anyhow::bail!("{self:?} was never seen there")
    }

    fn thread(&self, name: &str) -> anyhow::Result<Pid> {
        for task in fs::read_dir(format!("/proc/{}/task", self.process))? {
            let task = task?;
            // One that has ended meanwhile has none.
            let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.trim_end() == name {
                let id = task.file_name();
                let id = id.to_str().context("a number")?.parse()?;
                return Ok(Pid::from_raw(id));
            }
        }
        anyhow::bail!("process {} has no thread {name}", self.process)
    }

    /// Whether the thread is at its place now.
    fn is_there(&self, thread: Pid) -> anyhow::Result<bool> {
        let file = PathBuf::from(format!("/proc/{}/task/{thread}/syscall", self.process));
        let call = fs::read_to_string(file)?;
        // The number of the call; -1 if it was stopped outside any, `running` if it was not stopped.
        let works = call.starts_with("running") || call.starts_with("-1");
        Ok(works == (self.place == Where::Work))
    }
}

/// Keeps what was stopped, and what is born of the traced, until `released`. The end of the thread that traces lets
/// all of them go on.
fn keep(released: &mpsc::Receiver<()>) {
    let mine = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
    while released.recv_timeout(TURN) == Err(mpsc::RecvTimeoutError::Timeout) {
        loop {
            match waitpid(None::<Pid>, Some(mine)) {
                Ok(WaitStatus::StillAlive) => break,
                // A thread has begun another, which is traced and stopped from birth; it goes on itself.
                Ok(WaitStatus::PtraceEvent(parent, _, libc::PTRACE_EVENT_CLONE)) => {
                    ptrace::cont(parent, None).ok();
                }
                Ok(_) => {}
                Err(Errno::EINTR) => {}
                // None is left.
                Err(_) => return,
            }
        }
    }
}
