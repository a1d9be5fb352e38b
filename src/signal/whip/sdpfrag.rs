//! SDP fragments (RFC 8840): how candidates and new ICE credentials are told by `PATCH`, and what comes back.

use crate::signal::{candidate, sdp};

/// Longest fragment read; real ones have some hundred bytes.
const FRAGMENT_MAX: usize = 64 << 10;
/// Most candidates of ours told at once.
const CANDIDATES_MAX: usize = 64;

/// What of our offer a fragment repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ours {
    group: Option<String>,
    /// The first `m=` line; everything is bundled with it.
    media: String,
    mid: Option<String>,
    ufrag: String,
    pwd: String,
    /// `candidate:...` each.
    candidates: Vec<String>,
}

/// What a server's fragment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Theirs {
    /// Both or none: one without the other is of no use.
    pub(crate) credentials: Option<Credentials>,
    /// The usable candidates, in the form of [`crate::signal::RemoteDescription::candidates`].
    pub(crate) candidates: Vec<String>,
}

/// ICE credentials of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

impl Ours {
    /// Reads our own offer.
    pub(super) fn of(offer: &str) -> Self {
        let mut ours = Self::default();
        for line in offer.lines().map(str::trim_end) {
            let value = |prefix| line.strip_prefix(prefix).map(str::to_owned);
            if line.starts_with("m=") {
                if !ours.media.is_empty() {
                    break;
                }
                line.clone_into(&mut ours.media);
            } else if line.starts_with("a=group:BUNDLE") {
                ours.group = Some(line.to_owned());
            } else if line.starts_with("a=candidate:") {
                ours.candidates.push(line[2..].to_owned());
            } else if let Some(mid) = value("a=mid:") {
                ours.mid = Some(mid);
            } else if let Some(ufrag) = value("a=ice-ufrag:") {
                ours.ufrag = ufrag;
            } else if let Some(pwd) = value("a=ice-pwd:") {
                ours.pwd = pwd;
            }
        }
        ours
    }

    /// Takes note of `lines` and returns those that the server does not know yet, without `a=`.
    pub(super) fn news(&mut self, lines: &[String]) -> Vec<String> {
        let mut news = Vec::new();
        for line in lines {
            let line = line.trim();
            let line = line.strip_prefix("a=").unwrap_or(line);
            let is_candidate = line.starts_with("candidate:") && !line.contains(['\r', '\n']);
            let is_known = self.candidates.iter().any(|known| known == line);
            if is_candidate && !is_known && self.candidates.len() < CANDIDATES_MAX {
                self.candidates.push(line.to_owned());
                news.push(line.to_owned());
            }
        }
        news
    }

    /// The candidates that the server knows.
    pub(super) fn candidates(&self) -> &[String] {
        &self.candidates
    }

    /// A fragment with our credentials and `candidates`; with `last`, there will be no more.
    pub(super) fn fragment(&self, candidates: &[String], last: bool) -> String {
        let mut lines: Vec<String> = self.group.iter().cloned().collect();
        lines.push(self.media.clone());
        lines.extend(self.mid.iter().map(|mid| format!("a=mid:{mid}")));
        lines.push(self.credentials());
        lines.extend(candidates.iter().map(|c| format!("a={c}")));
        if last {
            lines.push("a=end-of-candidates".to_owned());
        }
        lines.join("\r\n") + "\r\n"
    }

    /// The two lines with our credentials, without a line end.
    pub(super) fn credentials(&self) -> String {
        format!("a=ice-ufrag:{}\r\na=ice-pwd:{}", self.ufrag, self.pwd)
    }
}

impl Theirs {
    /// Reads a server's fragment; a whole description will do.
    pub(crate) fn read(text: &str) -> Self {
        if text.len() > FRAGMENT_MAX {
            return Self::default();
        }
        // The first of each, as everything is bundled with the first section.
        let first = |prefix| {
            let mut lines = text.split(['\r', '\n']).map(str::trim);
            let value = lines.find_map(|line| line.strip_prefix(prefix))?.trim();
            is_ice_string(value).then(|| value.to_owned())
        };
        let credentials = first("a=ice-ufrag:").zip(first("a=ice-pwd:"));
        Self {
            credentials: credentials.map(|(ufrag, pwd)| Credentials { ufrag, pwd }),
            candidates: candidate::usable(sdp::candidate_lines(text)),
        }
    }
}

