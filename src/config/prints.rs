//! What files look like from outside, to tell whether one has changed without reading it.
//!
//! They are compared by what the file system says of them, not by their times against a clock, so that a wall clock
//! that jumps changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// What tells one content of a file from another: device, inode, size, and both times to the nanosecond. Of a link it
/// is that of the file to which it leads.
pub type Print = (u64, u64, u64, [i64; 4]);

/// Every file and what it looked like; `None` where it could not be looked at.
pub type Prints = BTreeMap<PathBuf, Option<Print>>;

/// What the files at `paths` look like now. Asks the file system, so it may block for a moment.
pub fn prints<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Prints {
    let print = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok().map(|file| {
            let times = [
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ];
            (file.dev(), file.ino(), file.size(), times)
        });
        (path.clone(), found)
    };
    paths.map(print).collect()
}
