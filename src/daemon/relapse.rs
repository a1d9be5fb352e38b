//! How often in a row the process ended because it was stuck, kept from one to the next: what a new process does not
//! mend must not end the next one as soon.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The number's file in the folder of state.
const NAME: &str = "stuck";

/// A process that lived for so long has little to do with the end of the one before.
const UNRELATED: Duration = Duration::from_secs(2 * 86_400);

/// The ends so far, and where they are kept. Without a folder each process believes to be the first.
#[derive(Debug, Default)]
pub struct Relapse {
    path: Option<PathBuf>,
    ends: u32,
}

impl Relapse {
    /// What the processes before have left in `state_dir`. Reads a file, so it may block for a moment.
    pub fn read(state_dir: Option<&Path>) -> Self {
        let path = state_dir.map(|folder| folder.join(NAME));
        let said = path.as_ref().and_then(|path| fs::read_to_string(path).ok());
        Self {
            ends: said.and_then(|said| said.trim().parse().ok()).unwrap_or(0),
            path,
        }
    }

    /// Processes in a row that ended because they were stuck.
    pub const fn ends(&self) -> u32 {
        self.ends
    }

    /// The process ends at the age of `lived`, because it was stuck or in order. Writes a file, so it may block; a disk
    /// that takes nothing leaves the number as it was.
    pub fn end(&self, stuck: bool, lived: Duration) {
        let Some(path) = &self.path else {
            return;
        };
        let written = match stuck {
            true if lived >= UNRELATED => fs::write(path, "1\n"),
            true => fs::write(path, format!("{}\n", self.ends.saturating_add(1))),
            false if self.ends > 0 => fs::remove_file(path),
            false => return,
        };
        if let Err(error) = written {
            tracing::warn!("{} cannot be written: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_a_row_are_counted_until_one_is_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let read = || Relapse::read(Some(folder.path()));
        let soon = Duration::from_secs(700);
        assert_eq!(read().ends(), 0);
        read().end(false, soon);
        for n in 1..4 {
            read().end(true, soon);
            assert_eq!(read().ends(), n);
        }
        read().end(true, UNRELATED);
        assert_eq!(read().ends(), 1, "another matter");
        read().end(false, soon);
        assert_eq!(read().ends(), 0);
        fs::write(folder.path().join(NAME), "what?").unwrap();
        assert_eq!(read().ends(), 0);
        let nowhere = Relapse::read(None);
        nowhere.end(true, soon);
        assert_eq!(nowhere.ends(), 0);
    }
}
