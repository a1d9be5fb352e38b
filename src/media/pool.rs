//! Picture buffers that come back: a frame's memory is used again as soon as nobody holds the frame any more.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for reuse; the queues of a track hold fewer frames than this at a time.
const KEPT: usize = 4;

type Shelf = Arc<Mutex<Vec<Vec<u8>>>>;

/// Hands out buffers of one size. Cheap to clone; all clones share the buffers.
#[derive(Clone, Debug)]
pub struct Pool {
    shelf: Shelf,
    len: usize,
}

impl Pool {
    /// A pool of buffers of `len` bytes each; none is allocated yet.
    pub fn new(len: usize) -> Self {
        Self {
            shelf: Shelf::default(),
            len,
        }
    }

    /// Lets `fill` write a buffer (its old content is arbitrary) and freezes it.
    ///
    /// The memory returns to the pool when the last clone of the result is dropped.
    pub fn fill(&self, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let spare = lock(&self.shelf).pop();
        let mut buffer = spare.unwrap_or_else(|| vec![0; self.len]);
        fill(&mut buffer);
        Bytes::from_owner(Lent {
            buffer,
            shelf: Arc::clone(&self.shelf),
        })
    }
}

struct Lent {
    buffer: Vec<u8>,
    shelf: Shelf,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut shelf = lock(&self.shelf);
        if shelf.len() < KEPT {
            shelf.push(std::mem::take(&mut self.buffer));
        }
    }
}

fn lock(shelf: &Mutex<Vec<Vec<u8>>>) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_and_a_held_one_is_not() {
        let pool = Pool::new(8);
        let first = pool.fill(|b| b.fill(1));
        let at = first.as_ptr();
        let held = pool.fill(|b| b.fill(2));
        assert_ne!(held.as_ptr(), at);
        let clone = first.clone();
        drop(first);
        assert_ne!(pool.fill(|b| b.fill(3)).as_ptr(), at);
        assert_eq!(clone, [1; 8][..]);
        drop(clone);
        assert_eq!(lock(&pool.shelf).len(), 2);
        assert_eq!(pool.fill(|_| ()).as_ptr(), at);
    }
}
