//! The table `[daemon]`: what concerns the process as a whole.

use super::read::{Reader, Table, text};
use crate::config::Daemon;

impl Reader<'_> {
    pub(super) fn daemon(&mut self, root: &Table<'_>) -> Daemon {
        let Some(table) = self.table(root, "daemon") else {
            return Daemon::default();
        };
        self.only(&table, &["state_dir"], &[]);
        let state_dir = self.optional(&table, "state_dir", None, |v| text(v).map(Some));
        Daemon {
            state_dir: state_dir.map(|path| self.env.base.join(path)),
        }
    }
}
