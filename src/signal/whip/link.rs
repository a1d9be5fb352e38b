//! `Link` header fields (RFC 8288), as far as they name ICE servers (RFC 9725, section 4.6).

use crate::config::ice_server::IceServer;
use crate::config::secret::Secret;
use crate::signal::ice_servers::ICE_SERVERS_MAX;

/// Most links looked at, of any relation.
const LINKS_MAX: usize = 64;
/// Most parameters looked at of one link.
const PARAMETERS_MAX: usize = 16;

/// The ICE servers that the `Link` fields of a reply name, in their order, at most eight. Links of other relations and
/// what is no STUN or TURN URL are passed over.
pub(crate) fn ice_servers<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<IceServer> {
    (fields.into_iter().flat_map(Links).take(LINKS_MAX))
        .filter_map(|link| ice_server(&link))
        .take(ICE_SERVERS_MAX)
        .collect()
}

fn ice_server(link: &Link<'_>) -> Option<IceServer> {
    let mut relations = link.parameter("rel")?.split_ascii_whitespace();
    if !relations.any(|relation| relation.eq_ignore_ascii_case("ice-server")) {
        return None;
    }
    let kind = link.parameter("credential-type").unwrap_or("password");
    if !kind.eq_ignore_ascii_case("password") {
        tracing::debug!("an ICE server with credentials other than a password is left out");
        return None;
    }
    let Ok(url) = link.url.trim().parse() else {
        tracing::debug!("an ICE server that is no STUN or TURN URL is left out");
        return None;
    };
    let text = |name| link.parameter(name).unwrap_or_default().to_owned();
    Some(IceServer {
        url,
        username: text("username"),
        credential: Secret::new(text("credential")),
    })
}

/// One link: its target, and its parameters by names in lower case, unquoted.
struct Link<'a> {
    url: &'a str,
    parameters: Vec<(String, String)>,
}

impl Link<'_> {
    /// The first of that name, as RFC 8288 wants it for `rel`.
    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The links of one field, of which a rest is left to read.
struct Links<'a>(&'a str);

impl<'a> Iterator for Links<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
        let (_, rest) = self.0.split_once('<')?;
        let (url, mut rest) = rest.split_once('>')?;
        let mut parameters = Vec::new();
        loop {
            rest = rest.trim_start();
            match rest.as_bytes().first() {
                Some(b';') => {
                    let (parameter, after) = parameter(&rest[1..]);
                    rest = after;
                    if let Some(parameter) = parameter
                        && parameters.len() < PARAMETERS_MAX
                    {
                        parameters.push(parameter);
                    }
                }
                // Anything but a comma is malformed; the next link begins behind the next comma.
                Some(_) => {
                    rest = rest.split_once(',').map_or("", |(_, after)| after);
                    break;
                }
                None => break,
            }
        }
        self.0 = rest;
        Some(Link { url, parameters })
    }
}

/// A parameter and what stands behind it; none if there is no name.
fn parameter(text: &str) -> (Option<(String, String)>, &str) {
    let end = text.find(['=', ';', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.trim().to_ascii_lowercase();
    let (value, rest) = match rest.strip_prefix('=').map(str::trim_start) {
        None => (String::new(), rest),
        Some(value) => match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([';', ',']).unwrap_or(value.len());
                (value[..end].trim_end().to_owned(), &value[end..])
            }
        },
    };
    ((!name.is_empty()).then_some((name, value)), rest)
}

