//! A program under test: what it says line by line, waiting for a word of it with a deadline, and its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::now;

/// How long a program may take to end in order.
const END: Duration = Duration::from_secs(20);

/// A line of output, and when it came.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) at: Instant,
    pub(crate) line: String,
}

impl Said {
    /// A field of a line of the log; empty if it has none of that name.
    pub(crate) fn field(&self, name: &str) -> String {
        let object: Option<Value> = serde_json::from_str(&self.line).ok();
        let field = object.as_ref().and_then(|object| object.get(name));
        match field {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// A running program, killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<Said>,
    log: File,
}

impl Program {
    /// Starts `command`; everything that it says is also written to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?} does not start: {error}"))?;
        let (sender, lines) = channel();
        if let Some(out) = child.stdout.take() {
            follow(out, sender.clone());
        }
        if let Some(err) = child.stderr.take() {
            follow(err, sender);
        }
        let log = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        Ok(Self { child, lines, log })
    }

    /// Waits until `wanted` makes something of a line.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Said) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = now() + within;
        loop {
            match self.next(deadline) {
                Ok(said) => {
                    if let Some(found) = wanted(&said) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{what}: not within {} s", within.as_secs()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{what}: the program ended before"));
                }
            }
        }
    }

    /// What it says within a tenth of a second.
    pub(crate) fn soon(&mut self) -> Option<Said> {
        self.next(now() + Duration::from_millis(100)).ok()
    }

    /// Tells it to end in order and waits for that; every line that it still says goes to `each`.
    pub(crate) fn end(mut self, mut each: impl FnMut(&Said)) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let told = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status();
        told.map_err(|error| format!("sh does not run: {error}"))?;
        let deadline = now() + END;
        loop {
            match self.next(deadline) {
                Ok(said) => each(&said),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("told to end, it goes on for {} s", END.as_secs()));
                }
            }
        }
        self.child
            .wait()
            .map(drop)
            .map_err(|error| error.to_string())
    }

    fn next(&mut self, deadline: Instant) -> Result<Said, RecvTimeoutError> {
        let left = deadline.saturating_duration_since(now());
        let said = self.lines.recv_timeout(left)?;
        // A log that cannot be written is missed only by whoever looks for it.
        drop(writeln!(self.log, "{}", said.line));
        Ok(said)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Passes the lines of `pipe` on until it closes.
fn follow(pipe: impl Read + Send + 'static, lines: Sender<Said>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if lines.send(Said { at: now(), line }).is_err() {
                return;
            }
        }
    });
}
