//! The file that a bundle is: a gzipped tar in one folder, with a manifest. Secrets are taken out of all that others wrote.

use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tar::{Builder, Header};

use crate::recorder::scrub::Scrubber;

/// The folder in the archive.
const FOLDER: &str = "onair-bundle";

/// A bundle in the making.
pub(super) struct Archive<W: io::Write> {
    tar: Builder<GzEncoder<W>>,
    scrubber: Scrubber,
    made_at: SystemTime,
    contents: String,
    left_out: String,
}

impl<W: io::Write> Archive<W> {
    /// Begins one that is written to `out`; `scrubber` takes the secrets out.
    pub(super) fn new(out: W, scrubber: Scrubber, made_at: SystemTime) -> Self {
        Self {
            tar: Builder::new(GzEncoder::new(out, Compression::default())),
            scrubber,
            made_at,
            contents: String::new(),
            left_out: String::new(),
        }
    }

    /// Adds a file of text; `what` says in the manifest what it is.
    pub(super) fn text(&mut self, name: &str, what: &str, text: &str) -> io::Result<()> {
        let lines = text.lines().map(|line| self.scrubber.text(line) + "\n");
        let text: String = lines.collect();
        self.add(name, what, &text)
    }

    /// Adds a file of JSON.
    pub(super) fn json(&mut self, name: &str, what: &str, mut value: Value) -> io::Result<()> {
        self.scrubber.value(&mut value);
        self.add(name, what, &format!("{value:#}\n"))
    }

    /// Adds a file of one JSON document a line. `texts` that are no JSON are taken as texts.
    pub(super) fn json_lines(
        &mut self,
        name: &str,
        what: &str,
        texts: impl Iterator<Item = String>,
    ) -> io::Result<()> {
        let mut all = String::new();
        for text in texts {
            all += &match serde_json::from_str(&text) {
                Ok(mut value) => {
                    self.scrubber.value(&mut value);
                    value.to_string()
                }
                Err(_) => self.scrubber.text(&text),
            };
            all.push('\n');
        }
        self.add(name, what, &all)
    }

    /// Says in the manifest that something is not there, and why.
    pub(super) fn left_out(&mut self, what: &str, why: &str) {
        let why = self.scrubber.text(why);
        // Writing to a String cannot fail.
        _ = writeln!(self.left_out, "- {what}: {why}");
    }

    /// Ends it with the manifest, and returns what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let made_at = humantime::format_rfc3339_seconds(self.made_at);
        let manifest = format!(
            "A bundle of onair {}, made at {made_at}.\n\nIn it:\n{}\nLeft out:\n{}",
            env!("CARGO_PKG_VERSION"),
            self.contents,
            self.left_out
        );
        self.put("MANIFEST", &manifest)?;
        let mut out = self.tar.into_inner()?.finish()?;
        out.flush()?;
        Ok(out)
    }

    /// Adds a file from which the secrets were taken out before.
    pub(super) fn add(&mut self, name: &str, what: &str, text: &str) -> io::Result<()> {
        self.put(name, text)?;
        _ = writeln!(self.contents, "- {name} ({} bytes): {what}", text.len());
        Ok(())
    }

    fn put(&mut self, name: &str, text: &str) -> io::Result<()> {
        let since = self.made_at.duration_since(UNIX_EPOCH);
        let mut header = Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(text.len() as u64);
        header.set_mtime(since.map_or(0, |since| since.as_secs()));
        let path = format!("{FOLDER}/{name}");
        self.tar.append_data(&mut header, path, text.as_bytes())
    }
}
