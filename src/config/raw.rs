//! From the text of the file to the types: the only place that may complain about a configuration.
//!
//! Strict: an unknown key is a fault, and so is a key that means nothing where it stands. Everything wrong is
//! reported at once, each fault with its place; only broken TOML hides what lies behind it. Pure: secrets are
//! fetched through [`Env`]. A fault never repeats a value that could be a secret.

mod daemon;
mod platform;
mod publisher;
mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::publisher::same_stream;
use self::read::{Read, Reader, Table, nearest, one_of, quantity, quoted, text, whole};
use super::secret::SecretSource;
use super::{
    AfterLoss, Audio, AudioSource, Bitrate, Config, Feed, PictureWatch, Publisher, Size,
    SoundWatch, Video, VideoSource, units,
};

/// Picture size where the file names none.
const SIZE: Size = Size {
    width: 1280,
    height: 720,
};
/// Pictures per second where the file names none.
const FPS: u32 = 30;
/// Video bitrate where the file names none: good 720p30 of a room with people.
const VIDEO_BITRATE: Bitrate = Bitrate(2_500_000);
/// Time between key frames where the file names none: what the servers' HLS segmenters expect.
const KEY_FRAME_INTERVAL: Duration = Duration::from_secs(2);
/// Audio channels where the file names none: most microphones are mono.
const CHANNELS: u8 = 1;
/// Audio bitrate where the file names none: transparent for one voice, good for music in stereo.
const AUDIO_BITRATE: Bitrate = Bitrate(64_000);

/// What parsing needs from outside the text.
pub struct Env<'a> {
    /// The folder against which relative paths in the file are read; that of the file itself.
    pub base: &'a Path,
    /// Fetches a secret, or says in a few words why it cannot; `None` where secrets are not to be fetched.
    pub fetch: &'a dyn Fn(&SecretSource) -> Result<Option<String>, String>,
    /// Tries to open a file for reading, or says in a few words why it cannot.
    pub open: &'a dyn Fn(&Path) -> Result<(), String>,
}

/// One thing wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the key, such as `feed.front.video.fps`; empty for a fault of the file as a whole.
    pub key: String,
    /// What was found and what is allowed.
    pub message: String,
    /// The known key or word that was probably meant.
    pub suggestion: Option<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        match &self.suggestion {
            Some(word) => write!(f, " (did you mean `{word}`?)"),
            None => Ok(()),
        }
    }
}

/// Reads the text of a configuration file, or says everything that is wrong with it, in order of place.
pub fn parse(text: &str, env: &Env<'_>) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader {
        env,
        text,
        faults: Vec::new(),
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.fault(at, "", format!("this is not TOML: {}", error.message()));
    }
    let config = errors.is_empty().then(|| reader.config(&document));
    reader
        .faults
        .sort_by_key(|fault| (fault.line, fault.column));
    match config {
        Some(config) if reader.faults.is_empty() => Ok(config),
        _ => Err(reader.faults),
    }
}