/// RFC 8839, section 5.4: letters, digits, `+`, `/`. Some servers use more of base64's kin; what matters is that a line
/// stays one line.
fn is_ice_string(value: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "+/-_=:.".contains(c);
    (1..=256).contains(&value.len()) && value.chars().all(fits)
}

/// `description`, one of ours or made regular, with other ICE credentials in each of its sections.
pub(crate) fn with_credentials(description: &str, credentials: &Credentials) -> String {
    let Credentials { ufrag, pwd } = credentials;
    let lines = description.lines().map(|line| {
        if line.starts_with("a=ice-ufrag:") {
            format!("a=ice-ufrag:{ufrag}\r\n")
        } else if line.starts_with("a=ice-pwd:") {
            format!("a=ice-pwd:{pwd}\r\n")
        } else {
            format!("{line}\r\n")
        }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 5 10.0.0.5 \
        9000 typ host\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=mid:0\r\nm=video 9 UDP/TLS/RTP/SAVPF \
        108\r\na=ice-ufrag:other\r\na=mid:1\r\n";

    /// The form of protocols.md 7.1.
    #[test]
    fn a_fragment_names_bundle_section_credentials_and_candidates() {
        let mut ours = Ours::of(OFFER);
        let relayed = "candidate:2 1 udp 7 192.0.2.1 61764 typ relay raddr 10.0.0.5 rport 9000";
        let news = ours.news(&[
            format!("a={relayed}"),
            relayed.to_owned(),
            "candidate:1 1 udp 5 10.0.0.5 9000 typ host".to_owned(),
            "candidate:3\r\na=evil".to_owned(),
            "noise".to_owned(),
        ]);
        assert_eq!(news, [relayed], "only what is new, each once");
        assert_eq!(
            ours.fragment(&news, true),
            format!(
                "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
                 a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na={relayed}\r\na=end-of-candidates\r\n"
            )
        );
        assert!(!ours.fragment(&[], false).contains("candidate"));
        assert_eq!(ours.candidates().len(), 2);
    }

    #[test]
    fn a_servers_fragment_is_read_with_any_line_ends() {
        for ends in ["\r\n", "\n"] {
            let text = "a=ice-lite\na=ice-ufrag:289b31b754eaa438\na=ice-pwd:0b66f472495ef0ccac7bda653ab6be49ea13114472a5d10a\n\
                        m=audio 9 RTP/AVP 0\na=mid:0\na=candidate:1 1 UDP 5 198.51.100.1 39132 typ host generation 0\n\
                        a=end-of-candidates\n";
            let read = Theirs::read(&text.replace('\n', ends));
            let credentials = read.credentials.unwrap();
            assert_eq!(credentials.ufrag, "289b31b754eaa438");
            assert!(credentials.pwd.starts_with("0b66f472495ef0cc"));
            assert_eq!(
                read.candidates,
                ["candidate:1 1 udp 5 198.51.100.1 39132 typ host"]
            );
        }
    }

    #[test]
    fn half_credentials_are_none() {
        for text in [
            "",
            "<html>",
            "a=ice-ufrag:x\r\n",
            "a=ice-pwd:x\r\n",
            "a=ice-ufrag:\r\na=ice-pwd:x",
            "a=ice-ufrag:a b\r\na=ice-pwd:x",
        ] {
            assert_eq!(Theirs::read(text), Theirs::default(), "{text}");
        }
        let long = format!("a=ice-ufrag:x\r\na=ice-pwd:{}\r\n", "y".repeat(257));
        assert_eq!(Theirs::read(&long).credentials, None);
        assert_eq!(
            Theirs::read(&"x".repeat(FRAGMENT_MAX + 1)),
            Theirs::default()
        );
    }

    #[test]
    fn credentials_are_put_into_every_section() {
        let credentials = Credentials {
            ufrag: "new".to_owned(),
            pwd: "secret".to_owned(),
        };
        let changed = with_credentials(OFFER, &credentials);
        assert_eq!(changed.matches("a=ice-ufrag:new\r\n").count(), 2);
        assert_eq!(changed.matches("a=ice-pwd:secret\r\n").count(), 1);
        assert_eq!(changed.lines().count(), OFFER.lines().count());
    }
}
