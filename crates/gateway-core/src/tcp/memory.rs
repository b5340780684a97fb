//! Memory of connections' buffers, counted as it is touched.
//!
//! A buffer is address space until bytes pass through it: it is filled from its start after each
//! time it was empty, so what it holds of memory is the most that ever passed between two such
//! times. A first [`CHUNK`] belongs to every connection; beyond, buffers share what is left under
//! the cap. Where nothing is left, a buffer takes no more until it is empty again.

/// What every direction of every connection may use.
pub(super) const CHUNK: usize = 8 * 1024;

/// The memory of one direction's buffer.
#[derive(Debug)]
pub(super) struct Touched {
    capacity: usize,
    /// Bytes that have entered since the buffer was last empty.
    entered: usize,
    /// The most that has been touched.
    most: usize,
}

impl Touched {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entered: 0,
            most: CHUNK.min(capacity),
        }
    }

    /// Bytes counted for this buffer.
    pub(super) fn bytes(&self) -> usize {
        self.most
    }

    /// The buffer is empty: the next byte enters at its start.
    pub(super) fn handle_empty(&mut self) {
        self.entered = 0;
    }

    /// How much may enter when `left` bytes are left for all.
    pub(super) fn room(&self, left: usize) -> usize {
        if self.most == self.capacity {
            return self.capacity; // Whatever passes now has been touched already.
        }
        (self.most + left).saturating_sub(self.entered)
    }

    /// Notes that `bytes` have entered.
    pub(super) fn handle_entered(&mut self, bytes: usize) {
        self.entered = (self.entered + bytes).min(self.capacity);
        self.most = self.most.max(self.entered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_exchanges_never_count_for_more_than_their_chunk() {
        let mut touched = Touched::new(1 << 20);
        for _ in 0..1000 {
            touched.handle_empty();
            touched.handle_entered(1000);
        }
        assert_eq!(touched.bytes(), CHUNK);
    }

    #[test]
    fn a_buffer_that_is_never_empty_counts_for_all_that_passes() {
        let mut touched = Touched::new(1 << 20);
        for _ in 0..2000 {
            touched.handle_entered(1000);
        }
        assert_eq!(touched.bytes(), 1 << 20);
        assert_eq!(touched.room(0), 1 << 20);
    }

    #[test]
    fn with_nothing_left_a_buffer_takes_its_chunk_and_then_waits_until_it_is_empty() {
        let mut touched = Touched::new(1 << 20);
        assert_eq!(touched.room(0), CHUNK);
        touched.handle_entered(CHUNK);
        assert_eq!(touched.room(0), 0);
        assert_eq!(touched.room(100), 100);
        touched.handle_empty();
        assert_eq!(touched.room(0), CHUNK);
    }
}
