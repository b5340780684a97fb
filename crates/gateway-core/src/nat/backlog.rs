//! Packets from the network that arrive faster than they can be sent on.
//!
//! Invariant: packets of one peer are taken in the order in which they came; while any peer's wait,
//! nobody's pass by. Where packets wait, the processor is the bottleneck, and it drops like a router
//! that queues fairly (RFC 8290, section 1.2): a peer whose share of the queue is full loses what comes
//! for it, and nobody else does.

use std::time::Instant;

use super::frame::Received;
use crate::peers::PeerIndex;
use crate::turns::Turns;

/// Bytes that peers may share, each the same.
const MOST: usize = 2 * 1024 * 1024;

/// Bytes that may wait for each, however many they are: two of the longest packets.
const LEAST_SHARE: usize = 128 * 1024;

/// Bytes that may wait for all, since each of very many may have its least share.
const MOST_IN_ALL: usize = 8 * MOST;

/// Buffers of each size kept for reuse.
const MOST_SPARE: usize = 32;

/// Room of the buffers.
const SIZES: [usize; 9] = [256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_535];

/// Counted for packets that are shorter, so that none holds more than twice what it counts for.
const SMALLEST: usize = 128;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) packet: Vec<u8>,
    pub(super) received: Received,
    peer: PeerIndex,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    turns: Turns<Waiting>,
    /// Bytes that wait, by peer.
    bytes: Vec<usize>,
    bytes_in_all: usize,
    spare: [Vec<Vec<u8>>; SIZES.len()],
}

impl Backlog {
    /// Begins a round, unless there is one at this time.
    pub(super) fn begin_round(&mut self, now: Instant) {
        self.turns.begin_round(now);
    }

    /// Whether a packet of so many bytes may be taken at once; then it is counted for the round.
    pub(super) fn passes(&mut self, bytes: usize) -> bool {
        let passes = self.turns.peers() == 0 && self.turns.in_round();
        if passes {
            self.turns.spend(bytes);
        }
        passes
    }

    /// Lets a packet wait. False when its peer's share, or everything, is full.
    pub(super) fn push(&mut self, peer: PeerIndex, packet: &[u8], received: Received) -> bool {
        let index = peer.0 as usize;
        if self.bytes.len() <= index {
            self.bytes.resize(index + 1, 0);
        }
        let share = (MOST / self.turns.peers().max(1)).max(LEAST_SHARE);
        let (bytes, counted) = (&mut self.bytes[index], counted(packet));
        if *bytes + counted > share || self.bytes_in_all + counted > MOST_IN_ALL {
            return false;
        }
        *bytes += counted;
        self.bytes_in_all += counted;
        let size = size_for(packet.len());
        let spare = self.spare[size].pop();
        let mut buffer = spare.unwrap_or_else(|| Vec::with_capacity(SIZES[size]));
        buffer.extend_from_slice(packet);
        let waiting = Waiting {
            packet: buffer,
            received,
            peer,
        };
        self.turns.push(peer, waiting);
        true
    }

    /// The packet that is taken next; to be given back with [`Self::recycle`].
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.turns.pop(|waiting| waiting.packet.len())?;
        self.turns.spend(waiting.packet.len());
        let counted = counted(&waiting.packet);
        if let Some(bytes) = self.bytes.get_mut(waiting.peer.0 as usize) {
            *bytes -= counted;
        }
        self.bytes_in_all -= counted;
        Some(waiting)
    }

    pub(super) fn recycle(&mut self, mut waiting: Waiting) {
        let spare = &mut self.spare[size_for(waiting.packet.len())];
        if spare.len() < MOST_SPARE {
            waiting.packet.clear();
            spare.push(waiting.packet);
        }
    }

    /// When the next round is due: at once, if a packet waits.
    pub(super) fn next_round(&self) -> Option<Instant> {
        self.turns.next_round()
    }
}

