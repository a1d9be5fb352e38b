//! Qencode's live streaming interface (protocols.md 8.2). Much of it is known only in outline: verbs are tried in
//! turn, words compared without regard to case, and a stream object is sought wherever a reply may hold it.

mod words;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::client::{Ask, Client, Credential, now};
use super::error::{Call, Error, Refusal};
use super::{Ingest, Pace, Platform, Rest, State, Stream, Witness};
use crate::config::platform::Platform as Config;
use crate::config::secret::Secret;
use crate::net::Dialer;
use crate::net::http::Method;

/// The vendor as the configuration writes it.
const VENDOR: &str = "qencode";
/// An access token lives 24 hours; it is renewed before.
const TOKEN_FOR: Duration = Duration::from_secs(23 * 3600);
/// How a stream may have to be started; the documents show only its path, and POST for a stop.
const START_VERBS: [Method; 2] = [Method::Post, Method::Put];
/// How a stream may have to be changed; which of them is unsaid.
const UPDATE_VERBS: [Method; 3] = [Method::Patch, Method::Put, Method::Post];

/// Qencode, with one project's key.
pub(super) struct Qencode {
    client: Client,
    api_key: Credential,
    /// The access token, and when it was given.
    token: Option<(Secret, Instant)>,
    /// Where events go, until a stream has been told.
    callback_url: Option<Secret>,
}

impl Qencode {
    pub(super) fn new(
        config: &Config,
        callback_url: Option<Secret>,
        dialer: Dialer,
        pace: &Pace,
    ) -> Self {
        let mut client = Client::new(VENDOR, config.api.expose(), dialer, pace, words::refusal);
        if let Some(url) = &callback_url {
            client.hide(url);
        }
        Self {
            client,
            api_key: Credential::new(VENDOR, config.credential.clone()),
            token: None,
            callback_url,
        }
    }

