//! The file of the [`Ledger`]: read with suspicion, replaced whole, never two processes at once.
//!
//! It is replaced by renaming a file that is written and synchronised beside it, so that at any instant, a power cut
//! included, one of the two versions is there whole. One that cannot be read is set aside, for it may tell a person
//! which streams to look after; onair goes on without it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::ledger::Ledger;

/// The ledger's name in the folder of state.
const NAME: &str = "streams.json";
/// Where its next version is written.
const NEXT: &str = "streams.json.new";
/// Where one that cannot be read is put.
const DAMAGED: &str = "streams.json.damaged";
/// Held while onair runs.
const LOCK: &str = "lock";
/// Larger than any ledger.
const BYTES_MAX: u64 = 4 << 20;

/// Why the folder of state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another onair uses it.
    #[error(
        "{} is in use by another onair; end that one, or give this one a state_dir of its own",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be made or written.
    #[error(
        "{} cannot be written: {source}; make it writable for onair's user, and make room on its disk",
        path.display()
    )]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A folder of state, held by this process until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Its lock goes with it.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// The ledger; an empty one if there is none, or none that can be read, which is set aside.
    pub(super) fn read(&self) -> Ledger {
        let path = self.path.join(NAME);
        let why = match read(&path) {
            Ok(None) => return Ledger::default(),
            Ok(Some(text)) => match Ledger::read(&text) {
                Ok((ledger, is_former)) => {
                    // What should not stand there any more is not left there until something happens.
                    if is_former && let Err(error) = self.write(&ledger) {
                        tracing::warn!("{} stays as it was: {error}", path.display());
                    }
                    return ledger;
                }
                Err(why) => why,
            },
            Err(error) => error.to_string(),
        };
        let aside = self.path.join(DAMAGED);
        let kept = match fs::rename(&path, &aside) {
            Ok(()) => format!("it is kept as {}", aside.display()),
            Err(error) => format!("it cannot be set aside: {error}"),
        };
        tracing::warn!(
            "{} cannot be read: {why}; {kept}. What onair started before may still run: see `onair stream list`",
            path.display()
        );
        Ledger::default()
    }

    /// Replaces the ledger. Blocks until the disk has it.
    pub(super) fn write(&self, ledger: &Ledger) -> Result<(), Error> {
        self.replace(ledger).map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&self, ledger: &Ledger) -> io::Result<()> {
        let next = self.path.join(NEXT);
        let text = serde_json::to_vec_pretty(ledger)?;
        // Whose streams run when is nobody else's business.
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&next, self.path.join(NAME))?;
        // The rename itself has to last too.
        File::open(&self.path)?.sync_all()
    }
}

/// The ledger in a folder that cannot be used, as far as it can be read; nothing is touched there.
pub(super) fn glimpsed(path: &Path) -> Ledger {
    let text = read(&path.join(NAME)).ok().flatten();
    let ledger = text.and_then(|text| Ledger::read(&text).ok());
    ledger.map(|(ledger, _)| ledger).unwrap_or_default()
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > BYTES_MAX {
        true => Err(io::Error::other(format!(
            "it is larger than {BYTES_MAX} bytes"
        ))),
        false => Ok(Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::ledger::Key;
    use super::*;

    fn filled(n: usize) -> Ledger {
        let mut ledger = Ledger::default();
        for n in 0..n {
            let key = Key {
                vendor: "qencode".to_owned(),
                api: "https://api".to_owned(),
                id: format!("s{n}"),
            };
            ledger.asking(&key, "main", Timestamp::from_second(1_795_000_000).unwrap());
        }
        ledger
    }

    #[test]
    fn what_was_written_is_read_by_the_next_process() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("made/on/demand");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.read(), Ledger::default());
        folder.write(&filled(1)).unwrap();
        folder.write(&filled(2)).unwrap();
        drop(folder);
        assert_eq!(Folder::open(&path).unwrap().read(), filled(2));
        assert!(!path.join(NEXT).exists());
    }

    #[test]
    fn two_never_hold_one_folder() {
        let place = tempfile::tempdir().unwrap();
        let first = Folder::open(place.path()).unwrap();
        let refused = Folder::open(place.path()).unwrap_err();
        assert!(matches!(refused, Error::InUse { .. }));
        assert!(refused.to_string().contains("another onair"), "{refused}");
        drop(first);
        Folder::open(place.path()).unwrap();
    }

    #[test]
    fn a_ledger_cut_off_at_any_byte_is_set_aside_and_harms_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.write(&filled(1)).unwrap();
        let whole = fs::read(place.path().join(NAME)).unwrap();
        for n in 0..whole.len() {
            fs::write(place.path().join(NAME), &whole[..n]).unwrap();
            assert_eq!(folder.read(), Ledger::default(), "{n} bytes");
            assert_eq!(fs::read(place.path().join(DAMAGED)).unwrap(), &whole[..n]);
            assert!(!place.path().join(NAME).exists());
        }
        for odd in [
            &b"\xff\xfe"[..],
            b"[]",
            b"{\"schema\":\"onair.streams/9\",\"streams\":[]}",
        ] {
            fs::write(place.path().join(NAME), odd).unwrap();
            assert_eq!(folder.read(), Ledger::default());
        }
    }

    #[test]
    fn a_file_of_the_former_form_is_replaced_when_it_is_read() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.write(&filled(1)).unwrap();
        let text = fs::read_to_string(place.path().join(NAME)).unwrap();
        let former =
            (text.replace("streams/2", "streams/1")).replace("https://api", "https://api/planted");
        fs::write(place.path().join(NAME), former).unwrap();
        let read = folder.read();
        assert_eq!(read.orphans(|_| false).len(), 1);
        let text = fs::read_to_string(place.path().join(NAME)).unwrap();
        assert!(
            !text.contains("planted") && text.contains("streams/2"),
            "{text}"
        );
        assert_eq!(folder.read(), read);
    }

    #[test]
    fn a_torn_next_version_is_never_looked_at() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.write(&filled(1)).unwrap();
        fs::write(place.path().join(NEXT), b"{\"sche").unwrap();
        assert_eq!(folder.read(), filled(1));
        folder.write(&filled(3)).unwrap();
        assert_eq!(folder.read(), filled(3));
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_so() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::open(&file.join("x")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
        assert!(error.to_string().contains("writable"), "{error}");
    }
}