/// Bytes that a packet counts for while it waits.
fn counted(packet: &[u8]) -> usize {
    packet.len().max(SMALLEST)
}

/// Which of the sizes a packet needs.
fn size_for(bytes: usize) -> usize {
    SIZES
        .partition_point(|size| *size < bytes)
        .min(SIZES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::ROUND;
    use std::time::Duration;

    const FRAME: usize = 60_000;

    fn push(backlog: &mut Backlog, peer: u32, mark: u8) -> bool {
        let received = Received::default();
        backlog.push(PeerIndex(peer), &[mark; FRAME], received)
    }

    fn pop_all(backlog: &mut Backlog, now: &mut Instant) -> Vec<u8> {
        let mut marks = Vec::new();
        while backlog.next_round().is_some() {
            *now += Duration::from_millis(1);
            backlog.begin_round(*now);
            while let Some(waiting) = backlog.pop() {
                marks.push(waiting.packet[0]);
                backlog.recycle(waiting);
            }
        }
        marks
    }

    #[test]
    fn what_fits_into_a_round_passes_and_nothing_passes_what_waits() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        backlog.begin_round(now);
        let passed = (0..).take_while(|_| backlog.passes(FRAME)).count();
        assert_eq!(passed, ROUND.div_ceil(FRAME));
        assert!(push(&mut backlog, 1, 1));
        now += Duration::from_millis(1);
        backlog.begin_round(now);
        assert!(!backlog.passes(FRAME), "another one waits");
        assert_eq!(pop_all(&mut backlog, &mut now), [1]);
        assert!(backlog.passes(FRAME));
    }

    #[test]
    fn a_buffer_is_used_again_for_what_fits_into_it() {
        for (bytes, size) in [(1, 0), (256, 0), (257, 1), (32_768, 7), (65_535, 8)] {
            assert_eq!(size_for(bytes), size);
        }
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        for (size, len) in SIZES.into_iter().enumerate() {
            let packet = vec![7; len];
            assert!(backlog.push(PeerIndex(1), &packet, Received::default()));
            now += Duration::from_millis(1);
            backlog.begin_round(now);
            let waiting = backlog.pop().unwrap();
            backlog.recycle(waiting);
            let spare: Vec<usize> = backlog.spare.iter().map(Vec::len).collect();
            let expected: Vec<usize> = (0..SIZES.len())
                .map(|other| usize::from(other <= size))
                .collect();
            assert_eq!(spare, expected);
        }
    }

    #[test]
    fn a_peer_that_gets_too_much_loses_its_own_and_no_others() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        backlog.begin_round(now);
        let of_first = (0..100).filter(|_| push(&mut backlog, 7, 7)).count();
        assert_eq!(of_first, MOST / FRAME);
        for _ in 0..2 {
            assert!(push(&mut backlog, 9, 9));
        }
        let marks = pop_all(&mut backlog, &mut now);
        assert_eq!(
            marks[..5],
            [7, 7, 9, 9, 7],
            "a turn is a little more than a frame"
        );
        assert_eq!(marks.len(), of_first + 2);
        assert!(backlog.bytes.iter().all(|bytes| *bytes == 0));
    }

    #[test]
    fn there_is_an_end_to_what_may_wait_for_all() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        backlog.begin_round(now);
        let waiting = (0..1000)
            .filter(|peer| push(&mut backlog, *peer, 0))
            .count();
        assert_eq!(waiting, MOST_IN_ALL / FRAME);
        assert_eq!(pop_all(&mut backlog, &mut now).len(), waiting);
        assert_eq!(backlog.bytes_in_all, 0);
        assert!(push(&mut backlog, 999, 0));
    }

    #[test]
    fn however_many_peers_there_are_each_may_have_something_wait() {
        let mut backlog = Backlog::default();
        for peer in 0..100 {
            assert!(push(&mut backlog, peer, 0) && push(&mut backlog, peer, 0));
            assert!(!push(&mut backlog, peer, 0) || peer < 16);
        }
    }
}
