//! What onair says, handed to one listener within the process beside the log, whatever filter the log has: its own
//! words from INFO on, and from DEBUG on those that are meant for the record (`onair::sdp`).

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// One event.
#[derive(Clone, Debug)]
pub struct Said {
    /// How grave it is.
    pub level: Level,
    /// The module that said it.
    pub target: &'static str,
    /// The spans that it was said in, such as `publisher{id=main}:session{n=3}`.
    pub spans: String,
    /// The sentence.
    pub message: String,
    /// What belongs to it.
    pub fields: Map<String, Value>,
}

type Ear = Arc<dyn Fn(Said) + Send + Sync>;

static EAR: RwLock<Option<Ear>> = RwLock::new(None);

/// Listens as long as it lives.
#[derive(Debug)]
#[must_use]
pub struct Listening(());

/// Hands everything that is said from now on to `ear`, in place of an earlier listener; needs that
/// [`start`](super::start) was called. It is called wherever something is said, so it must neither wait nor say
/// anything itself.
pub fn listen(ear: impl Fn(Said) + Send + Sync + 'static) -> Listening {
    *EAR.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ear));
    Listening(())
}

impl Drop for Listening {
    fn drop(&mut self) {
        *EAR.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The layer that hands events over.
pub(super) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let heard = Targets::new()
        .with_target("onair", Level::INFO)
        .with_target("onair::sdp", Level::DEBUG);
    Tap.with_filter(heard)
}

struct Tap;

/// The name and the fields of a span, in words.
struct Named(String);

impl<S> Layer<S> for Tap
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut words = Words(String::new());
        attributes.record(&mut words);
        let name = match words.0.as_str() {
            "" => span.name().to_owned(),
            fields => format!("{}{{{fields}}}", span.name()),
        };
        span.extensions_mut().insert(Named(name));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut words = Words(String::new());
        values.record(&mut words);
        if let Some(Named(name)) = span.extensions_mut().get_mut() {
            *name = format!("{name}{{{}}}", words.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let ear = EAR.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(ear) = ear else { return };
        let scope = context.event_scope(event).into_iter();
        let spans: Vec<String> = scope
            .flat_map(|scope| scope.from_root())
            .filter_map(|span| Some(span.extensions().get::<Named>()?.0.clone()))
            .collect();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        ear(Said {
            level: *metadata.level(),
            target: metadata.target(),
            spans: spans.join(":"),
            message: fields.message,
            fields: fields.others,
        });
    }
}

/// The fields of an event as JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.set(field, format!("{value:?}").into()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.set(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }
}

/// The fields of a span in words.
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        _ = write!(self.0, "{space}{}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_listener_hears_spans_and_fields_and_no_detail_until_it_is_dropped() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(layer());
        tracing::subscriber::with_default(subscriber, || {
            let into = Arc::clone(&heard);
            let listening = listen(move |said| into.lock().unwrap().push(said));
            tracing::info_span!("publisher", id = "main").in_scope(|| {
                tracing::info_span!("session", n = 3).in_scope(|| {
                    tracing::warn!(wait_ms = 20_u64, cause = "gone", "ended: {}", 7);
                });
            });
            tracing::debug!("a detail");
            tracing::debug!(target: "onair::sdp", sdp = "v=0\r\n");
            tracing::error!(target: "somebody", "else");
            drop(listening);
            tracing::info!("nobody listens");
        });
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert_eq!(heard[0].spans, "publisher{id=main}:session{n=3}");
        assert_eq!(heard[0].message, "ended: 7");
        assert_eq!(heard[0].fields["wait_ms"], 20);
        assert_eq!(heard[0].fields["cause"], "gone");
        assert_eq!(heard[1].fields["sdp"], "v=0\r\n");
    }
}
