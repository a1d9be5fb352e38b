//! Takes secrets out of texts that leave the process for good: what the configuration says is one, and what looks
//! like one. Pure.
//!
//! onair's own words hold no secret to begin with; this stands behind them for what others say (a server that quotes
//! a stream's name, a library, the journal) and for secrets that nobody configured (a token that a platform handed
//! out). It rather hides too much.

use serde_json::Value;

use crate::config::redact::HIDDEN;
use crate::config::secret::Secret;

/// A known secret shorter than this is hidden only where it stands as a word of its own.
const SHORT: usize = 8;
/// Ends of names whose values are secrets.
const NAMES: [&str; 19] = [
    "api-key",
    "api_key",
    "apikey",
    "authorization",
    "bearer",
    "credential",
    "inline",
    "jwt",
    "passwd",
    "password",
    "policy",
    "pwd",
    "secret",
    "signature",
    "stream_key",
    "stream_name",
    "streamname",
    "token",
    "ufrag",
];
/// Words that introduce a value: `Authorization: Bearer abc`.
const SCHEMES: [&str; 3] = ["basic ", "bearer ", "digest "];
/// Longest of onair's own words behind `bearer`; a token is longer, or holds more than small letters.
const ORDINARY: usize = 12;
/// Shortest text behind `eyJ` that is taken for a JWT.
const JWT_MIN: usize = 12;
/// Keys of records whose values are words of a closed set, or names that the operator chose to be seen.
const PLAIN: [&str; 12] = [
    "at",
    "codec",
    "dialect",
    "feed",
    "k",
    "level",
    "offers",
    "publisher",
    "rung",
    "state",
    "target",
    "track",
];

/// Takes secrets out of texts.
#[derive(Clone, Debug, Default)]
pub struct Scrubber {
    /// The longest first, for one may hold another.
    known: Vec<Secret>,
}

impl Scrubber {
    /// A scrubber that knows `secrets`, beside what looks like one.
    pub fn new(secrets: Vec<Secret>) -> Self {
        let escaped: Vec<Secret> = (secrets.iter())
            .map(|secret| (secret, secret.expose().escape_debug().to_string()))
            .filter(|(secret, escaped)| secret.expose() != escaped)
            .map(|(_, escaped)| Secret::new(escaped))
            .collect();
        let mut known: Vec<Secret> = secrets.into_iter().chain(escaped).collect();
        known.retain(|secret| !secret.expose().is_empty());
        known.sort_by(|a, b| {
            let (a, b) = (a.expose(), b.expose());
            b.len().cmp(&a.len()).then_with(|| a.cmp(b))
        });
        known.dedup();
        Self { known }
    }

    /// `text` without secrets.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = without(text, secret.expose());
        }
        bearers(&jwts(&named(&urls(&text))))
    }

    /// Takes the secrets out of all texts of `value`, those under the names of states and counts excepted.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Bool(_) | Value::Null | Value::Number(_) => {}
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Value::String(text) = value {
                        if PLAIN.contains(&name.as_str()) {
                            continue;
                        }
                        if is_named(name) {
                            HIDDEN.clone_into(text);
                            continue;
                        }
                    }
                    self.value(value);
                }
            }
            Value::String(text) => *text = self.text(text),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_')
}

/// `text` without `secret`.
fn without(text: String, secret: &str) -> String {
    if !text.contains(secret) {
        return text;
    }
    if secret.len() >= SHORT {
        return text.replace(secret, HIDDEN);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(secret) {
        let (before, after) = (&rest[..at], &rest[at + secret.len()..]);
        let glued = before
            .chars()
            .next_back()
            .or(out.chars().next_back().filter(|_| at == 0));
        let alone = !glued.is_some_and(is_word) && !after.chars().next().is_some_and(is_word);
        out.push_str(before);
        out.push_str(if alone { HIDDEN } else { secret });
        rest = after;
    }
    out + rest
}

/// Of each URL only the server stays.
fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || is_quote(c));
        let (url, behind) = after.split_at(end.unwrap_or(after.len()));
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, tail) = url.split_at(authority);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(HIDDEN);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        if matches!(tail, "" | "/") {
            out.push_str(tail);
        } else {
            out.push('/');
            out.push_str(HIDDEN);
        }
        rest = behind;
    }
    out + rest
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '<' | '>' | '\\' | ')' | ']' | '}')
}

fn is_named(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|known| name.ends_with(known))
}

