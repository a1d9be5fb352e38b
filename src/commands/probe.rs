//! `onair probe`: what a server would take from a publisher, and whether one could publish; nothing is published.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::cli;
use crate::config::load::{self, Scope};
use crate::config::secret::Secret;
use crate::config::{Proxy, Publisher, Server, Trickle, Trust, WowzaDialect};
use crate::probe::{self, Findings, Way};

/// More than any URL needs.
const URL_MAX: u64 = 8 << 10;

/// Asks the server and prints what was found; the exit code is 0 if one could publish, and 1 if not or if that could not
/// be found out.
pub async fn run(args: cli::Probe, globals: cli::Global) -> anyhow::Result<ExitCode> {
    let publisher = publisher(&args)?;
    let mut chance = fastrand::Rng::with_seed(globals.seed());
    let chance = (!args.this_name).then_some(&mut chance);
    let findings = probe::probe(&publisher, chance).await;
    let text = if args.json {
        format!("{:#}\n", as_json(&findings))
    } else {
        as_text(&findings)
    };
    super::print(&text)?;
    Ok(if findings.is_publishable() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The publisher whose server is meant: one of the configuration file, or one made of the URL.
fn publisher(args: &cli::Probe) -> anyhow::Result<Publisher> {
    if let Some(path) = &args.config {
        let config = load::load(path, Scope::Everything)?;
        let wanted = args.url.as_deref();
        let mut found = (config.publishers.into_iter())
            .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name));
        return match (found.next(), found.next()) {
            (Some((_, publisher)), None) => Ok(publisher),
            (Some(_), Some(_)) => bail!("the file has several publishers; name one of them"),
            (None, _) => bail!("the file has no publisher of that name"),
        };
    }
    bare(args)?;
    let url = match args.url.as_deref() {
        Some("-") => {
            let mut url = String::new();
            let mut input = std::io::stdin().lock().take(URL_MAX);
            input
                .read_to_string(&mut url)
                .context("cannot read the URL from standard input")?;
            url.trim().to_owned()
        }
        Some(url) => url.to_owned(),
        None => bail!("name a URL, `-` to read it from standard input, or a configuration file"),
    };
    let mut publisher = Publisher::new("", server(&url, args));
    publisher.trust = Trust {
        ca_file: args.ca_file.clone(),
        insecure: args.insecure_tls,
        ..Trust::default()
    };
    publisher.proxy = match args.proxy.as_deref() {
        None => Proxy::Environment,
        Some("none") => Proxy::None,
        Some(url) => Proxy::Url(Secret::new(url)),
    };
    Ok(publisher)
}

/// Refuses secrets where a list of processes and a shell's history show them. The words are not repeated.
fn bare(args: &cli::Probe) -> anyhow::Result<()> {
    if args.proxy.as_deref().is_some_and(|url| url.contains('@')) {
        bail!(
            "--proxy: a proxy's user and password do not belong on a command line; leave it out and set HTTPS_PROXY, or \
             use a configuration file"
        );
    }
    if args
        .stream
        .as_deref()
        .is_some_and(|name| name.contains('?'))
    {
        bail!(
            "--stream: what follows the ? may be a token, which does not belong on a command line; the name in front of \
             it will do here, or use a configuration file"
        );
    }
    Ok(())
}

/// What kind of server `url` leads to, by its scheme and the end of its path.
fn server(url: &str, args: &cli::Probe) -> Server {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, secret) = (url.split(':').next().unwrap_or_default(), Secret::new(url));
    if scheme.to_ascii_lowercase().starts_with("http") {
        Server::Whip {
            url: secret,
            bearer: None,
            trickle: Trickle::Off,
        }
    } else if path.ends_with("webrtc-session.json") {
        Server::Wowza {
            url: secret,
            application: args.application.clone().unwrap_or_default(),
            stream: Secret::new(args.stream.clone().unwrap_or_default()),
            dialect: WowzaDialect::Auto,
        }
    } else {
        Server::Ome { url: secret }
    }
}

fn as_json(findings: &Findings) -> Value {
    let steps = findings
        .steps
        .iter()
        .map(|step| json!({ "step": step.name, "result": step.result, "ms": ms(step.took) }));
    let ways = findings
        .ways
        .iter()
        .map(|way| json!({ "way": way.rung.to_string(), "works": way.works, "known": way.known }));
    json!({
        "endpoint": findings.endpoint,
        "steps": steps.collect::<Vec<_>>(),
        "dialect": findings.dialect.map(|d| d.to_string()),
        "round_trip_ms": findings.round_trip.map(ms),
        "candidates": findings.candidates,
        "ice_servers": findings.ice_servers,
        "ways": ways.collect::<Vec<_>>(),
        "would_use": findings.would_use().map(|rung| rung.to_string()),
        "notes": findings.notes,
        "publishable": findings.is_publishable(),
        "against": findings.against,
        "unclear": findings.unclear,
    })
}

fn as_text(findings: &Findings) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| out += &format!("{name:<11} {text}\n");
    line("server", &findings.endpoint);
    for step in &findings.steps {
        line(
            step.name,
            &format!("{} ({:.0} ms)", step.result, ms(step.took)),
        );
    }
    match findings.dialect {
        Some(dialect) => line("dialect", &dialect.to_string()),
        None => line("dialect", "none that onair knows answered"),
    }
    if let Some(took) = findings.round_trip {
        line("round trip", &format!("{:.0} ms", ms(took)));
    }
    for server in &findings.ice_servers {
        line("ice server", server);
    }
    for Way { rung, works, known } in &findings.ways {
        let sign = match works {
            Some(true) => "works",
            Some(false) => "no",
            None => "maybe",
        };
        line(&rung.to_string(), &format!("{sign}: {known}"));
    }
    if let Some(rung) = findings.would_use() {
        line("would use", &rung.to_string());
    }
    for note in &findings.notes {
        line("note", note);
    }
    for reason in &findings.against {
        line("against it", reason);
    }
    for question in &findings.unclear {
        line("unclear", question);
    }
    let verdict = if !findings.against.is_empty() {
        "one could not publish here now"
    } else if findings.is_publishable() {
        "one could publish here"
    } else {
        "whether one could publish here was not found out"
    };
    line("verdict", verdict);
    out
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
