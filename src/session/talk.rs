//! The conversation with the server once descriptions are exchanged: it goes on while media does. Nobody waits for a call
//! of the signaller; it is driven, and its end told, by [`Talk::next`].

use futures_util::future::BoxFuture;

use crate::signal::{Error, Event, RemoteDescription, Signaller};

/// Something that came of the conversation, short of its end.
pub(super) enum Heard {
    /// The server has further candidates.
    Candidates(Vec<String>),
    /// How a [restart](Talk::restart) ended.
    Restarted(Result<RemoteDescription, Error>),
}

/// A call of the signaller, which gives it back.
type Call<'s> = BoxFuture<'s, (&'s mut dyn Signaller, Result<Option<Heard>, Error>)>;

/// A signaller and what it is to do.
pub(super) struct Talk<'s> {
    /// `None` while a call has it.
    signaller: Option<&'s mut dyn Signaller>,
    call: Option<Call<'s>>,
    /// Candidates that wait to be told, and whether they are the last. Bounded, as what the peer tells of a search is.
    untold: Option<(Vec<String>, bool)>,
    /// An offer that waits to restart ICE.
    offer: Option<String>,
    can_restart: bool,
    restarts_elsewhere: bool,
    /// A restart was asked for, and its end not told yet.
    restarting: bool,
}

impl<'s> Talk<'s> {
    pub(super) fn new(signaller: &'s mut dyn Signaller) -> Self {
        Self {
            can_restart: signaller.can_restart(),
            restarts_elsewhere: signaller.restarts_elsewhere(),
            signaller: Some(signaller),
            call: None,
            untold: None,
            offer: None,
            restarting: false,
        }
    }

    /// Tells the server of candidates of ours, see [`Signaller::trickle`].
    pub(super) fn trickle(&mut self, lines: Vec<String>, last: bool) {
        let (untold, ended) = self.untold.get_or_insert_default();
        untold.extend(lines);
        *ended |= last;
    }

    /// Whether [`restart`](Self::restart) may work, in a network that has changed or not. What a call under way changes of
    /// it is seen when it has ended.
    pub(super) fn can_restart(&self, elsewhere: bool) -> bool {
        let can_restart =
            (self.signaller.as_ref()).map_or(self.can_restart, |signaller| signaller.can_restart());
        can_restart && (self.restarts_elsewhere || !elsewhere)
    }

    /// Asks the server to restart ICE, see [`Signaller::restart`]. [`Heard::Restarted`] will say what came of it.
    pub(super) fn restart(&mut self, offer: String) {
        // Candidates of the search that is given up.
        self.untold = None;
        self.offer = Some(offer);
        self.restarting = true;
    }

    /// Whether a restart is being asked for.
    pub(super) const fn is_restarting(&self) -> bool {
        self.restarting
    }

    /// Waits for what comes of the conversation. Cancel-safe. An error is its end.
    pub(super) async fn next(&mut self) -> Result<Heard, Error> {
        loop {
            self.begin();
            if let Some(call) = &mut self.call {
                let (signaller, ended) = call.await;
                self.call = None;
                self.signaller = Some(signaller);
                if let Some(heard) = ended? {
                    self.restarting = false;
                    return Ok(heard);
                }
            } else if let Some(signaller) = &mut self.signaller {
                let Event::Candidates(candidates) = signaller.next().await?;
                return Ok(Heard::Candidates(candidates));
            }
        }
    }

    /// Begins the next call, if there is one to make and none under way.
    fn begin(&mut self) {
        if self.offer.is_none() && self.untold.is_none() {
            return;
        }
        let Some(signaller) = self.signaller.take() else {
            return;
        };
        self.can_restart = signaller.can_restart();
        if let Some(offer) = self.offer.take() {
            self.call = Some(Box::pin(async move {
                let ended = signaller.restart(&offer).await;
                (signaller, Ok(Some(Heard::Restarted(ended))))
            }));
        } else if let Some((lines, last)) = self.untold.take() {
            self.call = Some(Box::pin(async move {
                let ended = signaller.trickle(&lines, last).await;
                (signaller, ended.map(|()| None))
            }));
        }
    }
}
