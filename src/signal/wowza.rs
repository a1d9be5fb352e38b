//! Wowza without knowing which of its two dialects the server speaks.
//!
//! Both are spoken at one path, by servers of any age, and asking is free: a reply in the words of the other dialect
//! turns the same session to that one, on a new socket, with the same offer; silence turns the next session. What got an
//! answer is kept (`choice` has the rules).

mod choice;

use async_trait::async_trait;

use self::choice::{Choice, Evidence};
use super::wowza_v1::WowzaV1;
use super::wowza_v2::{FLAG, WowzaV2, flag_of};
use super::{Dialect, Error, Event, Opening, Parting, RemoteDescription, Signaller};
use crate::config::secret::Secret;
use crate::net::{self, Dialer};

/// The signaller that finds out the dialect.
pub struct Wowza {
    v1: WowzaV1,
    v2: WowzaV2,
    /// What to speak at the next opportunity.
    choice: Choice,
    /// What this session speaks; between two of them, what the next one will.
    spoken: Dialect,
}

impl Wowza {
    /// A signaller for `url`, as [`WowzaV1::new`] and [`WowzaV2::new`] take it. If it selects the newer implementation,
    /// that dialect is tried first.
    pub fn new(url: &Secret, application: &str, stream: &Secret, dialer: Dialer) -> Self {
        let choice = Choice::new(flag_of(url).as_deref());
        let older = without_flag(url);
        Self {
            v1: WowzaV1::new(&older, application, stream, dialer.clone()),
            v2: WowzaV2::new(url, application, stream, dialer),
            choice,
            spoken: choice.dialect(),
        }
    }

    fn current(&self) -> &dyn Signaller {
        match self.spoken {
            Dialect::WowzaV2 => &self.v2,
            Dialect::Ome | Dialect::Whip | Dialect::WowzaV1 => &self.v1,
        }
    }

    fn current_mut(&mut self) -> &mut dyn Signaller {
        match self.spoken {
            Dialect::WowzaV2 => &mut self.v2,
            Dialect::Ome | Dialect::Whip | Dialect::WowzaV1 => &mut self.v1,
        }
    }

    /// Opens a socket in the dialect of choice.
    async fn connect(&mut self, unreached: u32) -> Result<Opening, Error> {
        self.spoken = self.choice.dialect();
        let opening = self.current_mut().open(unreached).await;
        if let Err(Error::Connect(net::Error::Status { .. })) = &opening {
            self.note(Evidence::TurnedAway);
        }
        opening
    }

    fn note(&mut self, evidence: Evidence) {
        self.choice.note(evidence);
        let next = self.choice.dialect();
        if next != self.spoken {
            tracing::info!(spoken = %self.spoken, ?evidence, "will speak {next} to this server");
        }
    }
}

#[async_trait]
impl Signaller for Wowza {
    fn dialect(&self) -> Dialect {
        self.spoken
    }

    /// Bounded by the deadlines of [`net`].
    async fn open(&mut self, unreached: u32) -> Result<Opening, Error> {
        self.connect(unreached).await
    }

    /// Bounded as in either dialect; if the first is contradicted, by that of both and another opening.
    async fn exchange(&mut self, local_sdp: &str) -> Result<Option<RemoteDescription>, Error> {
        let mut result = self.current_mut().exchange(local_sdp).await;
        if let Err(Error::OtherDialect { .. }) = &result {
            self.note(Evidence::Contradicted);
            self.current_mut().close(Parting::Abandon).await;
            self.connect(0).await?;
            result = self.current_mut().exchange(local_sdp).await;
        }
        self.note(match &result {
            Ok(_) | Err(Error::Refused { .. } | Error::Sdp { .. }) => Evidence::Answered,
            // Both say that it is the other; the next session begins with what this one began with.
            Err(Error::OtherDialect { .. }) => Evidence::Contradicted,
            Err(
                Error::Closed { .. }
                | Error::Connect(_)
                | Error::NoRestart
                | Error::Protocol { .. }
                | Error::StreamGone { .. }
                | Error::Timeout { .. },
            ) => Evidence::Silence,
        });
        result
    }

    async fn trickle(&mut self, candidates: &[String], last: bool) -> Result<(), Error> {
        self.current_mut().trickle(candidates, last).await
    }

    fn can_restart(&self) -> bool {
        self.current().can_restart()
    }

    fn restarts_elsewhere(&self) -> bool {
        self.current().restarts_elsewhere()
    }

    async fn restart(&mut self, local_sdp: &str) -> Result<RemoteDescription, Error> {
        self.current_mut().restart(local_sdp).await
    }

    async fn next(&mut self) -> Result<Event, Error> {
        self.current_mut().next().await
    }

    async fn close(&mut self, parting: Parting) {
        self.current_mut().close(parting).await;
        self.spoken = self.choice.dialect();
    }
}

/// `url` for the older dialect: the parameter that selects the newer implementation would send us there.
fn without_flag(url: &Secret) -> Secret {
    let url = url.expose();
    let Some((front, rest)) = url.split_once('?') else {
        return Secret::new(url);
    };
    let query = rest.split('#').next().unwrap_or_default();
    let kept: Vec<&str> = (query.split('&'))
        .filter(|pair| pair.split('=').next() != Some(FLAG))
        .collect();
    Secret::new(match kept.join("&").as_str() {
        "" => front.to_owned(),
        query => format!("{front}?{query}"),
    })
}

#[cfg(test)]
mod tests;
