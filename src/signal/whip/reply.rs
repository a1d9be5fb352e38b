//! What a server's reply to our offer says.

use std::time::Duration;

use super::link;
use crate::config::ice_server::IceServer;
use crate::net::Target;
use crate::net::http::Reply;

/// Content types of which the words are meant for people, or may serve them.
const WORDS: [&str; 3] = ["text/plain", "application/json", "application/problem+json"];
/// Longest entity tag sent back; real ones have some ten bytes.
const ETAG_MAX: usize = 256;

/// What a reply to `POST` says.
#[derive(Debug)]
pub(crate) enum Said {
    /// The body is the server's answer.
    Answer {
        /// Where the session is changed and ended.
        session: Option<Target>,
        /// Its entity tag.
        etag: Option<String>,
        /// The ICE servers handed over.
        ice_servers: Vec<IceServer>,
    },
    /// We are not let on.
    Refused {
        /// The server's words, or those for its status; not printable yet.
        text: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

/// Reads a reply that came from `asked`.
pub(crate) fn read(reply: &Reply, asked: &Target) -> Said {
    let is_answer = reply.body.trim_start().starts_with("v=0");
    let text = match reply.status {
        201 if is_answer => return answer(reply, asked),
        200 | 202 if is_answer => {
            let status = reply.status;
            tracing::warn!(status, "the server answers with a status other than 201");
            return answer(reply, asked);
        }
        200..=299 => "there is no SDP in its reply; is this a WHIP endpoint?".to_owned(),
        _ => words(reply),
    };
    Said::Refused {
        text,
        retry_after: reply.retry_after(),
    }
}

fn answer(reply: &Reply, asked: &Target) -> Said {
    Said::Answer {
        session: session(reply, asked),
        etag: etag(reply),
        ice_servers: link::ice_servers(reply.headers("link")),
    }
}

fn session(reply: &Reply, asked: &Target) -> Option<Target> {
    const CANNOT: &str = "the session cannot be ended other than by letting it go";
    let Some(location) = reply.header("location") else {
        tracing::warn!("the server does not say where its session is: {CANNOT}");
        return None;
    };
    match asked.join(location) {
        Ok(session) if session.is_tls() || !asked.is_tls() => Some(session),
        Ok(_) => {
            tracing::warn!("the server's session is not under https: {CANNOT}");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the server's session has no usable URL: {CANNOT}");
            None
        }
    }
}

/// The entity tag of a session, as it must be sent back: OvenMediaEngine's has no quotation marks.
pub(crate) fn etag(reply: &Reply) -> Option<String> {
    let etag = reply.header("etag")?;
    let fits = (1..=ETAG_MAX).contains(&etag.len()) && etag.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| etag.to_owned())
}

/// The server's words where they are for people, else those for its status.
pub(crate) fn words(reply: &Reply) -> String {
    let kind = reply.header("content-type").unwrap_or("text/plain");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let body = reply.body.trim();
    let is_words = WORDS.iter().any(|word| kind.eq_ignore_ascii_case(word));
    if is_words && !body.is_empty() && !body.starts_with('<') {
        body.to_owned()
    } else {
        reply.reason().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers = headers.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        Reply::new(status, headers.collect(), body.to_owned())
    }

    fn said(reply: &Reply) -> Said {
        let asked = Target::parse_http("https://h.example:3334/app/s?direction=whip", &[]);
        read(reply, &asked.unwrap())
    }

    fn session_of(location: &str) -> Option<String> {
        match said(&reply(201, &[("location", location)], "v=0\r\n")) {
            Said::Answer { session, .. } => session.map(|s| s.expose().to_string()),
            Said::Refused { .. } => panic!("refused"),
        }
    }

    #[test]
    fn the_session_is_found_relative_to_the_url_asked() {
        for (location, session) in [
            (
                "/app/s/J1V5W4bn?direction=whip",
                "https://h.example:3334/app/s/J1V5W4bn?direction=whip",
            ),
            ("1", "https://h.example:3334/app/1"),
            ("https://edge.example/s/1", "https://edge.example/s/1"),
            (
                "?action=delete",
                "https://h.example:3334/app/s?action=delete",
            ),
        ] {
            assert_eq!(session_of(location).as_deref(), Some(session));
        }
        for unusable in [
            "http://h.example/s",
            "ftp://h.example/s",
            "https://u:p@h.example/",
        ] {
            assert_eq!(session_of(unusable), None, "{unusable}");
        }
        let without = said(&reply(201, &[], "v=0\r\n"));
        assert!(matches!(
            without,
            Said::Answer {
                session: None,
                etag: None,
                ..
            }
        ));
    }

    #[test]
    fn statuses_200_and_202_with_an_answer_are_taken() {
        for status in [200, 202] {
            let answered = said(&reply(status, &[("etag", "m3YLqPnc")], "v=0\r\n"));
            let Said::Answer { etag, .. } = answered else {
                panic!("{status} refused")
            };
            assert_eq!(etag.as_deref(), Some("m3YLqPnc"));
        }
    }

    fn refusal(reply: &Reply) -> String {
        match said(reply) {
            Said::Answer { .. } => panic!("taken for an answer"),
            Said::Refused { text, .. } => text,
        }
    }

    #[test]
    fn success_without_an_answer_is_a_refusal() {
        for status in [200, 201, 202, 204] {
            let text = refusal(&reply(status, &[], "<html>v=0"));
            assert!(text.contains("no SDP"), "{text}");
        }
        assert!(refusal(&reply(206, &[], "v=0\r\n")).contains("no SDP"));
    }

    #[test]
    fn words_for_people_are_quoted_and_pages_are_not() {
        let plain = [("content-type", "text/plain; charset=utf-8")];
        assert_eq!(
            refusal(&reply(409, &plain, " Stream is already exist\n")),
            "Stream is already exist"
        );
        assert_eq!(refusal(&reply(401, &[], "no token")), "no token");
        assert_eq!(refusal(&reply(404, &plain, "")), "Not Found");
        let html = [("content-type", "text/html")];
        assert_eq!(refusal(&reply(502, &html, "<html>")), "Bad Gateway");
        assert_eq!(refusal(&reply(502, &[], "<html>")), "Bad Gateway");
        assert_eq!(refusal(&reply(799, &html, "x")), "unknown status");
    }

    #[test]
    fn retry_after_goes_with_the_refusal() {
        let Said::Refused { retry_after, .. } = said(&reply(503, &[("retry-after", "7")], ""))
        else {
            panic!("taken for an answer")
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn entity_tags_that_are_no_tags_are_dropped() {
        let long = "x".repeat(ETAG_MAX + 1);
        for tag in ["", "a b", "\u{fffd}", &long] {
            assert_eq!(etag(&reply(201, &[("etag", tag)], "")), None);
        }
        let quoted = reply(201, &[("etag", "\"a:1\"")], "");
        assert_eq!(etag(&quoted).as_deref(), Some("\"a:1\""));
    }
}
