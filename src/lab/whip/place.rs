//! Whose WHIP is spoken, and what the paths of its URLs mean.

use crate::lab::profile::Profile;

/// Whose WHIP a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    /// OvenMediaEngine's.
    Ome,
    /// RFC 9725's.
    Rfc,
    /// Wowza Streaming Engine's.
    Wowza,
}

impl Make {
    /// Of a profile that speaks WHIP.
    pub(super) fn of(profile: Profile) -> Self {
        if profile.is_ome() {
            Self::Ome
        } else if profile == Profile::WhipWowza {
            Self::Wowza
        } else {
            Self::Rfc
        }
    }
}

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Endpoint {
        application: String,
        stream: String,
    },
    Nothing,
    /// An application without a stream.
    NoStream,
    Session {
        key: String,
    },
}

impl Place {
    pub(super) fn of(make: Make, path: &str) -> Self {
        let elements: Vec<&str> = path.split('/').skip(1).collect();
        let endpoint = |application: &str, stream: &str| Self::Endpoint {
            application: application.to_owned(),
            stream: stream.to_owned(),
        };
        let session = |key: &str| Self::Session {
            key: key.to_owned(),
        };
        match (make, &elements[..]) {
            (Make::Ome, [_] | [_, ""]) => Self::NoStream,
            (Make::Ome, [application, stream]) => endpoint(application, stream),
            (Make::Ome, [_, _, key]) => session(key),
            (Make::Wowza, [application, stream, "whip"]) => endpoint(application, stream),
            (Make::Wowza, [_, _, "whip", key]) => session(key),
            (Make::Rfc, ["whip", "session", key]) => session(key),
            (Make::Rfc, ["whip", stream]) if !stream.is_empty() => endpoint("whip", stream),
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_mean_at_each_server() {
        let endpoint = |application: &str, stream: &str| Place::Endpoint {
            application: application.to_owned(),
            stream: stream.to_owned(),
        };
        let session = |key: &str| Place::Session {
            key: key.to_owned(),
        };
        let cases = [
            (Make::Rfc, "/whip/front", endpoint("whip", "front")),
            (Make::Rfc, "/whip/session/k", session("k")),
            (Make::Rfc, "/whip/", Place::Nothing),
            (Make::Rfc, "/", Place::Nothing),
            (Make::Ome, "/app/stream", endpoint("app", "stream")),
            (Make::Ome, "/app/stream/k", session("k")),
            (Make::Ome, "/app", Place::NoStream),
            (Make::Ome, "/app/", Place::NoStream),
            (Make::Wowza, "/live/front/whip", endpoint("live", "front")),
            (Make::Wowza, "/live/front/whip/k", session("k")),
            (Make::Wowza, "/live/front", Place::Nothing),
        ];
        for (make, path, place) in cases {
            assert_eq!(Place::of(make, path), place, "{make:?} {path}");
        }
    }
}
