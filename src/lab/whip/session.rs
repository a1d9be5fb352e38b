//! One session by WHIP: what its URL is asked, the engine behind it, and its end.
//!
//! There is no connection that could end: a session lasts until it is deleted, until its media is parted from and the
//! deletion stays away, or until nothing is heard.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Make;
use super::Reply;
use super::sdpfrag;
use super::sdpfrag::Fragment;
use crate::lab::LAST_WORDS;
use crate::lab::engine::Command;
use crate::lab::engine::End;
use crate::lab::faults::Step;
use crate::lab::hub::Ask;
use crate::lab::hub::Record;
use crate::lab::hub::Side;
use crate::lab::ingest::Credentials;
use crate::lab::judge::Rules;
use crate::lab::now;
use crate::lab::station::Running;
use crate::lab::station::Station;
use crate::lab::station::ended;
use crate::lab::station::word;

/// What the URL of a session is asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) what: What,
    /// As it is shown.
    pub(super) text: String,
    /// A bearer was sent where none belongs.
    pub(super) leaked: bool,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// A request that a session takes.
#[derive(Debug)]
pub(super) enum What {
    Delete,
    Patch {
        content_type: String,
        if_match: Option<String>,
        body: String,
    },
}

/// A session that has been agreed on.
pub(super) struct Session {
    pub(super) station: Arc<Station>,
    pub(super) record: Record,
    pub(super) rules: Rules,
    pub(super) name: String,
    pub(super) key: String,
    /// As in the header.
    pub(super) etag: String,
    pub(super) running: Option<Running>,
    /// What the publisher's description said last.
    pub(super) remote: Credentials,
    pub(super) candidates: Vec<String>,
    /// First section of the answer: its `m=` line, and its mid.
    pub(super) section: (String, String),
    pub(super) lite: bool,
}

impl Session {
    /// Serves the session until it ends.
    pub(super) async fn serve(
        mut self,
        mut requests: mpsc::Receiver<Asked>,
        mut asks: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) {
        let mut parted: Option<Instant> = None;
        // As many as silences were asked for.
        let mut unanswered = Vec::new();
        let (reason, command) = loop {
            tokio::select! {
                Some(asked) = requests.recv() => {
                    self.record.message(now(), Some(Side::Publisher), &asked.text);
                    if asked.leaked {
                        self.violation("bearer", "it was sent to another origin");
                    }
                    let (reply, delete) = match asked.what {
                        What::Delete => {
                            // Forgotten first: who asks again finds nothing.
                            self.forget();
                            (Some(Reply::new(200)), true)
                        }
                        What::Patch { content_type, if_match, body } => {
                            (self.patch(&content_type, if_match.as_deref(), &body).await, false)
                        }
                    };
                    if let Some(reply) = reply {
                        self.record.message(now(), Some(Side::Lab), &reply.shown());
                        // A publisher that did not wait for the reply does without.
                        asked.reply.send(reply).ok();
                    } else {
                        self.remark("a fault: silence instead of a reply");
                        unanswered.push(asked.reply);
                    }
                    if delete {
                        break ("the publisher deleted the session", Command::Drop { orderly: true });
                    }
                }
                end = ended(self.running.as_mut()) => {
                    self.running = None;
                    match end {
                        End::Told => break ("the stream was deleted", Command::Drop { orderly: false }),
                        End::Silent => break ("nothing was heard", Command::Drop { orderly: false }),
                        End::Closed => {
                            self.station.release(&self.name, self.record.id());
                            parted = Some(Instant::now() + LAST_WORDS);
                        }
                    }
                }
                () = until(parted) => {
                    if self.rules == Rules::Agent {
                        self.violation("delete", "the session was left without DELETE");
                    }
                    break ("the publisher ended the media", Command::Drop { orderly: false });
                }
                Some(ask) = asks.recv() => match ask {
                    Ask::KeyFrame => self.tell(Command::KeyFrame).await,
                    Ask::Close { .. } | Ask::DropSocket => self.remark("a fault without effect: there is no socket"),
                    Ask::End => break ("a fault: the server ended it", Command::Shut),
                },
                () = stop.cancelled() => break ("the lab stopped", Command::Shut),
            }
        };
        self.forget();
        if let Some(running) = self.running.take() {
            running.stop(command).await;
        }
        self.remark(&format!("the end: {reason}"));
        self.record.end(now(), reason);
    }

    /// Tells the engine of a candidate of the publisher's, as after `a=`.
    pub(super) async fn told(&self, candidate: String) {
        self.tell(Command::Candidate(candidate)).await;
    }

    fn forget(&self) {
        self.station.release(&self.name, self.record.id());
        self.station.whip.forget(&self.key);
    }

    async fn tell(&self, command: Command) {
        if let Some(running) = &self.running {
            // An engine that is ending needs no telling.
            running.engine.send(command).await.ok();
        }
    }

