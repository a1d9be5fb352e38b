//! Reads the files of the configuration elsewhere and within a time limit, for a mount that hangs blocks whoever reads
//! from it for as long as it likes. What hangs keeps one thread, and nothing more is read until that is over.

use std::fmt;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::reload::Files;

/// Longest time for one reading; less than an order over HTTP waits for its outcome.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The files and who reads them.
#[derive(Debug)]
pub(super) struct Reader {
    files: Files,
    /// The reading under way, or the one that hangs.
    reading: Option<AbortHandle>,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// This one hangs.
    Hangs,
    /// This program itself has failed; a panic is in the log.
    Panicked,
    /// One before still hangs, so this one was not begun.
    StillHangs,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangs => write!(
                f,
                "the configuration file, or one that it names, could not be read within {} s: its disk or mount hangs; \
                 what it said before runs on. Look at the mount, then reload again",
                READ_WITHIN.as_secs()
            ),
            Self::Panicked => f.write_str(
                "the configuration file could not be read: onair has a fault there, see the log; what it said before \
                 runs on",
            ),
            Self::StillHangs => f.write_str(
                "nothing was read, for an earlier reading of the configuration still hangs in its disk or mount; what \
                 it said before runs on. Look at the mount, then reload again",
            ),
        }
    }
}

impl Reader {
    pub(super) const fn new(files: Files) -> Self {
        Self {
            files,
            reading: None,
        }
    }

    /// Does `work`, which may block, with the files. Bounded by [`READ_WITHIN`]. What hangs goes on without us, and what
    /// comes of it is thrown away; whoever drops this leaves it as well.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Files) -> T + Send + 'static,
    ) -> Result<T, Unread> {
        if let Some(before) = &self.reading
            && !before.is_finished()
        {
            return Err(Unread::StillHangs);
        }
        let mut theirs = self.files.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let done = work(&mut theirs);
            (theirs, done)
        });
        self.reading = Some(reading.abort_handle());
        match tokio::time::timeout(READ_WITHIN, reading).await {
            Ok(Ok((theirs, done))) => {
                self.files = theirs;
                Ok(done)
            }
            Ok(Err(_)) => Err(Unread::Panicked),
            Err(_) => Err(Unread::Hangs),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_hangs_is_given_up_and_no_other_is_begun_until_it_is_over() {
        let mut reader = Reader::new(Files::new("/no/such/file".into()));
        assert_eq!(reader.run(|_| 1).await, Ok(1));
        let (let_go, hangs) = mpsc::channel::<()>();
        let hung = reader.run(move |_| hangs.recv().is_err());
        let (hung, ()) = tokio::join!(hung, tokio::time::advance(READ_WITHIN * 2));
        assert_eq!(hung, Err(Unread::Hangs));
        for _ in 0..100 {
            let refused = reader.run(|_| panic!("it was begun")).await;
            assert_eq!(refused, Err::<(), _>(Unread::StillHangs));
        }
        drop(let_go);
        let over = async {
            while reader.run(|_| 2).await != Ok(2) {
                tokio::task::yield_now().await;
            }
        };
        let over = tokio::time::timeout(READ_WITHIN, over).await;
        assert!(over.is_ok(), "it goes on once the mount answers");
    }

    #[tokio::test]
    async fn a_panic_over_the_files_is_told_from_the_end() {
        let mut reader = Reader::new(Files::new("/no/such/file".into()));
        let worked = reader.run(|_| -> () { panic!("this one is meant") }).await;
        assert_eq!(worked, Err(Unread::Panicked));
        assert_eq!(reader.run(|_| 1).await, Ok(1));
    }
}
