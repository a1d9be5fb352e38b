//! Fragments of descriptions that are sent by PATCH (RFC 8840): candidates, and credentials for an ICE restart.
//!
//! Pure.

use std::fmt::Write as _;

/// What a fragment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lab) struct Fragment {
    pub(in crate::lab) ufrag: Option<String>,
    pub(in crate::lab) pwd: Option<String>,
    /// As after `a=`.
    pub(in crate::lab) candidates: Vec<String>,
    pub(in crate::lab) end_of_candidates: bool,
    /// Sections that it names by `a=mid`.
    pub(in crate::lab) mids: Vec<String>,
}

impl Fragment {
    /// Reads a fragment; the error says what is wrong with it.
    pub(in crate::lab) fn parse(text: &str) -> Result<Self, String> {
        let mut fragment = Self::default();
        let (mut sections, mut named) = (0_usize, 0_usize);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let Some((kind, value)) = line.split_once('=') else {
                return Err(format!("no `=` in {line:?}"));
            };
            match kind {
                "a" => fragment.attribute(value),
                "m" => sections += 1,
                _ => return Err(format!("{line:?} in a fragment")),
            }
            if value.starts_with("mid:") {
                named += 1;
            }
        }
        if sections != named {
            return Err(format!("{sections} sections, {named} of them with a mid"));
        }
        if !fragment.candidates.is_empty() && named == 0 {
            return Err("candidates outside of any section".to_owned());
        }
        if fragment.ufrag.is_none() || fragment.pwd.is_none() {
            return Err("no credentials".to_owned());
        }
        Ok(fragment)
    }

    fn attribute(&mut self, value: &str) {
        let (name, rest) = value.split_once(':').unwrap_or((value, ""));
        match name {
            "candidate" => self.candidates.push(value.to_owned()),
            "end-of-candidates" => self.end_of_candidates = true,
            "ice-pwd" => self.pwd = Some(rest.to_owned()),
            "ice-ufrag" => self.ufrag = Some(rest.to_owned()),
            "mid" => self.mids.push(rest.to_owned()),
            _ => {}
        }
    }
}

/// The engine's side of an ICE restart. `section` is the first of the answer: its `m=` line, and its mid.
pub(in crate::lab) fn restarted(
    ufrag: &str,
    pwd: &str,
    candidates: &[String],
    section: (&str, &str),
    lite: bool,
) -> String {
    let mut text = String::new();
    if lite {
        text.push_str("a=ice-lite\r\n");
    }
    text.push_str("a=ice-options:trickle\r\n");
    let (media, mid) = section;
    // Writing to a string cannot fail.
    write!(
        text,
        "m={media}\r\na=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n"
    )
    .ok();
    for candidate in candidates {
        write!(text, "a={candidate}\r\n").ok();
    }
    text.push_str("a=end-of-candidates\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRICKLED: &str = "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
        a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
        a=end-of-candidates\r\n";

    #[test]
    fn the_example_of_the_rfc_is_read() {
        let fragment = Fragment::parse(TRICKLED).expect("a fragment");
        assert_eq!(fragment.ufrag.as_deref(), Some("EsAw"));
        assert_eq!(fragment.candidates.len(), 1);
        assert!(fragment.candidates[0].starts_with("candidate:1387637174 1 udp"));
        assert!(fragment.end_of_candidates);
        assert_eq!(fragment.mids, ["0"]);
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        for (from, to) in [
            (TRICKLED, "candidate:1 1 udp 1 192.0.2.1 1 typ host"),
            ("a=mid:0\r\n", ""),
            ("a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", ""),
            ("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n", ""),
            ("a=group", "v=0\r\na=group"),
            (TRICKLED, ""),
        ] {
            let text = TRICKLED.replace(from, to);
            assert!(Fragment::parse(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let candidates = ["candidate:1 1 udp 1 192.0.2.1 1 typ host".to_owned()];
        let text = restarted(
            "u",
            "p",
            &candidates,
            ("audio 9 UDP/TLS/RTP/SAVPF 111", "0"),
            true,
        );
        let fragment = Fragment::parse(&text).expect("a fragment");
        assert_eq!(fragment.pwd.as_deref(), Some("p"));
        assert_eq!(fragment.candidates, candidates);
    }
}
