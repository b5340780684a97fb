//! Whose turn it is, where there is more to do than time.
//!
//! What waits is served round and round the peers, a [`QUANTUM`] of bytes each (deficit round
//! robin, Shreedhar and Varghese 1995), so that every peer gets the same of a busy processor,
//! whatever windows and queues it has. Work is done in rounds: after one, input is looked at again.

use std::collections::VecDeque;
use std::time::Instant;

use crate::peers::PeerIndex;

/// Bytes of a peer's turn: one call of `UDP_SEGMENT`, or one frame of a network card.
pub const QUANTUM: usize = 64 * 1024;

/// Bytes of a round: less than a millisecond's work.
pub const ROUND: usize = 256 * 1024;

/// Things that wait, by peer.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    /// The peers for whom something waits; the first has the turn.
    peers: VecDeque<PeerIndex>,
    waiting: Vec<Waiting<T>>,
    /// When the round has begun, and what is left of it.
    round: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Waiting<T> {
    things: VecDeque<T>,
    /// Bytes that are left of the turn.
    left: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            peers: VecDeque::new(),
            waiting: Vec::new(),
            round: None,
        }
    }
}

impl<T> Turns<T> {
    /// Lets something wait for its peer's turn.
    pub(crate) fn push(&mut self, peer: PeerIndex, thing: T) {
        let index = peer.0 as usize;
        if self.waiting.len() <= index {
            self.waiting.resize_with(index + 1, || Waiting {
                things: VecDeque::new(),
                left: QUANTUM,
            });
        }
        let waiting = &mut self.waiting[index];
        if waiting.things.is_empty() {
            self.peers.push_back(peer);
        }
        waiting.things.push_back(thing);
    }

    /// How many peers wait.
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Begins a round, unless there is one at this time.
    pub(crate) fn begin_round(&mut self, now: Instant) {
        if self.round.is_none_or(|(begun, _)| begun < now) {
            self.round = Some((now, ROUND));
        }
    }

    /// Whether the round goes on.
    pub(crate) fn in_round(&self) -> bool {
        self.round.is_some_and(|(_, left)| left > 0)
    }

    /// Notes that so many bytes of the round are done.
    pub(crate) fn spend(&mut self, bytes: usize) {
        if let Some((_, left)) = &mut self.round {
            *left = left.saturating_sub(bytes);
        }
    }

    /// What is to be done next, of which `cost` tells how many bytes of its peer's turn it takes.
    /// `None` when nothing waits or the round is over.
    pub(crate) fn pop(&mut self, cost: impl FnOnce(&T) -> usize) -> Option<T> {
        if !self.in_round() {
            return None;
        }
        let peer = *self.peers.front()?;
        let waiting = self.waiting.get_mut(peer.0 as usize)?;
        let thing = waiting.things.pop_front()?;
        waiting.left = waiting.left.saturating_sub(cost(&thing));
        if waiting.things.is_empty() || waiting.left == 0 {
            waiting.left = QUANTUM;
            self.peers.pop_front();
            if !waiting.things.is_empty() {
                self.peers.push_back(peer);
            }
        }
        Some(thing)
    }

    /// When the next round is due: at once, if something waits.
    pub(crate) fn next_round(&self) -> Option<Instant> {
        let (begun, _) = self.round?;
        (!self.peers.is_empty()).then_some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(turns: &mut Turns<(char, usize)>) -> String {
        std::iter::from_fn(|| turns.pop(|(_, cost)| *cost))
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn turns_go_round_the_peers_by_their_bytes() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        for _ in 0..3 {
            turns.push(PeerIndex(5), ('a', QUANTUM));
        }
        for _ in 0..5 {
            turns.push(PeerIndex(0), ('b', QUANTUM / 2));
        }
        assert_eq!(all(&mut turns), "", "no round has begun");
        turns.begin_round(now);
        assert_eq!(all(&mut turns), "abbabbab");
        assert_eq!((turns.peers(), turns.next_round()), (0, None));
    }

    #[test]
    fn what_is_larger_than_a_turn_takes_one_turn() {
        let mut turns = Turns::default();
        turns.begin_round(Instant::now());
        for (peer, name) in [(0, 'a'), (0, 'a'), (1, 'b'), (1, 'b')] {
            turns.push(PeerIndex(peer), (name, 3 * QUANTUM));
        }
        assert_eq!(all(&mut turns), "abab");
    }

    #[test]
    fn what_costs_nothing_takes_nothing_of_the_turn() {
        let mut turns = Turns::default();
        turns.begin_round(Instant::now());
        for (peer, name, cost) in [
            (0, 'x', 0),
            (0, 'x', 0),
            (0, 'a', QUANTUM),
            (1, 'b', QUANTUM),
        ] {
            turns.push(PeerIndex(peer), (name, cost));
        }
        assert_eq!(all(&mut turns), "xxab");
    }

    #[test]
    fn a_round_ends_and_the_next_is_due_at_once() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.begin_round(now);
        for _ in 0..100 {
            turns.push(PeerIndex(0), ());
        }
        let mut served = 0;
        while turns.pop(|()| QUANTUM).is_some() {
            turns.spend(QUANTUM);
            turns.begin_round(now);
            served += 1;
        }
        assert_eq!(served, ROUND / QUANTUM);
        assert_eq!(turns.next_round(), Some(now));
        turns.begin_round(now + std::time::Duration::from_micros(1));
        assert!(turns.pop(|()| QUANTUM).is_some());
    }
}
