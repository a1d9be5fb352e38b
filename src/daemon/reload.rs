//! The configuration file and those it names, as they change: when to read them again, and which have changed.
//!
//! A change is taken up once it has settled, for an editor may be half way.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::config::load::{self, Scope};
use crate::config::prints::{Prints, prints};

/// How often files are looked at. A change is taken up when two looks in a row see the same.
pub const POLL: Duration = Duration::from_secs(2);

/// The files of one configuration.
#[derive(Clone, Debug)]
pub struct Files {
    path: PathBuf,
    /// As they were just before the configuration was read last.
    read: Prints,
    /// The same of the last reading without a fault, which is what is at work.
    at_work: Prints,
    settling: Prints,
}

/// One reading of the configuration.
#[derive(Debug)]
pub struct Reading {
    /// What was read, or everything that is wrong with it.
    pub config: Result<Config, load::Error>,
    /// The files whose content has changed since the last reading without a fault, however many with one came between.
    pub touched: BTreeSet<PathBuf>,
}

impl Files {
    /// The files of the configuration at `path`, of which nothing is known yet.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Prints::new(),
            at_work: Prints::new(),
            settling: Prints::new(),
        }
    }

    /// Reads the configuration, with its secrets. One without a fault is to be put to work. Reads files, so it may
    /// block.
    pub fn read(&mut self) -> Reading {
        // Looked at before they are read: what changes meanwhile is seen at the next look.
        let before = prints(self.read.keys().chain(self.at_work.keys()));
        let mut used = BTreeSet::new();
        let config = load::load_noting(&self.path, Scope::Everything, &mut used);
        let mut now = prints(used.iter());
        let touched = now
            .iter()
            .filter(|(path, print)| self.at_work.get(*path).is_some_and(|last| last != *print))
            .map(|(path, _)| path.clone())
            .collect();
        now.extend(before.into_iter().filter(|(path, _)| used.contains(path)));
        self.settling.clone_from(&now);
        if config.is_ok() {
            self.at_work.clone_from(&now);
        }
        self.read = now;
        Reading { config, touched }
    }

    /// Whether files have changed since they were read, and have settled since the last call, of which there is to be
    /// one every [`POLL`]. Looks at files, so it may block.
    pub fn changed(&mut self) -> bool {
        let now = prints(self.read.keys());
        self.settled(now)
    }

    fn settled(&mut self, now: Prints) -> bool {
        let same = now == self.settling;
        self.settling = now;
        same && self.settling != self.read
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = "[feed.a]\nvideo = { source = \"testcard\" }\n\
        [publisher.p]\nfeed = \"a\"\nto = \"ome\"\nurl = { file = \"url\" }\n";

    fn written(folder: &Path, url: &str) -> PathBuf {
        std::fs::write(folder.join("url"), url).unwrap();
        let path = folder.join("onair.toml");
        std::fs::write(&path, CONFIG).unwrap();
        path
    }

    #[test]
    fn a_change_is_taken_up_when_it_has_settled_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(written(folder.path(), "ws://host/app/one"));
        assert!(files.read().config.is_ok());
        assert!(!files.changed() && !files.changed());

        let url = folder.path().join("url");
        std::fs::write(&url, "ws://host/app/one-more").unwrap();
        assert!(!files.changed(), "it may be half written");
        std::fs::write(&url, "ws://host/app/two-times-more").unwrap();
        assert!(!files.changed(), "it was");
        assert!(files.changed());
        let reading = files.read();
        assert!(reading.config.is_ok());
        assert_eq!(reading.touched, [url].into());
        assert!(!files.changed() && !files.changed());
    }

    #[test]
    fn a_file_that_goes_and_comes_back_is_seen_also_while_the_configuration_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), "ws://host/app/one");
        let mut files = Files::new(path.clone());
        files.read().config.unwrap();
        let url = folder.path().join("url");
        std::fs::remove_file(&url).unwrap();
        assert!(!files.changed() && files.changed());
        assert!(files.read().config.is_err());
        assert!(
            !files.changed() && !files.changed(),
            "nothing is tried twice"
        );
        // Replaced as editors do it, by another file of the same name.
        let new = folder.path().join("url.new");
        std::fs::write(&new, "ws://host/app/one").unwrap();
        std::fs::rename(&new, &url).unwrap();
        assert!(!files.changed() && files.changed());
        assert!(files.read().config.is_ok());
    }

    #[test]
    fn what_was_touched_while_the_configuration_was_bad_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), "ws://host/app/one");
        let mut files = Files::new(path.clone());
        files.read().config.unwrap();
        let url = folder.path().join("url");

        // Bad in what it says, so that the files it names are read too, and then no TOML at all.
        std::fs::write(&path, CONFIG.replace("testcard", "testcrad")).unwrap();
        std::fs::write(&url, "ws://host/app/another-one").unwrap();
        assert!(!files.changed() && files.changed());
        assert!(files.read().config.is_err());
        std::fs::write(&path, "[feed").unwrap();
        assert!(!files.changed() && files.changed());
        assert!(files.read().config.is_err());

        std::fs::write(&path, CONFIG).unwrap();
        assert!(!files.changed() && files.changed());
        let reading = files.read();
        assert!(reading.config.is_ok());
        assert_eq!(reading.touched, [path, url].into());
        assert_eq!(files.read().touched, BTreeSet::new(), "it is at work now");
    }

    #[test]
    fn folders_that_are_swapped_behind_a_link_are_a_change() {
        // As Kubernetes does it: the file is a link to `now/onair.toml`, and `now` is one to a folder with a date.
        let folder = tempfile::tempdir().unwrap();
        for (version, name) in [("1", "one"), ("2", "two")] {
            let version = folder.path().join(version);
            std::fs::create_dir(&version).unwrap();
            written(&version, &format!("ws://host/app/{name}"));
        }
        let now = folder.path().join("now");
        std::os::unix::fs::symlink("1", &now).unwrap();
        for name in ["onair.toml", "url"] {
            let target = Path::new("now").join(name);
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("onair.toml");
        let mut files = Files::new(path.clone());
        let before = files.read().config.unwrap();
        assert!(!files.changed() && !files.changed());

        let next = folder.path().join("next");
        std::os::unix::fs::symlink("2", &next).unwrap();
        std::fs::rename(&next, &now).unwrap();
        assert!(!files.changed() && files.changed());
        let reading = files.read();
        assert_eq!(reading.touched, [path, folder.path().join("url")].into());
        assert_ne!(reading.config.unwrap().publishers, before.publishers);
        assert!(!files.changed() && !files.changed());
    }

    #[test]
    fn nothing_has_been_touched_at_the_first_reading() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(written(folder.path(), "ws://host/app/one"));
        assert_eq!(files.read().touched, BTreeSet::new());
        assert_eq!(files.read().touched, BTreeSet::new());
    }
}
