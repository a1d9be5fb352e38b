//! What waits for TCP connections to take it, counted in bytes, and how much of it may wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::wires::locked;
use crate::config::Bitrate;

/// Bytes beyond which the sender waits, at most and before a bitrate is known. Older media is better dropped in the
/// feed's lane, which knows key frames.
const ROOM: usize = 64 * 1024;

/// The same at least: a few packets, so that the connection never runs dry between two pictures.
const LEAST_ROOM: usize = 8 * 1024;

/// The same in time, at the bitrate of the media.
const ROOM_SPAN: Duration = Duration::from_millis(250);

/// What is queued and not taken yet.
pub(super) struct Backlog {
    bytes: AtomicUsize,
    /// Bytes beyond which there is no room.
    room: AtomicUsize,
    /// When something was last taken, or the first thing queued.
    moved: Mutex<Instant>,
    drained: Notify,
}

impl Backlog {
    /// Nothing is queued.
    pub(super) fn new() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            room: AtomicUsize::new(ROOM),
            moved: Mutex::new(Instant::now()),
            drained: Notify::new(),
        }
    }

    /// Waits until there is room.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.has_room() {
                return;
            }
            drained.await;
        }
    }

    /// Whether there is room.
    pub(super) fn has_room(&self) -> bool {
        self.bytes() < self.room.load(Ordering::Acquire)
    }

    /// Bytes that are queued.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// How long something has been queued and nothing been taken.
    pub(super) fn stuck_for(&self) -> Duration {
        match self.bytes() {
            0 => Duration::ZERO,
            _ => locked(&self.moved).elapsed(),
        }
    }

    /// Media comes at `bitrate` from now on: a quarter of a second of it may wait.
    pub(super) fn expect(&self, bitrate: Bitrate) {
        let room = f64::from(bitrate.0) / 8.0 * ROOM_SPAN.as_secs_f64();
        let room = (room as usize).clamp(LEAST_ROOM, ROOM);
        if self.room.swap(room, Ordering::AcqRel) < room {
            self.drained.notify_waiters();
        }
    }

    /// Bytes were queued; how many are in all.
    pub(super) fn queued(&self, bytes: usize) -> usize {
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before == 0 {
            *locked(&self.moved) = Instant::now();
        }
        before + bytes
    }

    /// As many bytes are queued no more.
    pub(super) fn written(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            *locked(&self.moved) = Instant::now();
            self.drained.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn stuck_is_what_moves_not_at_all() {
        let backlog = Backlog::new();
        tokio::time::advance(10 * S).await;
        assert_eq!(backlog.stuck_for(), Duration::ZERO);
        backlog.queued(100 * 1024);
        for _ in 0..10 {
            tokio::time::advance(2 * S).await;
            backlog.written(1_000);
            assert!(!backlog.has_room());
            assert_eq!(backlog.stuck_for(), Duration::ZERO);
        }
        backlog.queued(1);
        tokio::time::advance(3 * S).await;
        assert_eq!(backlog.stuck_for(), 3 * S);
    }

    #[tokio::test(start_paused = true)]
    async fn room_follows_the_bitrate_and_who_waits_is_told() {
        let backlog = Backlog::new();
        backlog.queued(20_000);
        assert!(backlog.has_room());
        backlog.expect(Bitrate(400_000));
        assert!(!backlog.has_room());
        let waiting = backlog.room();
        tokio::pin!(waiting);
        let soon = tokio::time::timeout(S, &mut waiting).await;
        assert!(soon.is_err());
        backlog.expect(Bitrate(2_000_000));
        waiting.await;
        backlog.expect(Bitrate(1));
        backlog.written(20_000 - LEAST_ROOM + 1);
        assert!(backlog.has_room());
    }
}
