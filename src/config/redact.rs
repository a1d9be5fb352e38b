//! A configuration as others may see it: its structure and its harmless values, and no secret. Pure.
//!
//! What is shown is listed here; the value of any other key is hidden, so that a key which is added elsewhere hides
//! its value until somebody decides that it may be shown. Comments are left out, for old secrets rest in them.

use toml::{Table, Value};
use url::Url;

use super::secret::{Secret, SecretSource};

/// What stands in place of a secret.
pub const HIDDEN: &str = "***";
/// Keys whose values say how something is done, and not by which right.
const SHOWN: [&str; 24] = [
    "application",
    "billing_mode",
    "bitrate",
    "broadcast_location",
    "ca_file",
    "device",
    "dialect",
    "feed",
    "fps",
    "key_frame_interval",
    "listen",
    "on_air",
    "on_exit",
    "path",
    "pins",
    "size",
    "source",
    "state_dir",
    "stream_id",
    "time_zone",
    "to",
    "transcoder_type",
    "transport",
    "trickle",
];
/// Keys whose numbers are shown: a key of digits may have been written without quotes where a text belongs.
const NUMBERS: [&str; 3] = ["channels", "daily_minutes", "fps"];
/// Keys of URLs: of these the server is shown.
const URLS: [&str; 4] = ["api", "callback_url", "proxy", "url"];
/// Words that stand in place of a URL.
const WORDS: [&str; 3] = ["environment", "none", "off"];
/// Parameters of a URL whose values are ordinary words.
const HARMLESS: [&str; 5] = [
    "direction",
    "transport",
    "webrtcImplementation",
    "wzProbe",
    "twcc",
];
/// Last parts of paths that name no stream.
const PLAIN: [&str; 4] = ["webrtc-session.json", "whip", "wowza", "ws"];
/// Shortest text that is taken for a secret; shorter ones hide nothing and occur everywhere.
const SECRET_MIN: usize = 3;
/// A part of a path of this length is one of chance, wherever it stands.
const LONG: usize = 12;

/// A configuration without its secrets, and what was taken out of it.
#[derive(Debug)]
pub struct Redacted {
    /// As TOML, keys in order of the alphabet.
    pub toml: String,
    /// The secrets that stand in the file, and the parts of them that are secrets by themselves.
    pub secrets: Vec<Secret>,
    /// Where the others are kept.
    pub sources: Vec<SecretSource>,
}

/// Takes the secrets out of the text of a configuration file; `None` if it is no TOML, and then nobody knows where in
/// it they are. Nothing else needs to be right about it.
pub fn redact(text: &str) -> Option<Redacted> {
    let mut table: Table = text.parse().ok()?;
    let mut redacted = Redacted {
        toml: String::new(),
        secrets: Vec::new(),
        sources: Vec::new(),
    };
    for (key, value) in &mut table {
        redacted.walk(key, value);
    }
    redacted.toml = toml::to_string_pretty(&table).ok()?;
    Some(redacted)
}

/// `text` and the parts of it that are secrets by themselves, as of a signed URL its query, of a stream its name.
pub fn parts(text: &str) -> Vec<Secret> {
    let text = text.trim();
    let mut parts = vec![text.to_owned()];
    let url = Url::parse(text).ok().filter(Url::has_host);
    let (path, query) = match &url {
        Some(url) => {
            parts.extend(url.password().map(ToOwned::to_owned));
            parts.push(url.path().trim_start_matches('/').to_owned());
            (url.path(), url.query().unwrap_or_default())
        }
        None => text.split_once('?').unwrap_or((text, "")),
    };
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let last = segments.last().filter(|last| !PLAIN.contains(last));
    parts.extend(last.map(|last| (*last).to_owned()));
    let long = segments.iter().filter(|part| part.len() >= LONG);
    parts.extend(long.map(|part| (*part).to_owned()));
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((name, _)) if HARMLESS.contains(&name) => {}
            Some((_, value)) => parts.push(value.to_owned()),
            None => parts.push(pair.to_owned()),
        }
    }
    let decoded: Vec<String> = (parts.iter())
        .filter(|part| part.contains('%'))
        .filter_map(|part| {
            let pair = format!("http://h/?p={}", part.replace('&', "%26"));
            let url = Url::parse(&pair).ok()?;
            let (_, value) = url.query_pairs().next()?;
            Some(value.into_owned())
        })
        .collect();
    parts.extend(decoded);
    parts.retain(|part| part.chars().count() >= SECRET_MIN);
    parts.sort();
    parts.dedup();
    parts.into_iter().map(Secret::new).collect()
}