/// Of `name=value` and `name: value` only the name stays, if the name says that the value is a secret.
fn named(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        let name = before[..at].trim_end_matches(['"', '\'', '\\', ' ']);
        let start = name.rfind(|c| !is_word(c));
        let start = start.map_or(0, |at| {
            at + name[at..].chars().next().map_or(1, char::len_utf8)
        });
        if !is_named(&name[start..]) {
            continue;
        }
        let begin = after.trim_start_matches([' ', '"', '\'', '\\']);
        let lower = begin.to_ascii_lowercase();
        let scheme = SCHEMES.iter().find(|scheme| lower.starts_with(*scheme));
        let value = &begin[scheme.map_or(0, |scheme| scheme.len())..];
        out.push_str(&after[..after.len() - value.len()]);
        let ends = |c: char| c.is_whitespace() || is_quote(c) || matches!(c, '&' | ',' | ';');
        let end = value.find(ends).unwrap_or(value.len());
        if end > 0 {
            out.push_str(HIDDEN);
        }
        rest = &value[end..];
    }
    out + rest
}

/// JSON Web Tokens, whatever stands before them.
fn jwts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let (before, token) = rest.split_at(at);
        out.push_str(before);
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
        let end = token.find(|c| !inside(c)).unwrap_or(token.len());
        let (token, behind) = token.split_at(end);
        out.push_str(if token.len() >= JWT_MIN {
            HIDDEN
        } else {
            token
        });
        rest = behind;
    }
    out + rest
}

/// `Bearer` and what follows it, unless that is an ordinary word.
fn bearers(text: &str) -> String {
    const WORD: &str = "bearer ";
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(at) = lower[from..].find(WORD) {
        let begin = from + at + WORD.len();
        let ends = |c: char| c.is_whitespace() || is_quote(c) || matches!(c, ',' | ';');
        let end = text[begin..].find(ends).map_or(text.len(), |n| begin + n);
        let token = &text[begin..end];
        let ordinary = token.len() <= ORDINARY && token.chars().all(|c| c.is_ascii_lowercase());
        out.push_str(&text[from..begin]);
        out.push_str(if ordinary { token } else { HIDDEN });
        from = end;
    }
    out + &text[from..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        Scrubber::default().text(text)
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden() {
        for (said, shown) in [
            (
                "GET https://user:planted@host:1/app/planted?a=planted failed",
                "GET https://***@host:1/*** failed",
            ),
            ("at wss://host/ again", "at wss://host/ again"),
            (
                "Authorization: Bearer planted-1",
                "Authorization: Bearer ***",
            ),
            ("token=planted&next=1", "token=***&next=1"),
            (
                "{\"api_key\":\"planted\",\"n\":1}",
                "{\"api_key\":\"***\",\"n\":1}",
            ),
            ("X-Api-Key: planted", "X-Api-Key: ***"),
            ("said Bearer Planted, twice", "said Bearer ***, twice"),
            (
                "the bearer token cannot be read",
                "the bearer token cannot be read",
            ),
            (
                "jwt eyJhbGciOiJIUzI1NiJ9.planted.planted-planted.",
                "jwt ***",
            ),
            (
                "a=ice-pwd:planted\\r\\na=mid:0",
                "a=ice-pwd:***\\r\\na=mid:0",
            ),
            (
                "a=ice-ufrag:planted\r\na=mid:0",
                "a=ice-ufrag:***\r\na=mid:0",
            ),
            ("password = \"planted\"", "password = \"***\""),
            ("key frames: 3, size=640x360", "key frames: 3, size=640x360"),
        ] {
            assert_eq!(plain(said), shown);
        }
    }

    #[test]
    fn what_the_configuration_knows_is_hidden_wherever_it_stands() {
        let secrets = ["planted", "planted-longer", "cam", "with\"quote"];
        let scrubber = Scrubber::new(secrets.map(Secret::new).to_vec());
        assert_eq!(
            scrubber.text("cam camera planted-longer xplanted-longerx planted, webcam-cam cam"),
            "*** camera *** x***x ***, webcam-cam ***"
        );
        assert_eq!(scrubber.text("\"with\\\"quote\""), "\"***\"");
        let mut value = json!({
            "publisher": "cam",
            "cause": ["stream cam is taken", {"token": "anything", "n": 1}],
        });
        scrubber.value(&mut value);
        let shown = json!({
            "publisher": "cam",
            "cause": ["stream *** is taken", {"token": "***", "n": 1}],
        });
        assert_eq!(value, shown);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_scrubbing_twice_changes_nothing(text in "\\PC{0,120}") {
            let once = plain(&text);
            prop_assert_eq!(plain(&once), once);
        }

        #[test]
        fn a_long_secret_is_never_left_over(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let scrubber = Scrubber::new(vec![Secret::new("planted-secret")]);
            let text = scrubber.text(&format!("{before}planted-secret{after}"));
            prop_assert!(!text.contains("planted-secret"));
        }
    }
}
