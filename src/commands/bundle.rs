//! `onair bundle`: what support needs to see, in one file that may be mailed: the flight recorder, the configuration
//! without its secrets, the machine. What cannot be had is left out and the manifest says so; nothing of it makes the
//! bundle fail.

mod archive;
mod facts;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use serde_json::{Value, json};

use self::archive::Archive;
use super::{clocks, devices, print};
use crate::cli;
use crate::config::load::{self, Known, Scope};
use crate::network::{self, Network};
use crate::recorder;
use crate::recorder::scrub::Scrubber;

/// Where the unit's files are if neither the configuration nor systemd says so.
const STATE_DIR: &str = "/var/lib/onair";
/// Most files beside the recorder's that are taken from there.
const STATE_FILES: usize = 32;
/// Most of each.
const STATE_FILE_MAX: u64 = 256 << 10;

/// What had to be asked beforehand.
struct Asked {
    devices: Result<Value, String>,
    network: Network,
    now: SystemTime,
}

/// Writes the bundle and prints where it is.
pub async fn run(args: cli::Bundle, _globals: cli::Global) -> anyhow::Result<ExitCode> {
    let (_, now) = clocks();
    let devices = devices::found().await;
    let asked = Asked {
        devices: devices
            .map(|(cameras, microphones)| devices::as_json(&cameras, &microphones))
            .map_err(|error| format!("{error:#}")),
        network: network::watch().await.borrow().clone(),
        now,
    };
    let written = tokio::task::spawn_blocking(move || write(&args, asked)).await??;
    print(&format!(
        "{}\nMANIFEST in it says what is in it and what was left out\n",
        written.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn write(args: &cli::Bundle, asked: Asked) -> anyhow::Result<PathBuf> {
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| default_name(asked.now));
    let parent = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).with_context(|| {
        format!(
            "cannot write to {}; give an --output elsewhere",
            folder.display()
        )
    })?;
    let known = load::secrets(&args.config);
    let scrubber = Scrubber::new(known.secrets.clone());
    let mut archive = Archive::new(file, scrubber, asked.now);
    let no_room = || {
        let folder = folder.display();
        format!(
            "cannot write the bundle to {folder}; see to the room there, or give an --output elsewhere"
        )
    };
    fill(&mut archive, &args.config, &known, asked).with_context(no_room)?;
    let file = archive.finish().with_context(no_room)?;
    let named = file.persist_noclobber(&output);
    named.with_context(|| format!("cannot write {}; is it there already?", output.display()))?;
    Ok(output)
}

fn default_name(now: SystemTime) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(now).to_string();
    format!("onair-bundle-{}.tar.gz", now.replace(['-', ':'], "")).into()
}

fn fill<W: io::Write>(
    archive: &mut Archive<W>,
    config: &Path,
    known: &Known,
    asked: Asked,
) -> io::Result<()> {
    let state_dir = configuration(archive, config)?;
    kept(archive, &state_dir)?;
    archive.json(
        "build.json",
        "the program and how it was built",
        facts::build(),
    )?;
    archive.json(
        "system.json",
        "kernel, distribution, load, groups",
        facts::system(),
    )?;
    match asked.devices {
        Ok(devices) => archive.json(
            "devices.json",
            "cameras and microphones, as `onair devices --json` tells of them; their names may hold serial numbers",
            devices,
        )?,
        Err(why) => archive.left_out("devices.json", &why),
    }
    let now = humantime::format_rfc3339_seconds(asked.now).to_string();
    archive.json(
        "time.json",
        "the clock, and whether it is kept right",
        facts::time(now),
    )?;
    archive.json(
        "network.json",
        "interfaces and their counts",
        facts::network(&asked.network),
    )?;
    match facts::journal() {
        Ok(journal) => archive.text("journal.txt", "the unit's latest lines", &journal)?,
        Err(why) => archive.left_out("journal.txt", &why),
    }
    archive.left_out(
        "secrets",
        "whatever the configuration does not list as harmless, and whatever looks like one, is replaced by ***",
    );
    if !known.unread.is_empty() {
        let why = format!(
            "could not be read by this user, so only what looks like a secret was hidden of them: {}",
            known.unread.join(", ")
        );
        archive.left_out("some secrets", &why);
    }
    archive.left_out("comments of the configuration", "old secrets rest in them");
    archive.left_out(
        "addresses of interfaces, routers and resolvers",
        "only their number; those in session descriptions are in recorder.jsonl",
    );
    archive.left_out("pictures and sound", "they are never recorded");
    Ok(())
}

/// Adds the configuration; says where the state is.
fn configuration<W: io::Write>(archive: &mut Archive<W>, path: &Path) -> io::Result<PathBuf> {
    match load::discreet(path) {
        Ok(Some(redacted)) => archive.add(
            "config.toml",
            "the configuration; its keys in order of the alphabet",
            &redacted.toml,
        )?,
        Ok(None) => archive.left_out("config.toml", "it is no TOML; see config-check.txt"),
        Err(why) => archive.left_out("config.toml", &format!("{} {why}", path.display())),
    }
    let loaded = load::load(path, Scope::Text);
    let said = match &loaded {
        Ok(_) => "no faults".to_owned(),
        Err(error) => error.to_string(),
    };
    archive.text(
        "config-check.txt",
        "what `onair check --offline` says of it",
        &said,
    )?;
    let configured = loaded.ok().and_then(|config| config.daemon.state_dir);
    Ok(configured
        .or_else(load::state_directory)
        .unwrap_or_else(|| STATE_DIR.into()))
}

/// Adds what onair keeps in its folder.
fn kept<W: io::Write>(archive: &mut Archive<W>, state_dir: &Path) -> io::Result<()> {
    match recorder::read(state_dir) {
        Ok(contents) => {
            let what = match contents.is_recording {
                true => "what the flight recorder holds; a daemon was recording meanwhile",
                false => "what the flight recorder holds; no daemon was recording",
            };
            let mut n_lines = 0;
            let lines = contents.lines().inspect(|_| n_lines += 1);
            let lines = lines.map(|line| match line {
                Ok(line) => line.to_owned(),
                Err(n_bytes) => json!({ "k": "torn", "bytes": n_bytes }).to_string(),
            });
            archive.json_lines("recorder.jsonl", what, lines)?;
            if n_lines == 0 {
                let why = format!("nothing was recorded in {}", state_dir.display());
                archive.left_out("contents of recorder.jsonl", &why);
            }
        }
        Err(error) => {
            let why = format!(
                "{} cannot be read: {error}; try as root",
                state_dir.display()
            );
            archive.left_out("recorder.jsonl", &why);
        }
    }
    let files = match state_files(state_dir) {
        Ok(files) => files,
        Err(error) => {
            let why = format!("{} cannot be read: {error}", state_dir.display());
            archive.left_out("state/", &why);
            return Ok(());
        }
    };
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("state/{name}");
        match state_file(&path) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(value) => archive.json(&name, "what onair remembers", value)?,
                Err(_) => archive.text(&name, "what onair remembers", &text)?,
            },
            Err(why) => archive.left_out(&name, &why),
        }
    }
    Ok(())
}

/// The plain files that lie beside the recorder's folder and hold something; no links, for they may lead anywhere.
fn state_files(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(state_dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.metadata()?.len() > 0 {
            files.push(entry.path());
        }
    }
    files.sort();
    files.truncate(STATE_FILES);
    Ok(files)
}

fn state_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let n_bytes = file
        .take(STATE_FILE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    match n_bytes as u64 > STATE_FILE_MAX {
        true => Err(format!("it is larger than {STATE_FILE_MAX} bytes")),
        false => Ok(text),
    }
}
