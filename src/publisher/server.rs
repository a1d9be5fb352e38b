//! From a server of the configuration to the signaller that speaks to it.

use crate::config::secret::SecretSource;
use crate::config::{self, Proxy, Server, Transport, Trust, WowzaDialect};
use crate::net::{self, Dialer};
use crate::signal::ome::Ome;
use crate::signal::whip::{Picture, Reread, Token, Whip};
use crate::signal::wowza::Wowza;
use crate::signal::wowza_v1::WowzaV1;
use crate::signal::wowza_v2::WowzaV2;
use crate::signal::{Dialect, Signaller};

/// The dialect that is tried first at a server.
pub(super) const fn dialect(server: &Server) -> Dialect {
    use crate::config::platform::Vendor;
    let wowza = match server {
        Server::Ome { .. } | Server::Qencode { .. } => return Dialect::Ome,
        Server::Platform(platform) => match &platform.vendor {
            Vendor::Qencode { .. } => return Dialect::Ome,
            Vendor::WowzaVideo { dialect, .. } => dialect,
        },
        Server::Whip { .. } => return Dialect::Whip,
        Server::Wowza { dialect, .. } => dialect,
    };
    match wowza {
        WowzaDialect::Auto | WowzaDialect::V1 => Dialect::WowzaV1,
        WowzaDialect::V2 => Dialect::WowzaV2,
    }
}

/// What making a signaller takes, besides the server.
#[derive(Clone)]
pub(super) struct Signallers {
    trust: Trust,
    proxy: Proxy,
    transport: Transport,
    picture: Option<Picture>,
}

impl Signallers {
    pub(super) fn new(config: &config::Publisher, picture: Option<Picture>) -> Self {
        Self {
            trust: config.trust.clone(),
            proxy: config.proxy.clone(),
            transport: config.transport,
            picture,
        }
    }

    /// How connections to `server` are made. Reads certificate authorities, so it may block for some milliseconds.
    pub(super) fn dialer(&self, server: &Server) -> Result<Dialer, net::Error> {
        Dialer::new(server.url(), &self.trust, &self.proxy)
    }

    /// Makes the signaller for `server`; none for a platform, which is no server itself.
    pub(super) fn signaller(&self, server: &Server, dialer: Dialer) -> Option<Box<dyn Signaller>> {
        Some(match server {
            Server::Ome { url } => {
                let asks: &[_] = match self.transport {
                    Transport::Auto => &["all", "tcp"],
                    Transport::Relay => &["relay", "tcp"],
                    Transport::Tcp => &["tcp", "relay"],
                    Transport::Udp => &["udp"],
                };
                Box::new(Ome::new(url, asks, dialer))
            }
            Server::Platform(_) => return None,
            Server::Qencode { url } => {
                let asks: &[_] = match self.transport {
                    // Qencode's own kit adds `tcp` to every URL (protocols.md 6.1).
                    Transport::Auto => &["tcp", "all", "relay"],
                    Transport::Relay => &["relay", "tcp"],
                    Transport::Tcp => &["tcp", "relay"],
                    Transport::Udp => &["udp"],
                };
                Box::new(Ome::new(url, asks, dialer))
            }
            Server::Whip {
                url,
                bearer,
                trickle,
            } => {
                let token = bearer.as_ref().map(|bearer| Token {
                    value: bearer.token.clone(),
                    reread: bearer.source.clone().map(reread),
                });
                Box::new(Whip::new(url, token, *trickle, self.picture, dialer))
            }
            Server::Wowza {
                url,
                application,
                stream,
                dialect,
            } => match dialect {
                WowzaDialect::Auto => Box::new(Wowza::new(url, application, stream, dialer)),
                WowzaDialect::V1 => Box::new(WowzaV1::new(url, application, stream, dialer)),
                WowzaDialect::V2 => Box::new(WowzaV2::new(url, application, stream, dialer)),
            },
        })
    }
}

/// Reads a token again where the configuration found it.
fn reread(source: SecretSource) -> Reread {
    Box::new(move || match config::load::reread(&source) {
        Ok(token) => Some(token),
        Err(why) => {
            tracing::warn!("the bearer token cannot be read again: {why}");
            None
        }
    })
}
