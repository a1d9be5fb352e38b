//! A capture thread: opens a source, reads it, posts its frames, and drops it, all on one named thread.
//!
//! A device call may block for ever, so the watchdog is outside: whoever owns the pump waits for it with a deadline
//! and leaves it behind if it does not come. A thread that was left ends by itself when its device answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::mailbox::Mailbox;
use crate::capture::{self, Source, Stage};

/// Opens a source and says how far that has come, to be told whether it is still wanted; called on the thread that will
/// read it.
pub(super) type Open<F> = Arc<dyn Fn(&dyn Fn(Stage) -> bool) -> Opening<F> + Send + Sync>;
/// What comes of opening a source.
pub(super) type Opening<F> = Result<Box<dyn Source<Frame = F>>, capture::Error>;
/// Resets the device of a source as well as it can.
pub(super) type Reset = Arc<dyn Fn() + Send + Sync>;

/// Starts a capture thread that posts into `mailbox` under a new generation. It may hang in `reset`, if that is to
/// come first, as in the device.
pub(super) fn start<F: Send + 'static>(
    name: String,
    mailbox: &Arc<Mailbox<F>>,
    open: &Open<F>,
    reset: Option<Reset>,
) -> Result<JoinHandle<()>, capture::Error> {
    let generation = mailbox.begin();
    let (posts, open) = (Arc::clone(mailbox), Arc::clone(open));
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        // A panic of a device library is a fault of that device, not of the feed.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            if let Some(reset) = reset {
                reset();
            }
            run(&posts, generation, &open)
        }));
        let error = ended.unwrap_or_else(|panic| Some(capture::Error::Panicked(text(&*panic))));
        posts.post_gone(generation, error);
    });
    spawned.map_err(|e| {
        mailbox.disown();
        capture::Error::Panicked(format!("no thread: {e}"))
    })
}

/// Reads until the source fails or nobody wants its frames any more.
fn run<F>(mailbox: &Mailbox<F>, generation: u64, open: &Open<F>) -> Option<capture::Error> {
    let opening = open(&|stage| {
        mailbox.post_stage(generation, stage);
        mailbox.wants(generation)
    });
    let mut source = match opening {
        Ok(source) => source,
        Err(error) => return Some(error),
    };
    mailbox.post_opened(generation, source.describe());
    while mailbox.wants(generation) {
        let read = source.read();
        mailbox.lose(generation, source.losses());
        match read {
            Ok(frame) => mailbox.post(generation, frame),
            Err(error) => return Some(error),
        }
    }
    None
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".into())
}
