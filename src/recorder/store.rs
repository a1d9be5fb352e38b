//! The files of the recorder: a row of segments in one folder, of which the last is written and the first is
//! deleted when there are too many. Knows nothing of what is written.
//!
//! One process at a time: a lock file keeps a second one out. The last segment is written on after a restart, so
//! that a process which crashes in a loop does not push out what led to it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Files that share the space.
const SEGMENTS: u64 = 4;
/// Most that is read of one segment; the largest that the configuration allows.
const READ_MAX: u64 = 64 << 20;
const LOCK: &str = "lock";
/// Of a segment's number in its name; at one segment a second enough for three centuries.
const DIGITS: usize = 10;

/// The folder of the recorder in `state_dir`.
pub(super) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("recorder")
}

/// The files, open for writing.
pub(super) struct Store {
    folder: PathBuf,
    segment_max: u64,
    number: u64,
    file: File,
    length: u64,
    /// Held as long as this lives.
    _lock: File,
}

impl Store {
    /// Opens the files in `folder`, which is made if need be; all together take at most `size` bytes.
    pub(super) fn open(folder: PathBuf, size: u64) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let lock = create(&folder.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => {
                io::Error::other("another onair records there; give each a state_dir of its own")
            }
        })?;
        let segment_max = size / SEGMENTS;
        let number = segments(&folder)?.last().map_or(1, |(number, _)| *number);
        let file = create(&path(&folder, number))?;
        let length = file.metadata()?.len();
        let store = Self {
            folder,
            segment_max,
            number,
            file,
            length,
            _lock: lock,
        };
        store.delete_old()?;
        store.sync_folder()?;
        Ok(store)
    }

    /// Appends `records`, each of them whole in one segment.
    pub(super) fn append(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        let mut batch = Vec::new();
        for record in records {
            let length = self.length + batch.len() as u64 + record.len() as u64;
            if length > self.segment_max && self.length + batch.len() as u64 > 0 {
                self.write(&batch)?;
                batch.clear();
                self.next()?;
            }
            batch.extend_from_slice(record);
        }
        self.write(&batch)
    }

    /// Waits until everything is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        self.file.write_all(batch)?;
        self.length += batch.len() as u64;
        Ok(())
    }

    fn next(&mut self) -> io::Result<()> {
        self.sync()?;
        // The oldest goes first: on a full disk there would be no room for the new one otherwise.
        self.number = self.number.saturating_add(1);
        self.delete_old()?;
        self.file = create(&path(&self.folder, self.number))?;
        self.length = self.file.metadata()?.len();
        self.sync_folder()
    }

    fn delete_old(&self) -> io::Result<()> {
        for (number, path) in segments(&self.folder)? {
            // A smaller size than before: what is larger than a segment may be goes when it is not the last any more.
            let too_large = || fs::metadata(&path).is_ok_and(|m| m.len() > self.segment_max);
            let old = number.saturating_add(SEGMENTS) <= self.number;
            if old || (number < self.number && too_large()) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// What the recorder's files in `folder` hold, the oldest first; nothing if there is no such folder. A file that goes
/// while this reads is passed over.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let segments = match segments(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        segments => segments?,
    };
    let mut contents = Vec::new();
    for (_, path) in segments {
        let mut data = Vec::new();
        match File::open(&path).and_then(|file| file.take(READ_MAX).read_to_end(&mut data)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => {
                read?;
                contents.push(data);
            }
        }
    }
    Ok(contents)
}

/// Whether a process records in `folder` now.
pub(super) fn is_locked(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:0DIGITS$}.rec"))
}

/// The segments by number.
fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name
            .and_then(|name| name.strip_suffix(".rec"))
            .filter(|number| number.len() == DIGITS)
            .and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// Opens a file for appending, for its owner alone.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(folder: &Path) -> String {
        let contents = read(folder).unwrap();
        String::from_utf8(contents.concat()).unwrap()
    }

    fn record(n: usize) -> Vec<u8> {
        format!("{n:07},").into_bytes()
    }

    #[test]
    fn the_files_stay_within_their_size_and_keep_the_latest() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        let mut store = Store::open(folder.clone(), 400).unwrap();
        for n in 0..200 {
            store.append(&[record(n), record(n)]).unwrap();
            assert!(all(&folder).len() <= 400, "after {n}");
        }
        let kept = all(&folder);
        assert!(kept.len() > 300, "{kept}");
        assert!(kept.ends_with("0000199,0000199,"), "{kept}");
        // Nothing is missing in between.
        let numbers: Vec<usize> = (kept.trim_end_matches(',').split(','))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] <= 1));
    }

    #[test]
    fn a_restart_writes_on_where_the_last_process_ended() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        for n in 0..20 {
            let mut store = Store::open(folder.clone(), 4_000).unwrap();
            store.append(&[record(n)]).unwrap();
        }
        assert_eq!(segments(&folder).unwrap().len(), 1);
        assert!(all(&folder).starts_with("0000000,0000001,"));
    }

    #[test]
    fn only_one_process_writes() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        assert!(!is_locked(&folder));
        let store = Store::open(folder.clone(), 4_000).unwrap();
        assert!(is_locked(&folder));
        let refused = Store::open(folder.clone(), 4_000).err().unwrap();
        assert!(refused.to_string().contains("another onair"), "{refused}");
        drop(store);
        assert!(!is_locked(&folder));
        assert!(Store::open(folder, 4_000).is_ok());
    }

    #[test]
    fn a_smaller_size_deletes_what_is_too_large() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        let mut store = Store::open(folder.clone(), 4_000).unwrap();
        for n in 0..400 {
            store.append(&[record(n)]).unwrap();
        }
        drop(store);
        let mut store = Store::open(folder.clone(), 400).unwrap();
        for n in 400..500 {
            store.append(&[record(n)]).unwrap();
        }
        assert!(all(&folder).len() <= 400);
        assert!(all(&folder).ends_with("0000499,"));
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("x.rec"), "x").unwrap();
        fs::write(folder.join("18446744073709551615.rec"), "y").unwrap();
        let mut store = Store::open(folder.clone(), 400).unwrap();
        for n in 0..100 {
            store.append(&[record(n)]).unwrap();
        }
        assert_eq!(fs::read(folder.join("x.rec")).unwrap(), b"x");
    }
}
