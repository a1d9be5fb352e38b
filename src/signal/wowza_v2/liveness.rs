//! Whether the server still lists the stream that media flows to: what the answers to repeated looks mean, and when to
//! look next. Pure.
//!
//! An application that is restarted under a live session forgets the stream, while ICE and DTLS live on: the media
//! then flows to nobody. Only the list of streams tells. But not every server gives that list, and a name may stand
//! in it otherwise than we know it, so a list is evidence only with care: two looks in a row must miss the stream, and a list
//! that never held it is believed once, not for ever.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::server::number;

/// From the answer to the first look (protocols.md 3.3, as all of these).
pub(super) const FIRST_LOOK: Duration = Duration::from_secs(15);
/// From one look to the next.
pub(super) const LOOK_PERIOD: Duration = Duration::from_secs(20);
/// From a look that missed the stream to the next.
pub(super) const RECHECK: Duration = Duration::from_secs(5);
/// Looks in a row that must miss it.
const MISSES: u32 = 2;
/// Looks in a row without a list, after which none is expected any more.
const BLIND_LOOKS: u32 = 3;

/// What one look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The stream is in the list.
    Listed,
    /// There is a list without the stream.
    Missing,
    /// There is no list: no connection, a refusal, silence, or a server whose queries are switched off.
    Nothing,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The stream is gone.
    Gone {
        /// The list had held it before, so that it can be believed.
        was_listed: bool,
    },
    /// Look again after this time.
    Look(Duration),
    /// Looking is of no use here.
    Stop,
}

/// The looks of one session so far.
#[derive(Debug)]
pub(super) struct Liveness {
    /// In an earlier session a list that never held the stream was believed already.
    doubted: bool,
    was_listed: bool,
    misses: u32,
    blind: u32,
}

impl Liveness {
    pub(super) const fn new(doubted: bool) -> Self {
        Self {
            doubted,
            was_listed: false,
            misses: 0,
            blind: 0,
        }
    }

    /// Takes what a look saw.
    pub(super) const fn on(&mut self, seen: Seen) -> Next {
        match seen {
            Seen::Listed => {
                self.was_listed = true;
                self.misses = 0;
                self.blind = 0;
                Next::Look(LOOK_PERIOD)
            }
            Seen::Missing => {
                self.blind = 0;
                self.misses += 1;
                if self.misses < MISSES {
                    Next::Look(RECHECK)
                } else if self.doubted && !self.was_listed {
                    Next::Stop
                } else {
                    Next::Gone {
                        was_listed: self.was_listed,
                    }
                }
            }
            Seen::Nothing => {
                self.blind += 1;
                if self.blind < BLIND_LOOKS {
                    Next::Look(LOOK_PERIOD)
                } else {
                    Next::Stop
                }
            }
        }
    }
}

/// The question for the list of streams.
pub(crate) fn question(application: &str) -> Value {
    json!({ "messageType": "GET_AVAILABLE_STREAMS", "applicationName": application })
}

/// Reads a message for the stream called `name`; `None` if it is no answer to our question. Renditions of the
/// stream, listed as `name_m` and the like, outlive it and do not count.
pub(crate) fn read_list(message: &Value, name: &str) -> Option<Seen> {
    let status = message.get("statusCode").or_else(|| message.get("status"));
    if status.is_some_and(|status| !matches!(number(status), Some(200..=299))) {
        return Some(Seen::Nothing);
    }
    let Some(list) = message.get("availableStreams") else {
        return status.map(|_| Seen::Nothing);
    };
    let Some(list) = list.as_array() else {
        return Some(Seen::Nothing);
    };
    let is_ours = |entry: &Value| {
        let listed = entry.as_str().or_else(|| entry.get("streamName")?.as_str());
        listed.is_some_and(|listed| plain(listed) == name)
    };
    Some(if list.iter().any(is_ours) {
        Seen::Listed
    } else {
        Seen::Missing
    })
}