    /// The access token, a new one if there is none or it is old.
    async fn token(&mut self, urgent: bool) -> Result<Secret, Error> {
        if let Some((token, since)) = &self.token
            && now().saturating_duration_since(*since) < TOKEN_FOR
        {
            return Ok(token.clone());
        }
        loop {
            let api_key = self.api_key.value(urgent)?;
            self.client.hide(&api_key);
            let ask = Ask {
                call: Call::Login,
                urgent,
                method: Method::Post,
                path: &["access_token", api_key.expose()],
                query: &[],
                bearer: None,
                body: None,
            };
            match self.client.ask(ask).await {
                Ok(json) => {
                    let token =
                        words::token(&json).map_err(|why| self.client.useless(Call::Login, why))?;
                    self.client.hide(&token);
                    self.token = Some((token.clone(), now()));
                    return Ok(token);
                }
                Err(error) if error.refusal() == Some(Refusal::Credential) => {
                    if !self.api_key.refused(&error) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask(
        &mut self,
        call: Call,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> Result<Value, Error> {
        let urgent = call == Call::Stop;
        let mut renewed = false;
        loop {
            let token = self.token(urgent).await?;
            let ask = Ask {
                call,
                urgent,
                method,
                path,
                query: &[],
                bearer: Some(&token),
                body: body.clone(),
            };
            match self.client.ask(ask).await {
                Err(error) if error.refusal() == Some(Refusal::Credential) => {
                    // What is not vital is no verdict on the key.
                    if renewed && call == Call::Update {
                        return Err(error);
                    }
                    self.token = None;
                    // A token that was just given is refused as well, so it is the key that is.
                    if renewed && !self.api_key.refused(&error) {
                        return Err(error);
                    }
                    renewed = !renewed;
                }
                Ok(json) => {
                    self.api_key.taken();
                    return Ok(json);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn stream(
        &mut self,
        call: Call,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> Result<Stream, Error> {
        let json = self.ask(call, method, path, body).await?;
        words::stream(&json).ok_or_else(|| {
            let why = "it holds no stream with an id".to_owned();
            self.client.useless(call, why)
        })
    }

    /// Tells Qencode where the stream's events go. A failure is said, and keeps nothing off the air.
    async fn tell_callback(&mut self, id: &str) {
        let Some(url) = self.callback_url.take() else {
            return;
        };
        let body = json!({ "callback_url": url.expose() });
        for method in UPDATE_VERBS {
            let path = ["live-streams", id];
            match self
                .ask(Call::Update, method, &path, Some(body.clone()))
                .await
            {
                Ok(_) => return,
                // Not this verb.
                Err(Error::Refused {
                    status: 404 | 405 | 501,
                    ..
                }) => {}
                Err(error) => {
                    tracing::warn!("the callback URL is not set: {error}");
                    self.callback_url = Some(url);
                    return;
                }
            }
        }
        tracing::warn!("the callback URL is not set: Qencode takes none of the known verbs for it");
    }
}

#[async_trait]
impl Platform for Qencode {
    fn vendor(&self) -> &'static str {
        VENDOR
    }

    async fn list(&mut self) -> Result<Vec<Stream>, Error> {
        let json = (self.ask(Call::List, Method::Get, &["live-streams"], None)).await?;
        words::streams(&json).ok_or_else(|| {
            let why = "it holds no list of streams".to_owned();
            self.client.useless(Call::List, why)
        })
    }

    async fn show(&mut self, id: &str) -> Result<Stream, Error> {
        let path = ["live-streams", id];
        self.stream(Call::Show, Method::Get, &path, None).await
    }

    async fn create(&mut self, name: &str) -> Result<Stream, Error> {
        let path = ["live-streams"];
        let named = Some(json!({ "name": name }));
        match self.stream(Call::Create, Method::Post, &path, named).await {
            // The names of its parameters are not known for certain, and all of them are optional.
            Err(Error::Refused {
                status: 400 | 422, ..
            }) => {
                self.stream(Call::Create, Method::Post, &path, Some(json!({})))
                    .await
            }
            got => got,
        }
    }

    async fn start(&mut self, stream: &Stream) -> Result<Stream, Error> {
        self.tell_callback(&stream.id).await;
        let path = ["live-streams", &stream.id, "start"];
        let [first, second] = START_VERBS;
        let mut answer = self.ask(Call::Start, first, &path, None).await;
        if let Err(Error::Refused {
            status: 405 | 501, ..
        }) = &answer
        {
            answer = self.ask(Call::Start, second, &path, None).await;
        }
        let json = match answer {
            Ok(json) => json,
            Err(error) if error.refusal() == Some(Refusal::WrongState) => {
                let shown = self.show(&stream.id).await?;
                return match shown.state {
                    State::Live | State::Ready | State::Starting => Ok(shown),
                    // A word that is not known, with a server: it runs.
                    State::Other(_) if matches!(shown.ingest, Ingest::At(_)) => Ok(shown),
                    State::Other(_) | State::Stopped | State::Stopping => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let mut started = stream.clone();
        started.ingest = words::ingest(&json);
        started.state = match (words::state(&json), &started.ingest) {
            // A server is handed out for a stream that is started, whatever the reply still calls it.
            (None | Some(State::Stopped | State::Other(_)), Ingest::At(_)) => State::Ready,
            (None | Some(State::Stopped), Ingest::Foreign(_) | Ingest::Unsaid) => State::Starting,
            (Some(state), _) => state,
        };
        Ok(started)
    }

    async fn refresh(&mut self, stream: &Stream) -> Result<Stream, Error> {
        let mut shown = self.show(&stream.id).await?;
        // The object may leave out what the start said.
        if shown.ingest == Ingest::Unsaid && shown.state.is_charged() {
            shown.ingest = stream.ingest.clone();
        }
        Ok(shown)
    }

    async fn stop(&mut self, id: &str) -> Result<Rest, Error> {
        let path = ["live-streams", id, "stop"];
        match self.ask(Call::Stop, Method::Post, &path, None).await {
            // It stops at once.
            Ok(_) => Ok(Rest {
                state: State::Stopped,
                obeyed: true,
            }),
            Err(error) if error.refusal() == Some(Refusal::WrongState) => {
                let path = ["live-streams", id];
                let shown = self.stream(Call::Stop, Method::Get, &path, None).await?;
                match shown.state {
                    state @ (State::Stopped | State::Stopping) => Ok(Rest {
                        state,
                        obeyed: false,
                    }),
                    State::Live | State::Other(_) | State::Ready | State::Starting => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(&mut self, id: &str) -> Result<(), Error> {
        let path = ["live-streams", id];
        self.ask(Call::Delete, Method::Delete, &path, None)
            .await
            .map(drop)
    }

    async fn witness(&mut self, id: &str) -> Result<Witness, Error> {
        let connected = match self.show(id).await?.state {
            State::Live => Some(true),
            State::Ready | State::Stopped | State::Stopping => Some(false),
            State::Other(_) | State::Starting => None,
        };
        Ok(Witness {
            connected,
            warnings: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
