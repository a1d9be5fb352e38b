//! The tables `[publisher.<name>]`: which server, by which road, trusted how.

use jiff::tz::TimeZone;
use toml::de::DeValue;
use url::Url;

use super::platform::{PLATFORM, QENCODE, WOWZA_VIDEO};
use super::read::{Read, Reader, Table, each, one_of, text, truth};
use crate::config::ice_server::{ICE_SERVERS_MAX, IceKind, IceServer, IceUrl, NotAnIceUrl};
use crate::config::schedule::Schedule;
use crate::config::secret::{Bearer, Secret, SecretSource};
use crate::config::{Proxy, Publisher, Server, Transport, Trickle, Trust, WowzaDialect, pin};

/// What every publisher may have.
pub(super) const KEYS: [&str; 10] = [
    "feed",
    "to",
    "transport",
    "ice_servers",
    "proxy",
    "ca_file",
    "pins",
    "insecure_tls",
    "on_air",
    "time_zone",
];
/// What a server that is not asked for at a platform needs.
const URL: &str = "url";
/// What only a WHIP server needs.
const WHIP: [&str; 3] = [URL, "bearer", "trickle"];
/// What only Wowza needs.
const WOWZA: [&str; 4] = [URL, "application", "stream", "dialect"];
/// How a secret may be written.
const SECRET: &str =
    "a text, or { credential = \"NAME\" }, { file = \"PATH\" } or { env = \"NAME\" }";

/// A secret as the file gives it.
pub(super) struct Written {
    pub(super) secret: Secret,
    /// Where it is kept, if not in the file.
    source: Option<SecretSource>,
    /// Where in the file it stands.
    pub(super) at: usize,
    /// Whether it was fetched; else it stands for itself, and its form is not known.
    pub(super) known: bool,
}