/// A stream name without the query that may carry a token.
pub(super) fn plain(name: &str) -> &str {
    name.split('?').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from `looks`, one after another.
    fn follow(doubted: bool, looks: &[Seen]) -> Vec<Next> {
        let mut liveness = Liveness::new(doubted);
        looks.iter().map(|seen| liveness.on(*seen)).collect()
    }

    const GONE: Next = Next::Gone { was_listed: true };

    #[test]
    fn a_listed_stream_is_looked_for_every_twenty_seconds() {
        assert_eq!(
            follow(false, &[Seen::Listed; 5]),
            [Next::Look(LOOK_PERIOD); 5]
        );
    }

    #[test]
    fn two_misses_in_a_row_five_seconds_apart_are_the_end() {
        let seen = follow(false, &[Seen::Listed, Seen::Missing, Seen::Missing]);
        assert_eq!(seen[1..], [Next::Look(RECHECK), GONE]);
    }

    #[test]
    fn a_stream_that_is_listed_again_at_the_recheck_lives() {
        let looks = [
            Seen::Listed,
            Seen::Missing,
            Seen::Listed,
            Seen::Missing,
            Seen::Listed,
        ];
        assert!(!follow(false, &looks).contains(&GONE));
    }

    #[test]
    fn three_looks_without_a_list_end_the_looking() {
        let seen = follow(false, &[Seen::Nothing; 3]);
        assert_eq!(seen[1], Next::Look(LOOK_PERIOD));
        assert_eq!(seen[2], Next::Stop);
        let seen = follow(
            false,
            &[
                Seen::Nothing,
                Seen::Nothing,
                Seen::Listed,
                Seen::Nothing,
                Seen::Nothing,
            ],
        );
        assert!(!seen.contains(&Next::Stop), "only in a row");
    }

    #[test]
    fn a_look_without_a_list_neither_adds_to_the_misses_nor_clears_them() {
        let looks = [Seen::Listed, Seen::Missing, Seen::Nothing, Seen::Missing];
        assert_eq!(follow(false, &looks)[2..], [Next::Look(LOOK_PERIOD), GONE]);
    }

    #[test]
    fn a_list_that_never_held_the_stream_is_believed_once() {
        let looks = [Seen::Missing, Seen::Missing];
        assert_eq!(follow(false, &looks)[1], Next::Gone { was_listed: false });
        assert_eq!(follow(true, &looks)[1], Next::Stop);
        let looks = [Seen::Listed, Seen::Missing, Seen::Missing];
        assert_eq!(follow(true, &looks)[2], GONE, "it holds it after all");
    }

    #[test]
    fn the_name_is_compared_whole_and_without_its_query() {
        let list = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| json!({ "streamName": n })).collect();
            read_list(&json!({ "availableStreams": names }), "front")
        };
        assert_eq!(list(&["other", "front"]), Some(Seen::Listed));
        assert_eq!(list(&["front?token=x"]), Some(Seen::Listed));
        assert_eq!(
            list(&["front_m", "front_l", "front_...", "frontier"]),
            Some(Seen::Missing)
        );
        assert_eq!(list(&[]), Some(Seen::Missing));
    }

    #[test]
    fn what_is_no_list_is_no_evidence() {
        for message in [
            json!({ "availableStreams": null }),
            json!({ "statusCode": 200 }),
            json!({ "statusCode": 403, "statusDescription": "query is off" }),
            json!({ "statusCode": "403", "availableStreams": [] }),
            json!({ "status": 500 }),
            json!({ "availableStreams": "front" }),
        ] {
            assert_eq!(
                read_list(&message, "front"),
                Some(Seen::Nothing),
                "{message}"
            );
        }
        assert_eq!(read_list(&json!({ "hello": true }), "front"), None);
        assert_eq!(read_list(&json!([]), "front"), None);
        let odd = json!({ "statusCode": "200", "availableStreams": ["front", 7, {}] });
        assert_eq!(read_list(&odd, "front"), Some(Seen::Listed));
    }
}
