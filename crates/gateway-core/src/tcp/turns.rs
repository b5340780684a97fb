//! Whose turn it is to be served by the shell, peer by peer.
//!
//! Reading from the outside is what costs: all that is read is encrypted and sent. Where more could
//! be read than there is time for, windows would decide who gets it, and the widest would stay the
//! widest. So a connection reads a [`QUANTUM`] in its turn, turns go round the peers, and within a
//! peer round its connections; after a round, input is looked at again.

use std::collections::VecDeque;
use std::time::Instant;

use super::terminator::MAX_BURST;
use crate::output::TcpFlow;
use crate::peers::PeerIndex;

/// Bytes that a connection may read in its turn: what may be sent to a peer in one burst, in
/// segments that fill a tunnel of 1420 bytes.
pub(super) const QUANTUM: usize = MAX_BURST * (1420 - 40);

/// Bytes that are read before input is looked at again: less than a millisecond's work.
const ROUND: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those with connections that wait.
    peers: VecDeque<PeerIndex>,
    /// The connections that wait, by peer.
    waiting: Vec<VecDeque<TcpFlow>>,
    /// When the round has begun, and what may still be read in it.
    round: Option<(Instant, usize)>,
}

impl Turns {
    /// Lets a connection wait for its turn.
    pub(super) fn push(&mut self, peer: PeerIndex, flow: TcpFlow) {
        let index = peer.0 as usize;
        if self.waiting.len() <= index {
            self.waiting.resize_with(index + 1, VecDeque::new);
        }
        let waiting = &mut self.waiting[index];
        if waiting.is_empty() {
            self.peers.push_back(peer);
        }
        waiting.push_back(flow);
    }

    /// Begins a round, unless there is one at this time.
    pub(super) fn begin_round(&mut self, now: Instant) {
        if self.round.is_none_or(|(begun, _)| begun < now) {
            self.round = Some((now, ROUND));
        }
    }

    /// The connection whose turn it is; `None` when none waits or the round is over.
    pub(super) fn pop(&mut self) -> Option<TcpFlow> {
        if self.round.is_none_or(|(_, left)| left == 0) {
            return None;
        }
        let peer = self.peers.pop_front()?;
        let waiting = self.waiting.get_mut(peer.0 as usize)?;
        let flow = waiting.pop_front();
        if !waiting.is_empty() {
            self.peers.push_back(peer);
        }
        flow
    }

    /// Notes that so many bytes were read.
    pub(super) fn spend(&mut self, bytes: usize) {
        if let Some((_, left)) = &mut self.round {
            *left = left.saturating_sub(bytes);
        }
    }

    /// When the next round is due: at once, if a connection waits.
    pub(super) fn next_round(&self) -> Option<Instant> {
        let (begun, _) = self.round?;
        (!self.peers.is_empty()).then_some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn turns_go_round_the_peers_and_within_a_peer_round_its_connections() {
        let mut names: SlotMap<TcpFlow, ()> = SlotMap::with_key();
        let flows: Vec<TcpFlow> = (0..4).map(|_| names.insert(())).collect();
        let (mut turns, now) = (Turns::default(), Instant::now());
        for flow in &flows[..3] {
            turns.push(PeerIndex(5), *flow);
        }
        turns.push(PeerIndex(0), flows[3]);
        assert_eq!(turns.pop(), None, "no round has begun");
        turns.begin_round(now);
        let order: Vec<TcpFlow> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [flows[0], flows[3], flows[1], flows[2]]);
        assert_eq!(turns.next_round(), None);
    }

    #[test]
    fn a_round_ends_and_the_next_is_due_at_once() {
        let mut names: SlotMap<TcpFlow, ()> = SlotMap::with_key();
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.begin_round(now);
        for _ in 0..100 {
            turns.push(PeerIndex(0), names.insert(()));
        }
        let mut served = 0;
        while turns.pop().is_some() {
            turns.spend(QUANTUM);
            turns.begin_round(now);
            served += 1;
        }
        assert_eq!(served, ROUND.div_ceil(QUANTUM));
        assert_eq!(turns.next_round(), Some(now));
        turns.begin_round(now + std::time::Duration::from_micros(1));
        assert!(turns.pop().is_some());
    }
}
