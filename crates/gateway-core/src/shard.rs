//! Several gateways beside each other, one for each processor, that share nothing.
//!
//! A peer belongs to one of them by its tunnel address; addresses are given out one after the
//! other, so peers spread evenly. Every gateway is told of all peers and serves its own. What
//! arrives at the wrong one is handed over. That is rare: the index that a session gives its peer
//! tells the gateway too, so that the kernel can already choose the socket by it.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

use popup_model::PublicKey;

use crate::DropReason;
use crate::peers::{PeerIndex, PeerSpec};
use crate::transmit::Endpoint;

/// Bits of a session's index (24 in all) that tell the peer within its gateway.
const PEER_BITS: u32 = 20;

/// What may wait to be handed over.
const MAX_WAITING: usize = 1024;

/// Which of how many gateways this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Default for Shard {
    /// The only one.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Shard {
    /// Most gateways beside each other.
    pub const MAX: usize = 1 << (24 - PEER_BITS);

    /// The `count` gateways, at least one and at most [`Self::MAX`].
    pub fn all(count: usize) -> impl Iterator<Item = Self> {
        let count = count.clamp(1, Self::MAX) as u32;
        (0..count).map(move |index| Self { index, count })
    }

    /// Its place among the others.
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Which gateway serves the peer with this tunnel address.
    fn of_address(&self, address: Ipv4Addr) -> u32 {
        address.to_bits() % self.count
    }

    /// The session index of a peer of this gateway.
    pub(crate) fn session_index(&self, peer: PeerIndex) -> u32 {
        self.index << PEER_BITS | peer.0
    }

    /// The gateway and the peer that a session index tells.
    pub(crate) fn of_session_index(index: u32) -> (usize, PeerIndex) {
        let peer = index & ((1 << PEER_BITS) - 1);
        ((index >> PEER_BITS) as usize, PeerIndex(peer))
    }
}

/// What belongs to another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handover {
    /// A datagram from outside the tunnel.
    Datagram {
        /// Who sent it, and where to.
        source: Endpoint,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// A packet for one of its peers, from a peer of this gateway.
    Packet(Vec<u8>),
}

/// The other gateways, as far as this one knows them.
#[derive(Debug, Default)]
pub(crate) struct Others {
    shard: Shard,
    by_key: HashMap<PublicKey, usize>,
    by_address: HashMap<Ipv4Addr, usize>,
    waiting: VecDeque<(usize, Handover)>,
}

impl Others {
    pub(crate) fn new(shard: Shard) -> Self {
        Self {
            shard,
            ..Self::default()
        }
    }

    pub(crate) fn shard(&self) -> Shard {
        self.shard
    }

    /// Takes note of everybody else's peers, and leaves its own in `peers`.
    pub(crate) fn keep_own(&mut self, peers: &mut Vec<PeerSpec>) {
        let Self {
            shard,
            by_key,
            by_address,
            ..
        } = self;
        by_key.clear();
        by_address.clear();
        peers.retain(|peer| {
            let owner = shard.of_address(peer.ipv4);
            if owner != shard.index {
                by_key.insert(peer.public_key, owner as usize);
                by_address.insert(peer.ipv4, owner as usize);
            }
            owner == shard.index
        });
    }

    pub(crate) fn of_key(&self, key: &PublicKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn of_address(&self, address: Ipv4Addr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// Whether there is another gateway of this index.
    pub(crate) fn has(&self, index: usize) -> bool {
        index != self.shard.index() && index < self.shard.count as usize
    }

    pub(crate) fn hand_over(&mut self, to: usize, what: Handover) -> Result<(), DropReason> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(DropReason::TransmitOverflow);
        }
        self.waiting.push_back((to, what));
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Option<(usize, Handover)> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_index_tells_the_gateway_and_the_peer() {
        for shard in Shard::all(16) {
            let index = shard.session_index(PeerIndex(4095));
            assert!(index < 1 << 24);
            let told = Shard::of_session_index(index);
            assert_eq!(told, (shard.index(), PeerIndex(4095)));
        }
        assert_eq!(Shard::all(0).count(), 1);
        assert_eq!(Shard::all(100).count(), Shard::MAX);
    }

    #[test]
    fn addresses_in_a_row_spread_evenly() {
        let shard = Shard::all(2).next().unwrap();
        let mine = (2..=9)
            .filter(|host| shard.of_address(Ipv4Addr::new(10, 8, 0, *host)) == 0)
            .count();
        assert_eq!(mine, 4);
    }
}