impl Reader<'_> {
    fn config(&mut self, document: &Spanned<DeTable<'_>>) -> Config {
        let root = Table {
            path: String::new(),
            at: 0,
            entries: document.get_ref(),
        };
        self.only(&root, &["feed", "publisher", "daemon"], &[]);

        let mut feeds = BTreeMap::new();
        for (name, table) in self.named(&root, "feed") {
            feeds.extend(self.feed(&table).map(|feed| (name, feed)));
        }
        self.no_shared_camera(&root, &feeds);

        let mut publishers: BTreeMap<String, Publisher> = BTreeMap::new();
        for (name, table) in self.named(&root, "publisher") {
            if let Some(publisher) = self.publisher(&root, &table) {
                let same = publishers
                    .iter()
                    .find(|(_, p)| same_stream(&p.server, &publisher.server));
                if let Some((other, _)) = same {
                    let message = format!(
                        "publishes to the same stream as publisher.{other}; each would throw the other off"
                    );
                    self.fault(table.at, &table.path, message);
                }
                publishers.insert(name, publisher);
            }
        }
        Config {
            feeds,
            publishers,
            daemon: self.daemon(&root),
        }
    }

    fn feed(&mut self, table: &Table<'_>) -> Option<Feed> {
        self.only(table, &["video", "audio"], &[]);
        let before = self.faults.len();
        let video = self.table(table, "video").and_then(|t| self.video(&t));
        let audio = self.table(table, "audio").and_then(|t| self.audio(&t));
        if video.is_none() && audio.is_none() && self.faults.len() == before {
            let message = "has neither video nor audio; give it at least one of them".to_owned();
            self.fault(table.at, &table.path, message);
        }
        Some(Feed { video, audio })
    }

    fn video(&mut self, table: &Table<'_>) -> Option<Video> {
        const KEYS: [&str; 5] = ["source", "size", "fps", "bitrate", "key_frame_interval"];
        let kinds = ["camera", "file", "testcard"];
        let kind = self.required(table, "source", |v| one_of(v, &kinds));
        let source = match kind {
            Some("camera") => {
                self.only(table, &KEYS, &["device", "frozen_after", "black_after"]);
                let device = self.optional(table, "device", "auto".to_owned(), text);
                let PictureWatch {
                    frozen_after,
                    black_after,
                } = PictureWatch::default();
                let watch = PictureWatch {
                    frozen_after: self.optional(table, "frozen_after", frozen_after, patience),
                    black_after: self.optional(table, "black_after", black_after, patience),
                };
                Some(VideoSource::Camera { device, watch })
            }
            Some("file") => {
                self.only(table, &KEYS, &["path"]);
                let path = self.required(table, "path", text);
                path.map(|path| VideoSource::File {
                    path: self.file(table, "path", &path),
                })
            }
            Some(_) => {
                self.only(table, &KEYS, &[]);
                Some(VideoSource::TestCard)
            }
            None => {
                let more = ["device", "path", "frozen_after", "black_after"];
                self.only(table, &KEYS, &more);
                None
            }
        };
        let size = self.optional(table, "size", SIZE, |v| {
            let allowed = "WIDTHxHEIGHT, both even and from 64 to 4096, such as \"1280x720\"";
            quantity(v, allowed, units::size)
        });
        let fps = self.optional(table, "fps", FPS, |v| whole(v, 1, 60));
        let bitrate = self.optional(table, "bitrate", VIDEO_BITRATE, |v| {
            bitrate(v, 50_000, 50_000_000, "50 kbit/s to 50 Mbit/s")
        });
        let key_frame_interval =
            self.optional(table, "key_frame_interval", KEY_FRAME_INTERVAL, |v| {
                let allowed = "a time with its unit, 500 ms to 60 s, such as \"2s\"";
                let bounds = Duration::from_millis(500)..=Duration::from_secs(60);
                quantity(v, allowed, |t| {
                    units::duration(t).filter(|d| bounds.contains(d))
                })
            });
        Some(Video {
            source: source?,
            size,
            fps,
            bitrate,
            key_frame_interval,
        })
    }

    fn audio(&mut self, table: &Table<'_>) -> Option<Audio> {
        const KEYS: [&str; 3] = ["source", "channels", "bitrate"];
        let kinds = ["file", "microphone", "silence", "tone"];
        let kind = self.required(table, "source", |v| one_of(v, &kinds));
        let source = match kind {
            Some("microphone") => {
                self.only(
                    table,
                    &KEYS,
                    &["device", "silent_after", "clipped_after", "after_loss"],
                );
                let device = self.optional(table, "device", "auto".to_owned(), text);
                let SoundWatch {
                    silent_after,
                    clipped_after,
                } = SoundWatch::default();
                let watch = SoundWatch {
                    silent_after: self.optional(table, "silent_after", silent_after, patience),
                    clipped_after: self.optional(table, "clipped_after", clipped_after, patience),
                };
                let after_loss = self.optional(table, "after_loss", AfterLoss::default(), |v| {
                    Ok(match one_of(v, &["resume", "silence"])? {
                        "silence" => AfterLoss::Silence,
                        _ => AfterLoss::Resume,
                    })
                });
                Some(AudioSource::Microphone {
                    device,
                    watch,
                    after_loss,
                })
            }
            Some("file") => {
                self.only(table, &KEYS, &["path"]);
                let path = self.required(table, "path", text);
                path.map(|path| AudioSource::File {
                    path: self.file(table, "path", &path),
                })
            }
            Some(synthetic) => {
                self.only(table, &KEYS, &[]);
                Some(match synthetic {
                    "silence" => AudioSource::Silence,
                    _ => AudioSource::Tone,
                })
            }
            None => {
                let more = [
                    "device",
                    "path",
                    "silent_after",
                    "clipped_after",
                    "after_loss",
                ];
                self.only(table, &KEYS, &more);
                None
            }
        };
        let channels = self.optional(table, "channels", CHANNELS, |v| whole(v, 1, 2));
        let bitrate = self.optional(table, "bitrate", AUDIO_BITRATE, |v| {
            bitrate(v, 6_000, 510_000, "6 kbit/s to 510 kbit/s")
        });
        Some(Audio {
            source: source?,
            channels,
            bitrate,
        })
    }

    /// The path of a file that must be there.
    fn file(&mut self, table: &Table<'_>, name: &str, path: &str) -> PathBuf {
        let path = self.env.base.join(path);
        if let Err(why) = (self.env.open)(&path) {
            let at = table.entries.get(name).map_or(table.at, |v| v.span().start);
            let message = format!("{} cannot be opened: {why}", path.display());
            self.fault(at, &table.key(name), message);
        }
        path
    }

    fn known_feed(&mut self, root: &Table<'_>, table: &Table<'_>, feed: Option<&str>) {
        let Some(feed) = feed else { return };
        let feeds: Vec<&str> = match root.entries.get("feed").map(Spanned::get_ref) {
            Some(DeValue::Table(feeds)) => feeds.keys().map(|k| k.get_ref().as_ref()).collect(),
            _ => Vec::new(),
        };
        if !feeds.contains(&feed) {
            let at = table
                .entries
                .get("feed")
                .map_or(table.at, |v| v.span().start);
            let message = format!("names the feed {}, which is not in this file", quoted(feed));
            self.fault(at, &table.key("feed"), message);
            self.suggest(nearest(feed, feeds.iter().copied()));
        }
    }

    fn no_shared_camera(&mut self, root: &Table<'_>, feeds: &BTreeMap<String, Feed>) {
        let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, feed) in feeds {
            let Some(VideoSource::Camera { device, .. }) = feed.video.as_ref().map(|v| &v.source)
            else {
                continue;
            };
            if let Some(holder) = holders.get(device.as_str()) {
                let table = root
                    .entries
                    .get("feed")
                    .and_then(|v| v.get_ref().get(name.as_str()));
                let at = table.map_or(0, |v| v.span().start);
                let message = format!(
                    "has the same camera as feed.{holder}; let one feed serve several publishers instead"
                );
                self.fault(at, &format!("feed.{name}.video.device"), message);
            } else {
                holders.insert(device, name);
            }
        }
    }

    /// The tables `[kind.<name>]`; at least one, with names that fit metric labels and SDP.
    fn named<'t>(&mut self, root: &Table<'t>, kind: &str) -> Vec<(String, Table<'t>)> {
        let mut tables = Vec::new();
        let all = self.table(root, kind);
        for (key, _) in all.iter().flat_map(|all| all.entries) {
            let name = key.get_ref().as_ref();
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                let message = format!(
                    "{} is no name; allowed: 1 to 64 letters, digits, - and _",
                    quoted(name)
                );
                self.fault(key.span().start, kind, message);
            } else if let Some(table) = all.as_ref().and_then(|all| self.table(all, name)) {
                tables.push((name.to_owned(), table));
            }
        }
        if all.as_ref().is_none_or(|all| all.entries.is_empty()) {
            let message = format!("is missing; at least one table [{kind}.NAME] is needed");
            self.fault(0, kind, message);
        }
        tables
    }
}

/// For how long something may last before it is said.
fn patience(value: &DeValue<'_>) -> Read<Option<Duration>> {
    let allowed = "a time with its unit, 1 s to 24 h, such as \"10s\", or \"off\"";
    let bounds = Duration::from_secs(1)..=Duration::from_hours(24);
    quantity(value, allowed, |text| match text {
        "off" => Some(None),
        text => units::duration(text)
            .filter(|d| bounds.contains(d))
            .map(Some),
    })
}

fn bitrate(value: &DeValue<'_>, least: u32, most: u32, range: &str) -> Read<Bitrate> {
    let allowed =
        format!("a bitrate with its unit, {range}, such as \"64 kbit/s\" or \"2.5 Mbit/s\"");
    quantity(value, &allowed, |t| {
        units::bitrate(t).filter(|rate| (least..=most).contains(&rate.0))
    })
}

#[cfg(test)]
mod tests;
