//! Under which names one may publish now: what a control plane decides, and what the ingest server next to it asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The names of one vendor. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub(in crate::lab) struct Doors {
    /// `application/stream`, and whether it is open.
    names: Arc<Mutex<BTreeMap<String, bool>>>,
    unreachable: bool,
}

impl Doors {
    /// Without any name yet. While none is open, nobody can even connect if the server is `unreachable` then.
    pub(in crate::lab) fn new(unreachable: bool) -> Self {
        Self {
            names: Arc::default(),
            unreachable,
        }
    }

    /// Whether one may publish as `name`.
    pub(in crate::lab) fn is_open(&self, name: &str) -> bool {
        self.names().get(name).is_some_and(|open| *open)
    }

    /// Whether a stream has `application`, started or not.
    pub(in crate::lab) fn has_application(&self, application: &str) -> bool {
        let names = self.names();
        names
            .keys()
            .filter_map(|name| name.split_once('/'))
            .any(|(of, _)| of == application)
    }

    /// Whether connections are cut as they come.
    pub(in crate::lab) fn is_unreachable(&self) -> bool {
        self.unreachable && !self.names().values().any(|open| *open)
    }

    /// From now on `names` are those that exist. Returns those that were open and are not any more.
    pub(super) fn set(&self, names: BTreeMap<String, bool>) -> Vec<String> {
        let before = std::mem::replace(&mut *self.names(), names);
        let open = before.into_iter().filter(|(_, open)| *open);
        open.map(|(name, _)| name)
            .filter(|name| !self.is_open(name))
            .collect()
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_close_or_vanish_are_told() {
        let doors = Doors::new(true);
        assert!(doors.is_unreachable());
        let named = |names: &[(&str, bool)]| {
            let owned = names.iter().map(|(name, open)| ((*name).to_owned(), *open));
            owned.collect::<BTreeMap<_, _>>()
        };
        let all = named(&[("a/1", true), ("a/2", false), ("b/3", true), ("b/4", true)]);
        assert!(doors.set(all).is_empty());
        assert!(!doors.is_unreachable());
        assert!(doors.is_open("a/1") && !doors.is_open("a/2") && !doors.is_open("a/9"));
        assert!(doors.has_application("a") && !doors.has_application("c"));
        let closed = doors.set(named(&[("a/1", false), ("a/2", true), ("b/4", true)]));
        assert_eq!(closed, ["a/1", "b/3"]);
    }
}
