//! What a new configuration changes: only what differs is touched. Pure.
//!
//! A feed of which nothing but a bitrate changed goes on, and its sessions with it. Any other change needs another
//! encoder or another device: the feed begins anew, and so do the publishers of it, for what they announced to
//! their servers no longer holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::config::secret::Secret;
use crate::config::{Config, Feed, Publisher, Server};
use crate::feed;

/// What becomes of one feed or publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is no longer in the configuration.
    End,
    /// Nothing: it goes on.
    Keep,
    /// It ends and begins anew with another configuration, or on another feed.
    Replace,
    /// It goes on with other bitrates, and its sessions with it. Feeds only.
    Retune,
    /// It is new.
    Start,
}

/// What becomes of everything, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The feeds, old and new.
    pub feeds: BTreeMap<String, Change>,
    /// The publishers, old and new.
    pub publishers: BTreeMap<String, Change>,
}

impl Plan {
    /// The way from `old` to `new`. `touched` are files that the configuration names and whose content changed since
    /// `old` was put to work, though their names may not have.
    pub fn new(old: &Config, new: &Config, touched: &BTreeSet<PathBuf>) -> Self {
        let feeds = changes(&old.feeds, &new.feeds, of_feed);
        let publishers = changes(&old.publishers, &new.publishers, |old, new| {
            let replaced = feeds.get(&new.feed) == Some(&Change::Replace);
            let authorities = new.trust.ca_file.as_ref();
            if same(old, new)
                && !replaced
                && !authorities.is_some_and(|file| touched.contains(file))
            {
                Change::Keep
            } else {
                Change::Replace
            }
        });
        Self { feeds, publishers }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let mut all = self.feeds.values().chain(self.publishers.values());
        all.all(|change| *change == Change::Keep)
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let feeds = self
            .feeds
            .iter()
            .map(|(name, change)| ("feed", name, change));
        let publishers = self.publishers.iter();
        let publishers = publishers.map(|(name, change)| ("publisher", name, change));
        let mut said = Vec::new();
        for (kind, name, change) in feeds.chain(publishers) {
            let word = match change {
                Change::Keep => continue,
                Change::End => "ends",
                Change::Replace => "begins anew",
                Change::Retune => "is retuned",
                Change::Start => "begins",
            };
            said.push(format!("{kind} {name} {word}"));
        }
        match said.is_empty() {
            true => f.write_str("nothing changes"),
            false => f.write_str(&said.join(", ")),
        }
    }
}

fn changes<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    of: impl Fn(&T, &T) -> Change,
) -> BTreeMap<String, Change> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), Change::End));
    let there = new.iter().map(|(name, new)| {
        let change = old.get(name).map_or(Change::Start, |old| of(old, new));
        (name.clone(), change)
    });
    gone.chain(there).collect()
}

/// Whether a session begun as `old` says is one as `new` says. A renewed token disturbs none: where it was read is where
/// it is read again once the server refuses the old one.
fn same(old: &Publisher, new: &Publisher) -> bool {
    let (mut old, mut new) = (old.clone(), new.clone());
    for publisher in [&mut old, &mut new] {
        let bearer = match &mut publisher.server {
            Server::Platform(platform) => Some(&mut platform.credential),
            Server::Whip { bearer, .. } => bearer.as_mut(),
            Server::Ome { .. } | Server::Qencode { .. } | Server::Wowza { .. } => None,
        };
        if let Some(bearer) = bearer
            && bearer.source.is_some()
        {
            bearer.token = Secret::new("");
        }
    }
    old == new
}