/// The text up to the closing quotation mark, and what stands behind that.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Vec<(String, String, String)> {
        let servers = ice_servers(fields.iter().copied()).into_iter();
        let parts = servers.map(|server| {
            let credential = server.credential.expose().to_owned();
            (server.url.to_string(), server.username, credential)
        });
        parts.collect()
    }

    fn one(url: &str, username: &str, credential: &str) -> (String, String, String) {
        (url.to_owned(), username.to_owned(), credential.to_owned())
    }

    /// The example of RFC 9725, section 4.6.
    #[test]
    fn the_example_of_the_rfc_is_read() {
        let fields = [
            "<stun:stun.example.net>; rel=\"ice-server\"",
            "<turn:turn.example.net?transport=udp>; rel=\"ice-server\"; username=\"user\"; \
             credential=\"myPassword\"; credential-type=\"password\"",
            "<turn:turn.example.net?transport=tcp>; rel=\"ice-server\"; username=\"user\"; \
             credential=\"myPassword\"; credential-type=\"password\"",
            "<turns:turn.example.net?transport=tcp>; rel=\"ice-server\"; username=\"user\"; \
             credential=\"myPassword\"; credential-type=\"password\"",
        ];
        let expected = [
            one("stun:stun.example.net:3478", "", ""),
            one(
                "turn:turn.example.net:3478?transport=udp",
                "user",
                "myPassword",
            ),
            one(
                "turn:turn.example.net:3478?transport=tcp",
                "user",
                "myPassword",
            ),
            one(
                "turns:turn.example.net:5349?transport=tcp",
                "user",
                "myPassword",
            ),
        ];
        assert_eq!(read(&fields), expected);
        let joined = fields.join(", ");
        assert_eq!(read(&[&joined]), expected, "several links in one field");
        assert_eq!(read(&[&joined.replace(' ', "")]), expected);
    }

    #[test]
    fn quoted_strings_may_hold_anything() {
        let field = r#"<turn:a:1>; credential="p\"a;s,s<\\>"; rel="ice-server";username="1700:on air", <stun:b>; rel=ice-server"#;
        assert_eq!(
            read(&[field]),
            [
                one("turn:a:1?transport=udp", "1700:on air", r#"p"a;s,s<\>"#),
                one("stun:b:3478", "", "")
            ]
        );
    }

    #[test]
    fn relations_are_compared_without_case_and_others_are_passed_over() {
        let field = "</events>; rel=\"urn:ietf:params:whip:ext:core:sse\"; events=\"a,b\", \
                     <stun:a>; REL=\"next ICE-Server\", <stun:b>, <stun:c>; rel=preload; rel=ice-server";
        assert_eq!(read(&[field]), [one("stun:a:3478", "", "")]);
    }

    #[test]
    fn what_cannot_be_used_is_left_out() {
        for field in [
            "",
            "<",
            "<>",
            "<stun:a",
            "<stun:a>",
            "<stun:a>; rel",
            "<stun:a>; rel=\"ice-server",
            "<http://a>; rel=ice-server",
            "<turn:a>; rel=ice-server; credential-type=oauth",
            "stun:a; rel=ice-server",
        ] {
            let found = read(&[field]);
            // A quotation mark that is missing at the end is forgiven.
            let expected = usize::from(field.ends_with("\"ice-server"));
            assert_eq!(found.len(), expected, "{field}");
        }
    }

    #[test]
    fn malformed_text_costs_one_link_at_most() {
        let field = "<stun:a>; rel=ice-server garbage \" <x, <stun:b>; rel=ice-server";
        let both = [one("stun:a:3478", "", ""), one("stun:b:3478", "", "")];
        assert_eq!(read(&[field]), both);
        let field = "<stun:a>; rel=ice-server} ;; =x; y=, <stun:b> @ rel, <stun:c>;rel=ice-server";
        assert_eq!(read(&[field]), [one("stun:c:3478", "", "")]);
    }

    #[test]
    fn a_flood_is_cut_off() {
        let many = "<stun:a>; rel=ice-server, ".repeat(1_000);
        assert_eq!(read(&[&many]).len(), ICE_SERVERS_MAX);
        let fields = vec!["<a>; rel=next"; LINKS_MAX];
        let late = [fields.as_slice(), &["<stun:a>; rel=ice-server"]].concat();
        assert!(read(&late).is_empty());
    }
}
