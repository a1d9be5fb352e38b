//! Replies to requests by WHIP, with the headers and the words of each server.

use axum::body::Body;
use hyper::Response;
use hyper::StatusCode;
use hyper::header;

use super::place::Make;
use crate::lab::IceServer;

/// A reply to a request.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) const fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(super) fn refused(status: u16, why: &str) -> Self {
        Self::new(status)
            .with("content-type", "text/plain")
            .body(why.to_owned())
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: String) -> Self {
        self.body = body;
        self
    }

    /// As the session's record shows it.
    pub(super) fn shown(&self) -> String {
        let mut text = self.status.to_string();
        for (name, value) in &self.headers {
            text = format!("{text}\n{name}: {value}");
        }
        format!("{text}\n\n{}", self.body)
    }

    pub(super) fn into_response(self, make: Make) -> Response<Body> {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            .header("access-control-allow-origin", "*")
            .header("access-control-expose-headers", "Location, Link, ETag");
        if make == Make::Ome {
            response = response
                .header(header::SERVER, "OvenMediaEngine")
                .header("access-control-allow-credentials", "true")
                .header("access-control-allow-methods", "POST")
                .header(header::VARY, "Origin");
        }
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let made = response.body(Body::from(self.body));
        made.unwrap_or_else(|_| Response::new(Body::empty()))
    }
}

/// An ICE server as RFC 9725 puts it into `Link`.
pub(super) fn link(server: &IceServer) -> String {
    let url = &server.url;
    match &server.login {
        Some((user, password)) => format!(
            "<{url}>; rel=\"ice-server\"; username=\"{user}\"; credential=\"{password}\"; credential-type=\"password\""
        ),
        None => format!("<{url}>; rel=\"ice-server\""),
    }
}

pub(super) const fn refusal_text(make: Make, status: u16) -> &'static str {
    match (make, status) {
        (Make::Ome, 401) => "Unauthorized",
        (Make::Ome, 404) => "Could not find application",
        (Make::Ome, 409) => "Stream is already exist",
        (Make::Ome, 500) => "Could not create stream",
        (_, 409 | 503) => "Stream name is already in use",
        _ => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_told_as_rfc_9725_has_it() {
        let server = IceServer {
            url: "turn:192.0.2.1:3478?transport=tcp".to_owned(),
            login: Some(("u".to_owned(), "p".to_owned())),
        };
        let expected = "<turn:192.0.2.1:3478?transport=tcp>; rel=\"ice-server\"; username=\"u\"; credential=\"p\"; \
                        credential-type=\"password\"";
        assert_eq!(link(&server), expected);
    }
}