fn of_feed(old: &Feed, new: &Feed) -> Change {
    match old == new {
        true => Change::Keep,
        false if feed::retunable(old, new) => Change::Retune,
        false => Change::Replace,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::secret::{Bearer, SecretSource};
    use crate::config::{
        Audio, AudioSource, Bitrate, Daemon, Size, Transport, Trickle, Video, VideoSource,
    };

    fn feed() -> Feed {
        Feed {
            video: Some(Video {
                source: VideoSource::TestCard,
                size: Size {
                    width: 640,
                    height: 360,
                },
                fps: 15,
                bitrate: Bitrate(600_000),
                key_frame_interval: Duration::from_secs(2),
            }),
            audio: Some(Audio {
                source: AudioSource::Tone,
                channels: 2,
                bitrate: Bitrate(64_000),
            }),
        }
    }

    fn publisher(feed: &str, url: &str) -> Publisher {
        let url = Secret::new(url);
        Publisher::new(feed, Server::Ome { url })
    }

    /// Two feeds, each with two publishers.
    fn config() -> Config {
        let of = |name: &str, feed: &str| {
            (
                name.to_owned(),
                publisher(feed, &format!("ws://host/app/{name}")),
            )
        };
        Config {
            feeds: [("a".to_owned(), feed()), ("b".to_owned(), feed())].into(),
            publishers: [of("a1", "a"), of("a2", "a"), of("b1", "b"), of("b2", "b")].into(),
            daemon: Daemon::default(),
        }
    }

    /// What a change of the configuration does to feeds and publishers, in the order of their names, as words.
    fn plan(change: impl FnOnce(&mut Config)) -> String {
        let old = config();
        let mut new = old.clone();
        change(&mut new);
        Plan::new(&old, &new, &BTreeSet::new()).to_string()
    }

    fn video<'a>(config: &'a mut Config, feed: &str) -> &'a mut Video {
        let feed = config.feeds.get_mut(feed).unwrap();
        feed.video.as_mut().unwrap()
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        assert_eq!(plan(|_| {}), "nothing changes");
        let plan = Plan::new(&config(), &config(), &BTreeSet::new());
        assert!(plan.is_empty());
        assert_eq!(plan.publishers.len(), 4);
    }

    #[test]
    fn a_changed_publisher_begins_anew_alone() {
        let said = plan(|new| {
            let publisher = new.publishers.get_mut("a2").unwrap();
            publisher.transport = Transport::Tcp;
        });
        assert_eq!(said, "publisher a2 begins anew");
        let said = plan(|new| {
            new.publishers
                .insert("b1".to_owned(), publisher("b", "ws://host/app/renewed"));
        });
        assert_eq!(said, "publisher b1 begins anew");
        let said = plan(|new| new.publishers.get_mut("b1").unwrap().feed = "a".to_owned());
        assert_eq!(said, "publisher b1 begins anew");
    }

    #[test]
    fn a_bitrate_alone_disturbs_no_session() {
        let said = plan(|new| video(new, "a").bitrate = Bitrate(300_000));
        assert_eq!(said, "feed a is retuned");
        let said = plan(|new| {
            let audio = &mut new.feeds.get_mut("b").unwrap().audio;
            audio.as_mut().unwrap().bitrate = Bitrate(32_000);
        });
        assert_eq!(said, "feed b is retuned");
    }

    #[test]
    fn any_other_change_of_a_feed_takes_its_publishers_along() {
        let anew = "feed a begins anew, publisher a1 begins anew, publisher a2 begins anew";
        assert_eq!(plan(|new| video(new, "a").fps = 25), anew);
        assert_eq!(plan(|new| video(new, "a").size.width = 320), anew);
        let both = |new: &mut Config| {
            let video = video(new, "a");
            (video.fps, video.bitrate) = (25, Bitrate(300_000));
        };
        assert_eq!(plan(both), anew);
        let mute = |new: &mut Config| new.feeds.get_mut("a").unwrap().audio = None;
        assert_eq!(plan(mute), anew);
    }

    #[test]
    fn what_is_new_begins_and_what_is_gone_ends() {
        let said = plan(|new| {
            new.feeds.remove("b");
            new.publishers.remove("b1");
            new.publishers.get_mut("b2").unwrap().feed = "a".to_owned();
            new.feeds.insert("c".to_owned(), feed());
            new.publishers
                .insert("c1".to_owned(), publisher("c", "ws://host/app/c1"));
        });
        assert_eq!(
            said,
            "feed b ends, feed c begins, publisher b1 ends, publisher b2 begins anew, publisher c1 begins"
        );
    }

    #[test]
    fn renewed_authorities_begin_only_those_anew_who_trust_them() {
        let mut old = config();
        let file = PathBuf::from("/etc/ca.pem");
        old.publishers.get_mut("a1").unwrap().trust.ca_file = Some(file.clone());
        let plan = Plan::new(&old, &old, &[file].into());
        assert_eq!(plan.to_string(), "publisher a1 begins anew");
    }

    #[test]
    fn a_token_that_can_be_read_again_disturbs_no_session_when_it_is_renewed() {
        let config = |token: &str, source: Option<SecretSource>| {
            let mut config = config();
            config.publishers.get_mut("a1").unwrap().server = Server::Whip {
                url: Secret::new("https://host/whip"),
                bearer: Some(Bearer {
                    token: Secret::new(token),
                    source,
                }),
                trickle: Trickle::Off,
            };
            config
        };
        let file = Some(SecretSource::File("token".into()));
        let said = |old: &Config, new: &Config| Plan::new(old, new, &BTreeSet::new()).to_string();
        let (old, new) = (config("old", file.clone()), config("new", file.clone()));
        assert_eq!(said(&old, &new), "nothing changes");
        let (old, new) = (config("old", None), config("new", None));
        assert_eq!(said(&old, &new), "publisher a1 begins anew");
        assert_eq!(said(&config("old", file), &old), "publisher a1 begins anew");
    }
}
