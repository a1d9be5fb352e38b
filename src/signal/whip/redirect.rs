//! Redirects (RFC 9725, section 4.4): which are followed, and how far.

use crate::net::Target;
use crate::net::http::Reply;

/// Most redirects followed in a row.
const REDIRECTS_MAX: usize = 5;

/// The way of one request through its redirects.
#[derive(Debug)]
pub(crate) struct Trail {
    /// Where it was asked, the last one last; never empty.
    asked: Vec<Target>,
}

/// What a reply means for the way.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is no redirect.
    Arrived,
    /// Ask again at [`Trail::target`].
    On,
    /// It cannot be followed; why, fit for an operator.
    Stuck(String),
}

impl Trail {
    /// A request that begins at `target`.
    pub(crate) fn new(target: Target) -> Self {
        Self {
            asked: vec![target],
        }
    }

    /// Where to ask now.
    pub(crate) fn target(&self) -> &Target {
        self.asked.last().unwrap_or(&self.asked[0])
    }

    /// Takes a reply from [`target`](Self::target). 301 and 302 must not be used by servers, but where they are, method
    /// and body must be kept all the same; 303 would turn our `POST` into a `GET`.
    pub(crate) fn take(&mut self, reply: &Reply) -> Turn {
        if !matches!(reply.status, 301 | 302 | 307 | 308) {
            return Turn::Arrived;
        }
        let stuck = |why: &str| Turn::Stuck(format!("it redirects {why}"));
        let Some(location) = reply.header("location") else {
            return stuck("without saying where to");
        };
        let here = self.target();
        let there = match here.join(location) {
            Ok(there) => there,
            Err(error) => return stuck(&format!("to where we cannot go: {error}")),
        };
        if here.is_tls() && !there.is_tls() {
            return stuck(&format!("from https to plain http ({there})"));
        }
        if self
            .asked
            .iter()
            .any(|asked| asked.expose() == there.expose())
        {
            return stuck(&format!("in a loop, back to where we were ({there})"));
        }
        if self.asked.len() > REDIRECTS_MAX {
            return stuck(&format!("more than {REDIRECTS_MAX} times in a row"));
        }
        if matches!(reply.status, 301 | 302) {
            tracing::warn!(
                status = reply.status,
                "the server redirects with a status that WHIP does not allow; followed like 307"
            );
        }
        tracing::debug!(from = %here, to = %there, "redirected");
        self.asked.push(there);
        Turn::On
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(url: &str) -> Trail {
        Trail::new(Target::parse_http(url, &[]).unwrap())
    }

    fn reply(status: u16, location: Option<&str>) -> Reply {
        let headers = location.map(|l| ("location".to_owned(), l.to_owned()));
        Reply::new(status, headers.into_iter().collect(), String::new())
    }

    fn stuck(turn: Turn) -> String {
        match turn {
            Turn::Stuck(why) => why,
            Turn::Arrived | Turn::On => panic!("not stuck: {turn:?}"),
        }
    }

    #[test]
    fn locations_are_resolved_against_the_url_asked_last() {
        let mut trail = trail("https://a.example/x/whip?key=1");
        assert!(matches!(trail.take(&reply(201, Some("/s"))), Turn::Arrived));
        for (status, location, leads_to) in [
            (307, "/y/whip", "https://a.example/y/whip"),
            (308, "z?k=2", "https://a.example/y/z?k=2"),
            (301, "//b.example:8443/", "https://b.example:8443/"),
            (302, "https://c.example/", "https://c.example/"),
        ] {
            assert!(matches!(
                trail.take(&reply(status, Some(location))),
                Turn::On
            ));
            assert_eq!(trail.target().expose().as_str(), leads_to);
        }
    }

    #[test]
    fn five_are_followed_and_the_sixth_is_not() {
        let mut trail = trail("http://a.example/0");
        for n in 1..=5 {
            assert!(matches!(
                trail.take(&reply(307, Some(&n.to_string()))),
                Turn::On
            ));
        }
        assert!(stuck(trail.take(&reply(307, Some("6")))).contains("more than 5 times"));
        assert!(matches!(trail.take(&reply(201, None)), Turn::Arrived));
    }

    #[test]
    fn a_loop_is_named_as_one() {
        let mut trail = trail("https://a.example/secret-0");
        assert!(matches!(
            trail.take(&reply(307, Some("https://b.example/1"))),
            Turn::On
        ));
        let why = stuck(trail.take(&reply(307, Some("https://a.example/secret-0"))));
        assert!(
            why.contains("loop") && why.contains("https://a.example:443"),
            "{why}"
        );
        assert!(!why.contains("secret"), "{why}");
    }

    #[test]
    fn tls_is_never_left() {
        let mut secure = trail("https://a.example/");
        assert!(stuck(secure.take(&reply(307, Some("http://a.example/")))).contains("plain http"));
        let mut plain = trail("http://a.example/");
        assert!(matches!(
            plain.take(&reply(307, Some("https://a.example/"))),
            Turn::On
        ));
    }

    #[test]
    fn other_schemes_and_no_location_at_all_lead_nowhere() {
        let mut trail = trail("https://a.example/");
        for location in [
            "ftp://a.example/",
            "wss://a.example/",
            "https://u:p@a.example/",
            "http://",
        ] {
            let why = stuck(trail.take(&reply(307, Some(location))));
            assert!(why.contains("cannot go"), "{why}");
        }
        assert!(stuck(trail.take(&reply(308, None))).contains("where to"));
    }
}