impl Reader<'_> {
    pub(super) fn publisher(&mut self, root: &Table<'_>, table: &Table<'_>) -> Option<Publisher> {
        let feed = self.required(table, "feed", text);
        self.known_feed(root, table, feed.as_deref());
        let kind = self.required(table, "to", |v| {
            one_of(v, &["ome", "qencode", "whip", "wowza", "wowza-video"])
        });
        let server = match kind {
            Some("whip") => self.whip(table),
            Some("wowza") => self.wowza(table),
            Some("wowza-video") => self.wowza_video(table),
            Some("qencode") if !table.entries.contains_key(URL) => self.qencode(table),
            Some(ome) => {
                self.only(table, &KEYS, &[URL]);
                self.url(table, ["ws", "wss"]).map(|url| match ome {
                    "qencode" => Server::Qencode { url },
                    _ => Server::Ome { url },
                })
            }
            None => {
                let all = [WHIP.as_slice(), &WOWZA, &PLATFORM, &WOWZA_VIDEO, &QENCODE];
                self.only(table, &KEYS, &all.concat());
                None
            }
        };
        let transport = self.optional(table, "transport", Transport::Auto, |v| {
            Ok(match one_of(v, &["auto", "relay", "tcp", "udp"])? {
                "relay" => Transport::Relay,
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => Transport::Auto,
            })
        });
        let ice_servers = self.ice_servers(table);
        let proxy = self.proxy(table);
        let ca_file = self.optional(table, "ca_file", None, |v| text(v).map(Some));
        let trust = Trust {
            ca_file: ca_file.map(|path| self.file(table, "ca_file", &path)),
            pins: self.optional(table, "pins", Vec::new(), |v| {
                let allowed =
                    "pins such as \"sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"";
                each(v, allowed, |v| v.as_str().and_then(pin::read))
            }),
            insecure: self.optional(table, "insecure_tls", false, truth),
        };
        let on_air = self.optional(table, "on_air", None, |v| schedule(v).map(Some));
        let time_zone = self.optional(table, "time_zone", TimeZone::system(), time_zone);
        Some(Publisher {
            feed: feed?,
            server: server?,
            transport,
            ice_servers,
            proxy: proxy?,
            trust,
            on_air,
            time_zone,
        })
    }

    fn whip(&mut self, table: &Table<'_>) -> Option<Server> {
        self.only(table, &KEYS, &WHIP);
        let url = self.url(table, ["http", "https"]);
        let before = self.faults.len();
        let bearer = match table.entries.contains_key("bearer") {
            true => self.bearer(table, "bearer"),
            false => None,
        };
        let trickle = self.optional(table, "trickle", Trickle::Sdpfrag, |v| {
            Ok(match one_of(v, &["bare", "off", "sdpfrag"])? {
                "bare" => Trickle::Bare,
                "off" => Trickle::Off,
                _ => Trickle::Sdpfrag,
            })
        });
        let url = url.filter(|_| self.faults.len() == before)?;
        Some(Server::Whip {
            url,
            bearer,
            trickle,
        })
    }

    /// A token that is sent in a header, or a key that is sent in a path.
    pub(super) fn bearer(&mut self, table: &Table<'_>, name: &str) -> Option<Bearer> {
        let written = self.secret(table, name)?;
        // RFC 6750, section 2.1; what else a header may hold, some server may want.
        let fits = |c: char| c.is_ascii_graphic();
        if written.known && !written.secret.expose().chars().all(fits) {
            let message = "holds a character that no token has".to_owned();
            self.fault(written.at, &table.key(name), message);
            return None;
        }
        Some(Bearer {
            token: written.secret,
            source: written.source,
        })
    }

    fn wowza(&mut self, table: &Table<'_>) -> Option<Server> {
        self.only(table, &KEYS, &WOWZA);
        let url = self.url(table, ["ws", "wss"]);
        let application = self.required(table, "application", text);
        let stream = self.secret(table, "stream");
        let dialect = self.dialect(table);
        Some(Server::Wowza {
            url: url?,
            application: application?,
            stream: stream?.secret,
            dialect,
        })
    }

    pub(super) fn dialect(&mut self, table: &Table<'_>) -> WowzaDialect {
        self.optional(table, "dialect", WowzaDialect::Auto, |v| {
            Ok(match one_of(v, &["auto", "v1", "v2"])? {
                "v1" => WowzaDialect::V1,
                "v2" => WowzaDialect::V2,
                _ => WowzaDialect::Auto,
            })
        })
    }

    fn url(&mut self, table: &Table<'_>, schemes: [&str; 2]) -> Option<Secret> {
        self.url_in(table, URL, schemes)
    }

    /// A URL of one of two schemes, the second of which is the first with TLS.
    pub(super) fn url_in(
        &mut self,
        table: &Table<'_>,
        name: &str,
        schemes: [&str; 2],
    ) -> Option<Secret> {
        let written = self.secret(table, name)?;
        // The value stays unsaid: signed URLs are as good as passwords.
        let [plain, tls] = schemes;
        let fault = match Url::parse(written.secret.expose()) {
            Ok(url) if !schemes.contains(&url.scheme()) || !url.has_host() => {
                format!("is no {plain}:// or {tls}:// URL with a host")
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "holds a user name or a password, which have no place in it".to_owned()
            }
            Ok(_) => return Some(written.secret),
            Err(_) => format!("is no {plain}:// or {tls}:// URL with a host"),
        };
        if written.known {
            self.fault(written.at, &table.key(name), fault);
            return None;
        }
        Some(written.secret)
    }

    fn ice_servers(&mut self, table: &Table<'_>) -> Vec<IceServer> {
        let Some(value) = table.entries.get("ice_servers") else {
            return Vec::new();
        };
        let key = table.key("ice_servers");
        let at = value.span().start;
        let allowed =
            "a list of { url = \"turn:HOST:PORT\", username = \"...\", credential = \"...\" }";
        let Some(list) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.fault(at, &key, format!("found {found}, allowed: {allowed}"));
            return Vec::new();
        };
        if list.len() > ICE_SERVERS_MAX {
            let message = format!(
                "has {} servers, allowed: at most {ICE_SERVERS_MAX}",
                list.len()
            );
            self.fault(at, &key, message);
        }
        let mut servers = Vec::new();
        for (n, value) in list.iter().enumerate() {
            let path = format!("{key}[{n}]");
            let at = value.span().start;
            let DeValue::Table(entries) = value.get_ref() else {
                let found = value.get_ref().type_str();
                self.fault(at, &path, format!("found {found}, allowed: a table"));
                continue;
            };
            servers.extend(self.ice_server(&Table { path, at, entries }));
        }
        servers
    }

    fn ice_server(&mut self, table: &Table<'_>) -> Option<IceServer> {
        let url = self.required(table, "url", text)?;
        let url: IceUrl = match url.parse() {
            Ok(url) => url,
            Err(error @ NotAnIceUrl) => {
                let at = table
                    .entries
                    .get("url")
                    .map_or(table.at, |v| v.span().start);
                self.fault(at, &table.key("url"), error.to_string());
                return None;
            }
        };
        if url.kind == IceKind::Stun {
            self.only(table, &["url"], &[]);
            return Some(IceServer {
                url,
                username: String::new(),
                credential: Secret::new(""),
            });
        }
        self.only(table, &["url", "username", "credential"], &[]);
        let username = self.required(table, "username", text);
        let credential = self.secret(table, "credential");
        Some(IceServer {
            url,
            username: username?,
            credential: credential?.secret,
        })
    }

    fn proxy(&mut self, table: &Table<'_>) -> Option<Proxy> {
        let word = table.entries.get("proxy").map(|v| v.get_ref().as_str());
        match word {
            None | Some(Some("environment")) => return Some(Proxy::Environment),
            Some(Some("none")) => return Some(Proxy::None),
            Some(_) => {}
        }
        let written = self.secret(table, "proxy")?;
        let usable = Url::parse(written.secret.expose()).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if written.known && !usable {
            let message = "is neither \"environment\" nor \"none\" nor the URL of a proxy, \
                such as \"http://user:password@proxy.example:3128\"";
            self.fault(written.at, &table.key("proxy"), message.to_owned());
            return None;
        }
        Some(Proxy::Url(written.secret))
    }

    /// A secret written out or referred to.
    pub(super) fn secret(&mut self, table: &Table<'_>, name: &str) -> Option<Written> {
        let key = table.key(name);
        let Some(value) = table.entries.get(name) else {
            self.fault(table.at, &key, format!("is missing; it must be {SECRET}"));
            return None;
        };
        let at = value.span().start;
        let (fetched, source) = match value.get_ref() {
            DeValue::String(plain) => (Ok(Some(plain.clone().into_owned())), None),
            DeValue::Table(entries) => {
                let table = Table {
                    path: key.clone(),
                    at,
                    entries,
                };
                let source = self.secret_source(&table)?;
                ((self.env.fetch)(&source), Some(source))
            }
            DeValue::Array(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_) => {
                let found = value.get_ref().type_str();
                (Err(format!("found {found}, allowed: {SECRET}")), None)
            }
        };
        let known = !matches!(fetched, Ok(None));
        // Each its own, so that two publishers do not seem to share a stream.
        let unfetched = || format!("{source:?}");
        let checked = fetched.and_then(|fetched| {
            let secret = fetched.unwrap_or_else(unfetched);
            match secret.trim() {
                "" => Err("is empty".to_owned()),
                trimmed => Ok(Secret::new(trimmed)),
            }
        });
        match checked {
            Ok(secret) => Some(Written {
                secret,
                source,
                at,
                known,
            }),
            Err(message) => {
                self.fault(at, &key, message);
                None
            }
        }
    }

    fn secret_source(&mut self, table: &Table<'_>) -> Option<SecretSource> {
        let before = self.faults.len();
        self.only(table, &["credential", "env", "file"], &[]);
        let mut sources = Vec::new();
        for (key, source) in [
            ("credential", SecretSource::Credential as fn(String) -> _),
            ("env", SecretSource::Env),
        ] {
            let Some(name) = self.optional(table, key, None, |v| text(v).map(Some)) else {
                continue;
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
            if name.len() > NAME_MAX || !name.chars().all(plain) {
                // It is not repeated: the secret itself may have been written there.
                let message = format!(
                    "names a place where the secret is, in at most {NAME_MAX} letters, digits or any of ._-@, and this is no \
                     such name"
                );
                self.fault(table.at, &table.key(key), message);
                continue;
            }
            sources.push(source(name));
        }
        let file = self.optional(table, "file", None, |v| text(v).map(Some));
        sources.extend(file.map(|path| SecretSource::File(self.env.base.join(path))));
        if sources.len() != 1 && self.faults.len() == before {
            self.fault(table.at, &table.path, format!("must be {SECRET}"));
        }
        (self.faults.len() == before)
            .then(|| sources.pop())
            .flatten()
    }
}

