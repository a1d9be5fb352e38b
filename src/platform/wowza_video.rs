//! Wowza Video's REST interface, version 2.0 (protocols.md 8.1).

mod words;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::client::{Ask, Client, Credential};
use super::error::{Call, Error, Refusal};
use super::{Ingest, Pace, Platform, Rest, State, Stream, Witness};
use crate::config::WowzaDialect;
use crate::config::platform::{Create, Platform as Config};
use crate::net::Dialer;
use crate::net::http::Method;

/// The vendor as the configuration writes it.
const VENDOR: &str = "wowza-video";
/// Streams asked for at once; a page of them is far below the largest reply taken.
const PER_PAGE: usize = 200;
/// Most pages asked for.
const PAGES_MAX: usize = 25;

/// Wowza Video, with one account's token.
pub(super) struct WowzaVideo {
    client: Client,
    token: Credential,
    dialect: WowzaDialect,
    create: Option<Create>,
}

impl WowzaVideo {
    pub(super) fn new(
        config: &Config,
        dialect: WowzaDialect,
        create: Option<Create>,
        dialer: Dialer,
        pace: &Pace,
    ) -> Self {
        Self {
            client: Client::new(VENDOR, config.api.expose(), dialer, pace, words::refusal),
            token: Credential::new(VENDOR, config.credential.clone()),
            dialect,
            create,
        }
    }

    async fn ask(
        &mut self,
        call: Call,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, Error> {
        let urgent = call == Call::Stop;
        loop {
            let token = self.token.value(urgent)?;
            self.client.hide(&token);
            let ask = Ask {
                call,
                urgent,
                method,
                path,
                query,
                bearer: Some(&token),
                body: body.clone(),
            };
            match self.client.ask(ask).await {
                Err(error) if error.refusal() == Some(Refusal::Credential) => {
                    if !self.token.refused(&error) {
                        return Err(error);
                    }
                }
                Ok(json) => {
                    self.token.taken();
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
        let json = self.ask(call, method, path, &[], body).await?;
        words::stream(&json, self.dialect).map_err(|why| self.client.useless(call, why))
    }

    /// The state, asked for as a part of `call`.
    async fn state(&mut self, call: Call, id: &str) -> Result<State, Error> {
        let path = ["live_streams", id, "state"];
        let json = (self.ask(call, Method::Get, &path, &[], None)).await?;
        words::state(&json).map_err(|why| self.client.useless(call, why))
    }
}

#[async_trait]
impl Platform for WowzaVideo {
    fn vendor(&self) -> &'static str {
        VENDOR
    }

    async fn list(&mut self) -> Result<Vec<Stream>, Error> {
        let mut streams = Vec::new();
        for page in 1..=PAGES_MAX {
            let (page, per_page) = (page.to_string(), PER_PAGE.to_string());
            let query = [("page", page.as_str()), ("per_page", per_page.as_str())];
            let path = ["live_streams"];
            let json = (self.ask(Call::List, Method::Get, &path, &query, None)).await?;
            let (found, is_last) = words::streams(&json, PER_PAGE)
                .map_err(|why| self.client.useless(Call::List, why))?;
            streams.extend(found);
            if is_last {
                return Ok(streams);
            }
        }
        tracing::warn!(
            "the account has more than {} streams; only these were looked at, so name one by its stream_id",
            PAGES_MAX * PER_PAGE
        );
        Ok(streams)
    }

    async fn show(&mut self, id: &str) -> Result<Stream, Error> {
        let path = ["live_streams", id];
        self.stream(Call::Show, Method::Get, &path, None).await
    }

    async fn create(&mut self, name: &str) -> Result<Stream, Error> {
        let Some(create) = &self.create else {
            return Err(self.client.useless(
                Call::Create,
                "Wowza must be told where the stream is ingested; \
                 give create = { broadcast_location = \"...\" }"
                    .to_owned(),
            ));
        };
        let body = json!({ "live_stream": words::new_stream(name, create) });
        let path = ["live_streams"];
        (self.stream(Call::Create, Method::Post, &path, Some(body))).await
    }

    async fn start(&mut self, stream: &Stream) -> Result<Stream, Error> {
        let path = ["live_streams", &stream.id, "start"];
        let state = match self.ask(Call::Start, Method::Put, &path, &[], None).await {
            Ok(json) => words::state(&json).unwrap_or(State::Starting),
            Err(error) if error.refusal() == Some(Refusal::WrongState) => {
                match self.state(Call::Show, &stream.id).await? {
                    runs @ (State::Live | State::Ready | State::Starting) => runs,
                    State::Other(_) | State::Stopped | State::Stopping => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        Ok(Stream {
            state,
            ..stream.clone()
        })
    }

    async fn refresh(&mut self, stream: &Stream) -> Result<Stream, Error> {
        if stream.ingest == Ingest::Unsaid {
            return self.show(&stream.id).await;
        }
        Ok(Stream {
            state: self.state(Call::Show, &stream.id).await?,
            ..stream.clone()
        })
    }

    async fn stop(&mut self, id: &str) -> Result<Rest, Error> {
        let path = ["live_streams", id, "stop"];
        match self.ask(Call::Stop, Method::Put, &path, &[], None).await {
            Ok(json) => Ok(Rest {
                state: words::state(&json).unwrap_or(State::Stopping),
                obeyed: true,
            }),
            Err(error) if error.refusal() == Some(Refusal::WrongState) => {
                match self.state(Call::Stop, id).await? {
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
        let path = ["live_streams", id];
        self.ask(Call::Delete, Method::Delete, &path, &[], None)
            .await
            .map(drop)
    }

    async fn witness(&mut self, id: &str) -> Result<Witness, Error> {
        let path = ["analytics", "ingest", "live_streams", id];
        let json = (self.ask(Call::Witness, Method::Get, &path, &[], None)).await?;
        Ok(words::witness(&json))
    }
}

#[cfg(test)]
mod tests;
