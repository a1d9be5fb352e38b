//! `onair check`: is this configuration usable, and if not, everything that is wrong with it.
//!
//! A server whose name cannot be looked up is said but is no fault: onair starts with the far end down.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use url::Url;

use super::CONFIGURATION;
use crate::cli;
use crate::config::Config;
use crate::config::load::{self, Scope, load};

/// Longest wait for one name.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

/// Prints the faults, or what the file sets up; ends with 0 or 78.
pub async fn run(args: cli::Check, _globals: cli::Global) -> anyhow::Result<ExitCode> {
    let scope = if args.offline {
        Scope::Text
    } else {
        Scope::Everything
    };
    let loaded = load(&args.config, scope);
    let notes = match &loaded {
        Ok(config) if !args.offline => unresolved(config).await,
        _ => Vec::new(),
    };
    let text = if args.json {
        as_json(&args.config, &loaded, &notes)
    } else {
        as_text(&args.config, &loaded, &notes)
    };
    super::print(&text)?;
    Ok(match loaded {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(CONFIGURATION),
    })
}

/// A sentence for each server whose name has no address now.
async fn unresolved(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, publisher) in &config.publishers {
        let url = publisher.server.url();
        let url = Url::parse(url.expose()).ok();
        let Some(host) = url.as_ref().and_then(Url::host_str) else {
            continue;
        };
        let lookup = tokio::net::lookup_host((host.trim_matches(['[', ']']), 0));
        let why = match tokio::time::timeout(LOOKUP_DEADLINE, lookup).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer for {} s", LOOKUP_DEADLINE.as_secs()),
        };
        notes.push(format!(
            "publisher.{name}: {host} has no address now: {why}"
        ));
    }
    notes
}

fn as_json(path: &Path, loaded: &Result<Config, load::Error>, notes: &[String]) -> String {
    let (faults, error) = match loaded {
        Ok(_) => (json!([]), None),
        Err(load::Error::Faults { faults, .. }) => (json!(faults), None),
        Err(unreadable @ load::Error::Unreadable { .. }) => {
            (json!([]), Some(unreadable.to_string()))
        }
    };
    let document = json!({
        "config": path,
        "ok": loaded.is_ok(),
        "faults": faults,
        "error": error,
        "notes": notes,
    });
    format!("{document:#}\n")
}

fn as_text(path: &Path, loaded: &Result<Config, load::Error>, notes: &[String]) -> String {
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return format!("{error}\n"),
    };
    let mut text = String::new();
    for note in notes {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{}: {note}", path.display());
    }
    let names = |names: Vec<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        names.join(", ")
    };
    _ = writeln!(
        text,
        "{}: no faults; feeds: {}; publishers: {}",
        path.display(),
        names(config.feeds.keys().collect()),
        names(config.publishers.keys().collect())
    );
    text
}