impl Redacted {
    fn walk(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::Array(items) => {
                for item in items {
                    self.walk(key, item);
                }
            }
            Value::Boolean(_) => {}
            Value::Datetime(_) | Value::Float(_) | Value::Integer(_) => {
                if !NUMBERS.contains(&key) {
                    self.secrets.extend(parts(&value.to_string()));
                    *value = Value::String(HIDDEN.to_owned());
                }
            }
            Value::String(text) => {
                if let Some(shown) = self.instead(key, text) {
                    *text = shown;
                }
            }
            Value::Table(table) => match source(table) {
                Some(source) => self.sources.push(source),
                None => {
                    for (key, value) in table {
                        self.walk(key, value);
                    }
                }
            },
        }
    }

    /// What is shown in place of `text`; `None` if it may be shown itself.
    fn instead(&mut self, key: &str, text: &str) -> Option<String> {
        let like_url = text.contains("://") || text.contains('@');
        if (SHOWN.contains(&key) && !like_url) || (URLS.contains(&key) && is_plain(text)) {
            return None;
        }
        self.secrets.extend(parts(text));
        if !URLS.contains(&key) {
            return Some(HIDDEN.to_owned());
        }
        let origin = Url::parse(text).ok().and_then(|url| {
            let host = url.host_str()?;
            let port = url.port().map(|port| format!(":{port}"));
            Some(format!(
                "{}://{host}{}/{HIDDEN}",
                url.scheme(),
                port.unwrap_or_default()
            ))
        });
        Some(origin.unwrap_or_else(|| HIDDEN.to_owned()))
    }
}

/// Whether this stands where a URL may, and holds no secret: a word, or an ICE server, whose URL has no room for one.
fn is_plain(text: &str) -> bool {
    let schemes = ["stun:", "stuns:", "turn:", "turns:"];
    let ice_server = schemes.iter().any(|scheme| text.starts_with(scheme)) && !text.contains('@');
    WORDS.contains(&text) || ice_server
}

/// The place that a table refers to, if it is a reference to a secret and nothing else.
fn source(table: &Table) -> Option<SecretSource> {
    let mut entries = table.iter();
    let (key, value) = entries.next()?;
    let text = value.as_str()?.to_owned();
    if entries.next().is_some() {
        return None;
    }
    match key.as_str() {
        "credential" => Some(SecretSource::Credential(text)),
        "env" => Some(SecretSource::Env(text)),
        "file" => Some(SecretSource::File(text.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# once planted-comment
[feed.front]
video = { source = "camera", device = "/dev/v4l/by-id/usb-A", fps = 30 }

[publisher.main]
feed = "front"
to = "ome"
url = "wss://ome.example:3334/app/planted-stream?policy=planted%2Fpolicy&direction=send"
proxy = "http://user:planted-proxy@proxy.example:3128"
ice_servers = [{ url = "turn:turn.example:3478", username = "planted-user", credential = "planted-turn" }]

[publisher.other]
to = "qencode"
url = { file = "url" }
proxy = "none"
api_key = "planted-api-key"
device = "rtsp://user:planted-device@camera/"
something = { new = ["planted-new"] }
token = 70070070071
bearer = [7.25]
"#;

    #[test]
    fn the_structure_stays_and_no_secret_does() {
        let redacted = redact(FILE).unwrap();
        assert!(!redacted.toml.contains("planted"), "{}", redacted.toml);
        for kept in [
            "[publisher.main]",
            "\"/dev/v4l/by-id/usb-A\"",
            "fps = 30",
            "wss://ome.example:3334/***",
            "http://proxy.example:3128/***",
            "url = \"turn:turn.example:3478\"",
            "file = \"url\"",
            "proxy = \"none\"",
            "api_key = \"***\"",
            "token = \"***\"",
            "bearer = [\"***\"]",
        ] {
            assert!(redacted.toml.contains(kept), "{kept}: {}", redacted.toml);
        }
        assert_eq!(redacted.sources, [SecretSource::File("url".into())]);
        let secrets: Vec<&str> = redacted.secrets.iter().map(Secret::expose).collect();
        for secret in [
            "planted-stream",
            "planted%2Fpolicy",
            "planted/policy",
            "planted-proxy",
            "planted-turn",
            "planted-api-key",
            "planted-new",
            "70070070071",
        ] {
            assert!(secrets.contains(&secret), "{secret}: {secrets:?}");
        }
        assert!(!secrets.contains(&"send"), "{secrets:?}");
    }

    #[test]
    fn the_file_of_all_keys_keeps_what_helps() {
        let redacted = redact(include_str!("../../config/onair.toml")).unwrap();
        for kept in [
            "to = \"wowza\"",
            "size = \"1280x720\"",
            "dialect = \"auto\"",
        ] {
            assert!(redacted.toml.contains(kept), "{}", redacted.toml);
        }
    }

    #[test]
    fn what_is_no_toml_is_not_shown_at_all() {
        assert!(redact("url = \"planted").is_none());
    }

    #[test]
    fn a_stream_name_with_a_token_has_two_secrets() {
        let parts = parts("planted-name?token=planted-token");
        let parts: Vec<&str> = parts.iter().map(Secret::expose).collect();
        assert!(parts.contains(&"planted-name") && parts.contains(&"planted-token"));
    }
}
