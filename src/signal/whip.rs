//! WHIP (RFC 9725).

use async_trait::async_trait;

use super::{Dialect, Error, Event, Opening, Parting, RemoteDescription, Signaller};
use crate::config::Trickle;
use crate::config::secret::{Bearer, Secret};
use crate::net::Dialer;

/// The signaller for WHIP.
pub struct Whip;

impl Whip {
    /// A signaller for `url`.
    pub fn new(
        _url: &Secret,
        _bearer: Option<&Bearer>,
        _trickle: Trickle,
        _dialer: Dialer,
    ) -> Self {
        Self
    }
}

#[async_trait]
impl Signaller for Whip {
    fn dialect(&self) -> Dialect {
        Dialect::Whip
    }

    async fn open(&mut self, _unreached: u32) -> Result<Opening, Error> {
        Ok(Opening::SendOffer)
    }

    async fn exchange(&mut self, _local_sdp: &str) -> Result<Option<RemoteDescription>, Error> {
        Err(Error::NoRestart)
    }

    async fn next(&mut self) -> Result<Event, Error> {
        std::future::pending().await
    }

    async fn close(&mut self, _parting: Parting) {}
}
