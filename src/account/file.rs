//! The file of the [`Ledger`]: read with suspicion, replaced whole, never two processes at once.
//!
//! It is replaced by renaming a file that is written and synchronised beside it, so that at any instant, a power cut
//! included, one of the two versions is there whole. One that cannot be read is set aside, for it may tell a person
//! which streams to look after; onair goes on without it.
//!
//! The version before is kept, and the next one is written over it: on most file systems that takes no new room, so a
//! disk that fills up does not keep from being written down what starts to cost. A file is padded for the same reason.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::ledger::Ledger;

/// The ledger's name in the folder of state.
const NAME: &str = "streams.json";
/// Where its next version is written: the version before.
const NEXT: &str = "streams.json.new";
/// Where one that cannot be read is put.
const DAMAGED: &str = "streams.json.damaged";
/// Held while onair runs.
const LOCK: &str = "lock";
/// The file is padded to a multiple of this, which holds the ledger of a few streams for two months.
const ROOM: usize = 16 << 10;
/// Larger than any ledger.
const BYTES_MAX: u64 = 4 << 20;

/// Why the folder of state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another onair uses it.
    #[error(
        "{} is in use by another onair{}; end that one, or give this one a state_dir of its own",
        path.display(),
        holder.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process, as it wrote down itself.
        holder: Option<u32>,
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
        let at = path.join(LOCK);
        let mut lock = lock_file(&at).map_err(io)?;
        let taken = match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut lock);
                let Some(over) = holder.filter(|id| is_over(*id)) else {
                    return Err(Error::InUse {
                        path: path.to_owned(),
                        holder,
                    });
                };
                // It was killed and writes no more, but a driver holds a thread of it, and that thread the lock.
                tracing::error!(
                    "process {over}, an onair that was killed, cannot end, for a thread of it is stuck in a driver; \
                     going on with its {}. Restart the machine when that is possible",
                    path.display()
                );
                let gate = File::open(path).map_err(io)?;
                match gate.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(Error::InUse {
                            path: path.to_owned(),
                            holder: None,
                        });
                    }
                    Err(TryLockError::Error(source)) => return Err(io(source)),
                }
                if is_at(&lock, &at) {
                    fs::remove_file(&at).map_err(io)?;
                }
                lock = lock_file(&at).map_err(io)?;
                lock.try_lock()
            }
            taken => taken,
        };
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    path: path.to_owned(),
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // For people and for the next process; a full disk must not keep from going on.
        drop(sign(&mut lock));
        let next = path.join(NEXT);
        if !next.exists() {
            drop(put(&next, &vec![b' '; ROOM]));
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
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
        let (next, at) = (self.path.join(NEXT), self.path.join(NAME));
        let mut text = serde_json::to_vec_pretty(ledger)?;
        text.resize(text.len().next_multiple_of(ROOM), b' ');
        put(&next, &text)?;
        if renameat_with(CWD, &next, CWD, &at, RenameFlags::EXCHANGE).is_err() {
            // There is none to exchange it with, or the file system cannot.
            fs::rename(&next, &at)?;
            drop(put(&next, &text));
        }
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

/// Writes a file over what it was. Blocks until the disk has it.
fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    // Whose streams run when is nobody else's business.
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    if file.metadata()?.len() > text.len() as u64 {
        file.set_len(text.len() as u64)?;
    }
    file.sync_all()
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

/// Writes down who holds the lock.
fn sign(lock: &mut File) -> io::Result<()> {
    lock.rewind()?;
    let said = format!("{}\n", std::process::id());
    lock.write_all(said.as_bytes())?;
    lock.set_len(said.len() as u64)
}

/// Who holds the lock, as it wrote down itself.
fn holder(lock: &mut File) -> Option<u32> {
    let mut said = String::new();
    lock.rewind().ok()?;
    lock.take(16).read_to_string(&mut said).ok()?;
    said.trim().parse().ok()
}

/// Whether a process has ended but for threads that the system cannot end yet.
fn is_over(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name of the program stands before, and may hold anything.
    let state = (stat.rsplit_once(") ")).and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('X' | 'Z')) || is_killed(id)
}

/// Whether it was killed and has not ended.
fn is_killed(id: u32) -> bool {
    const SIGKILL: u64 = 1 << 8;
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let pending = status.lines().filter_map(|line| {
        let mask = line
            .strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    pending.fold(0, |all, mask| all | mask) & SIGKILL != 0
}

/// Whether `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |found: io::Result<fs::Metadata>| found.ok().map(|file| (file.dev(), file.ino()));
    let known = id(file.metadata());
    known.is_some() && known == id(fs::metadata(path))
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
    }

    #[test]
    fn the_next_version_takes_the_room_of_the_one_before_the_last() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let files = || {
            let all = [NAME, NEXT].map(|name| fs::metadata(place.path().join(name)).unwrap());
            let mut seen = all.map(|file| (file.ino(), file.len(), file.blocks()));
            seen.sort_unstable();
            seen
        };
        folder.write(&filled(1)).unwrap();
        folder.write(&filled(2)).unwrap();
        let room = files();
        for n in [3, 1, 4, 2] {
            folder.write(&filled(n)).unwrap();
            assert_eq!(folder.read(), filled(n));
            assert_eq!(files(), room);
        }
        // What outgrows it and comes back is whole as well.
        for n in [200, 1] {
            folder.write(&filled(n)).unwrap();
            folder.write(&filled(n)).unwrap();
            assert_eq!(folder.read(), filled(n));
        }
        assert_eq!(files(), room);
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_the_last_version_whole() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.write(&filled(1)).unwrap();
        let next = place.path().join(NEXT);
        fs::remove_file(&next).unwrap();
        std::os::unix::fs::symlink("/dev/full", &next).unwrap();
        let error = folder.write(&filled(2)).unwrap_err();
        let Error::Io { source, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(folder.read(), filled(1));
    }

    #[test]
    fn a_folder_is_taken_over_from_a_process_that_has_ended_and_from_no_other() {
        let place = tempfile::tempdir().unwrap();
        let first = Folder::open(place.path()).unwrap();
        first.write(&filled(1)).unwrap();
        let refused = Folder::open(place.path()).unwrap_err();
        let id = std::process::id();
        assert!(
            refused.to_string().contains(&format!("process {id}")),
            "{refused}"
        );

        // A process that has ended, whose end nobody has asked for yet.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let lock = place.path().join(LOCK);
        let since = std::time::Instant::now();
        while !is_over(child.id()) {
            assert!(since.elapsed().as_secs() < 60, "it does not end");
            std::thread::yield_now();
        }
        fs::write(&lock, child.id().to_string()).unwrap();
        let second = Folder::open(place.path()).unwrap();
        assert_eq!(second.read(), filled(1));
        let refused = Folder::open(place.path()).unwrap_err();
        assert!(matches!(refused, Error::InUse { holder: Some(holder), .. } if holder == id));
        // What the dead one held is of no concern any more.
        drop(first);
        Folder::open(place.path()).unwrap_err();
        drop(second);
        Folder::open(place.path()).unwrap();
        child.wait().unwrap();
        assert!(!is_over(id));
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
        let json = whole.trim_ascii_end().len();
        for n in 0..json {
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