fn schedule(value: &DeValue<'_>) -> Read<Schedule> {
    let windows: Option<Vec<&str>> = match value {
        DeValue::String(one) => Some(vec![one]),
        DeValue::Array(all) => all.iter().map(|v| v.get_ref().as_str()).collect(),
        DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Float(_)
        | DeValue::Integer(_)
        | DeValue::Table(_) => None,
    };
    windows.and_then(Schedule::read).ok_or_else(|| {
        "hours such as \"Mon-Fri 08:00-18:00\", \"Sat,Sun 20:00-02:00\" or \"daily 00:00-24:00\", or a list of them, up to 32".to_owned()
    })
}

fn time_zone(value: &DeValue<'_>) -> Read<TimeZone> {
    match value.as_str() {
        Some("system") => Some(TimeZone::system()),
        Some(name) => TimeZone::get(name).ok(),
        None => None,
    }
    .ok_or_else(|| "system, or a time zone such as \"Europe/Berlin\"".to_owned())
}

/// Longest name of a credential or of a variable; most tokens are longer.
const NAME_MAX: usize = 64;

/// Whether two publishers would throw each other off: the same stream, whatever the language and the token.
pub(super) fn same_stream(one: &Server, other: &Server) -> bool {
    match (one, other) {
        (
            Server::Wowza {
                url,
                application,
                stream,
                ..
            },
            Server::Wowza {
                url: u,
                application: a,
                stream: s,
                ..
            },
        ) => (url, application, stream) == (u, a, s),
        (Server::Whip { url, .. }, Server::Whip { url: u, .. })
        | (Server::Ome { url }, Server::Ome { url: u })
        | (Server::Qencode { url }, Server::Qencode { url: u }) => url == u,
        (Server::Platform(one), Server::Platform(other)) => one.is_same_stream(other),
        (
            Server::Ome { .. }
            | Server::Platform(_)
            | Server::Qencode { .. }
            | Server::Whip { .. }
            | Server::Wowza { .. },
            _,
        ) => false,
    }
}