    /// Replies to a PATCH; `None` for silence.
    async fn patch(
        &mut self,
        content_type: &str,
        if_match: Option<&str>,
        body: &str,
    ) -> Option<Reply> {
        let (faults, profile) = (&self.station.faults, self.station.profile);
        let make = Make::of(profile);
        if let Some(status) = faults.patch_refusal(profile) {
            return Some(Reply::refused(status, "PATCH is refused"));
        }
        match make {
            // It reads the body, and takes nothing of it.
            Make::Ome => return Some(Reply::new(204)),
            Make::Wowza if body.is_empty() => return Some(Reply::new(200)),
            Make::Wowza if body.starts_with("candidate:") => {
                self.tell(Command::Candidate(body.trim_end().to_owned()))
                    .await;
                return Some(Reply::new(200));
            }
            Make::Rfc | Make::Wowza => {}
        }
        if make == Make::Rfc && content_type != "application/trickle-ice-sdpfrag" {
            self.violation("content-type", &format!("PATCH with {content_type:?}"));
            return Some(Reply::refused(
                415,
                "application/trickle-ice-sdpfrag is wanted",
            ));
        }
        // Wowza's restart is two lines, without a section.
        let bare = make == Make::Wowza && !body.contains("m=");
        let fragment = if bare {
            Fragment::parse(&format!("{}\r\nm=-\r\na=mid:-\r\n", body.trim_end()))
        } else {
            Fragment::parse(body)
        };
        let fragment = match fragment {
            Ok(fragment) => fragment,
            Err(why) => {
                self.violation("sdpfrag", &why);
                return Some(Reply::refused(400, &why));
            }
        };
        let told = (
            fragment.ufrag.unwrap_or_default(),
            fragment.pwd.unwrap_or_default(),
        );
        let restart = told != self.remote;
        if make == Make::Rfc {
            if let Some(refusal) = self.precondition(if_match, restart) {
                return Some(refusal);
            }
            if !bare && !fragment.mids.contains(&self.section.1) {
                let what = format!("the mids {:?} are not those of the session", fragment.mids);
                self.violation("sdpfrag", &what);
            }
        }
        if !restart {
            for candidate in fragment.candidates {
                self.tell(Command::Candidate(candidate)).await;
            }
            return Some(Reply::new(204));
        }
        if faults.silent(profile, Step::Restart) {
            return None;
        }
        if let Some(status) = faults.restart_refusal(profile) {
            return Some(Reply::refused(status, "the ICE restart is refused"));
        }
        if self.running.is_none() {
            return Some(Reply::refused(410, "the session has ended"));
        }
        Some(self.restart(told, fragment.candidates).await)
    }

    /// What RFC 9725 asks of `If-Match`: the entity tag for candidates, `*` for a restart.
    fn precondition(&self, if_match: Option<&str>, restart: bool) -> Option<Reply> {
        let Some(tag) = if_match else {
            self.violation("if-match", "PATCH without If-Match");
            return Some(Reply::refused(428, "If-Match is wanted"));
        };
        // RFC 9725 puts the asterisk in quotation marks, RFC 9110 does not.
        if restart && tag != "*" && tag != "\"*\"" {
            self.violation("if-match", "an ICE restart with an If-Match other than *");
            return Some(Reply::refused(412, "If-Match: \"*\" is wanted"));
        }
        if !restart && tag != self.etag {
            self.violation("if-match", "an entity tag that is not the session's");
            return Some(Reply::refused(412, "the entity tag is another"));
        }
        None
    }

    async fn restart(&mut self, remote: Credentials, candidates: Vec<String>) -> Reply {
        let local = (word(8, super::LETTERS), word(32, super::LETTERS));
        let restart = Command::Restart {
            local: local.clone(),
            remote: remote.clone(),
        };
        self.tell(restart).await;
        for candidate in candidates {
            self.tell(Command::Candidate(candidate)).await;
        }
        self.remote = remote;
        let section = (&*self.section.0, &*self.section.1);
        let body = if Make::of(self.station.profile) == Make::Wowza {
            format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", local.0, local.1)
        } else {
            sdpfrag::restarted(&local.0, &local.1, &self.candidates, section, self.lite)
        };
        let mut reply = Reply::new(200)
            .with("content-type", "application/trickle-ice-sdpfrag")
            .body(body);
        if Make::of(self.station.profile) == Make::Rfc {
            self.etag = format!("\"{}\"", word(8, super::LETTERS));
            reply = reply.with("etag", &self.etag);
        }
        reply
    }

    fn violation(&self, rule: &'static str, detail: &str) {
        self.record
            .tally(|tally| tally.violation(rule, detail.to_owned()));
    }

    fn remark(&self, text: &str) {
        self.record.message(now(), None, text);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending::<()>().await,
    }
}

/// Requests that may wait for a session.
pub(super) const REQUESTS: usize = 16;
