//! What the process holds, to see that what has ended left nothing behind. Only a process that runs one test at a
//! time can tell.

use std::time::{Duration, Instant};

/// What the process holds at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Of this runtime.
    pub(crate) tasks: usize,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let entries = |path| std::fs::read_dir(path).expect("procfs").count();
        Self {
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            threads: entries("/proc/self/task"),
            descriptors: entries("/proc/self/fd"),
        }
    }

    /// What is held once all tasks have ended.
    pub(crate) async fn idle() -> Self {
        let idle = Self {
            tasks: 0,
            threads: usize::MAX,
            descriptors: usize::MAX,
        };
        let now = idle.settled().await;
        assert_eq!(now.tasks, 0, "tasks are left");
        now
    }

    /// Waits until no more is held than this; what is held in the end.
    pub(crate) async fn settled(self) -> Self {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Self::now();
            if now.is_within(self) || Instant::now() > end {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) const fn is_within(self, other: Self) -> bool {
        self.tasks <= other.tasks
            && self.threads <= other.threads
            && self.descriptors <= other.descriptors
    }
}
