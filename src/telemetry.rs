//! The log: events to standard error, for people or for machines, with panics among them.
//!
//! ERROR means that an operator must act, WARN that something unexpected is being recovered from, INFO that a
//! state changed, DEBUG goes per message and TRACE per frame. The media engine speaks through the `log` crate and
//! reports as errors what is everyday life on a network; only what onair makes of it is shown unless asked for.
//!
//! No filter can show a secret: onair's own words hold none, and libraries that would print whole requests and
//! messages are never heard in such detail.

mod listen;

use std::io::IsTerminal as _;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

pub use listen::{Listening, Said, listen};

use crate::cli::{Global, LogFormat};

/// Crates, by the beginning of their targets, with the most detailed level at which they print nothing that was
/// sent or received: URLs with tokens and messages with stream names pass through the first ones, keys and
/// passwords of the connection through the others.
const DISCREET: [(&str, Level); 8] = [
    ("tungstenite", Level::WARN),
    ("tokio_tungstenite", Level::WARN),
    ("hyper", Level::INFO),
    ("rtc", Level::INFO),
    ("rustls", Level::DEBUG),
    ("stun_proto", Level::INFO),
    ("turn_server_proto", Level::INFO),
    ("webrtc", Level::INFO),
];

/// Starts logging, once per process, before anything else runs; also sends panics there.
pub fn start(global: &Global) {
    let (filter, refused) = filter(&global.log);
    let shown = printed(global.log_format).with_filter(filter.and(filter_fn(is_discreet)));
    // Fails only where a subscriber was set before, and then that one is to be kept.
    let started = tracing_subscriber::registry()
        .with(shown)
        .with(listen::layer())
        .try_init();
    if started.is_ok() {
        log_panics();
    }
    if let Some(why) = refused {
        tracing::warn!(
            filter = global.log,
            why,
            "log filter not understood, logging at info"
        );
    }
}

/// What puts events on standard error.
fn printed<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(terminal).with_target(!terminal).boxed(),
    }
}

/// Whether this may be shown, whatever the user asked for.
fn is_discreet(metadata: &Metadata<'_>) -> bool {
    DISCREET
        .iter()
        .filter(|(crates, _)| metadata.target().starts_with(crates))
        .all(|(_, most)| metadata.level() <= most)
}

/// The filter for what the user asked for, or the usual one and why theirs cannot be used.
fn filter(asked: &str) -> (EnvFilter, Option<String>) {
    let directives = match asked.parse::<Level>() {
        Ok(level) => own(level),
        Err(_) => asked.to_owned(),
    };
    match EnvFilter::try_new(directives) {
        Ok(filter) => (filter, None),
        Err(why) => (EnvFilter::new(own(Level::INFO)), Some(why.to_string())),
    }
}

/// A bare level is meant for onair's own words; the libraries say little of use below it.
fn own(level: Level) -> String {
    // Directives match by prefix: `rtc` is every crate of the engine's core.
    format!("warn,rtc=off,stun_proto=off,turn_server_proto=off,webrtc=off,onair={level}")
}

fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("a panic without words");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current()
            .name()
            .unwrap_or("unnamed")
            .to_owned();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, thread, %backtrace, "panicked: {what}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_onair_and_the_engine_keeps_still() {
        let (filter, refused) = filter("debug");
        assert_eq!(refused, None);
        let filter = filter.to_string();
        assert!(filter.contains("onair=debug"), "{filter}");
        assert!(filter.contains("rtc=off"), "{filter}");
    }

    #[test]
    fn directives_are_taken_as_they_are() {
        let (taken, refused) = filter("info,rtc_ice=trace");
        assert_eq!(refused, None);
        assert!(taken.to_string().contains("rtc_ice=trace"));
        assert!(filter("onair=loud").1.is_some());
    }
}
