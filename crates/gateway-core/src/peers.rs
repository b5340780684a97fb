//! The peers: who they are, where they were last heard, what they have used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use popup_model::{PresharedKey, PublicKey};

use crate::session::{Interface, Session};
use crate::shard::Shard;
use crate::transmit::Endpoint;

/// How long after the last sign of life a session's timers are still run: the session itself
/// ends after 180 s, and a handshake of ours is retried for 90 s (whitepaper, section 6).
const TIMERS_RUN_FOR: Duration = Duration::from_secs(300);

/// A peer as the configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSpec {
    /// Its identity.
    pub public_key: PublicKey,
    /// Mixed into its handshakes.
    pub preshared_key: Option<PresharedKey>,
    /// Its tunnel addresses: the only sources accepted from it.
    pub ipv4: Ipv4Addr,
    /// The same, for IPv6.
    pub ipv6: Ipv6Addr,
    /// Its tunnel MTU in bytes.
    pub mtu: u16,
}

/// What is known of a peer now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Who.
    pub public_key: PublicKey,
    /// Its IPv4 tunnel address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 tunnel address.
    pub ipv6: Ipv6Addr,
    /// Where its last authentic datagram came from.
    pub endpoint: Option<SocketAddr>,
    /// When a handshake last completed.
    pub latest_handshake: Option<Instant>,
    /// When it last sent inner payload that went somewhere.
    pub active_at: Option<Instant>,
    /// Bytes received from it: WireGuard datagrams, as `wg` counts them.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

/// Index of a peer: stable while it lives, at most 24 bits, known to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerIndex(pub(crate) u32);

#[derive(Debug)]
pub(crate) struct Peer<S> {
    pub(crate) spec: PeerSpec,
    pub(crate) session: S,
    pub(crate) endpoint: Option<Endpoint>,
    /// A handshake was answered; it is complete with the first data that follows.
    pub(crate) handshake_pending: bool,
    pub(crate) latest_handshake: Option<Instant>,
    pub(crate) active_at: Option<Instant>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) flows: usize,
    pub(crate) half_open: usize,
    timers_until: Option<Instant>,
}

impl<S> Peer<S> {
    /// Notes a sign of life, so that the session's timers run.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.timers_until = Some(now + TIMERS_RUN_FOR);
    }

    pub(crate) fn timers_run(&self, now: Instant) -> bool {
        self.timers_until.is_some_and(|until| now < until)
    }

    fn report(&self) -> PeerReport {
        PeerReport {
            public_key: self.spec.public_key,
            ipv4: self.spec.ipv4,
            ipv6: self.spec.ipv6,
            endpoint: self.endpoint.map(|endpoint| endpoint.address),
            latest_handshake: self.latest_handshake,
            active_at: self.active_at,
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
        }
    }
}

/// All peers, by index, key and tunnel address.
#[derive(Debug)]
pub(crate) struct Peers<S> {
    slots: Vec<Option<Peer<S>>>,
    by_key: HashMap<PublicKey, PeerIndex>,
    by_address: HashMap<Ipv4Addr, PeerIndex>,
}

impl<S> Default for Peers<S> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            by_key: HashMap::default(),
            by_address: HashMap::default(),
        }
    }
}

impl<S: Session> Peers<S> {
    /// The peers that `wanted` no longer has as they are: gone, or with another preshared key or
    /// address.
    pub(crate) fn outdated(&self, wanted: &[PeerSpec]) -> Vec<PeerIndex> {
        let wanted: HashMap<PublicKey, &PeerSpec> =
            wanted.iter().map(|spec| (spec.public_key, spec)).collect();
        self.iter()
            .filter(|(_, peer)| wanted.get(&peer.spec.public_key) != Some(&&peer.spec))
            .map(|(index, _)| index)
            .collect()
    }

    pub(crate) fn insert<I: Interface<Session = S>>(
        &mut self,
        interface: &I,
        shard: Shard,
        spec: PeerSpec,
    ) {
        let free = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        let index = PeerIndex(free as u32);
        let session_index = shard.session_index(index);
        let session =
            interface.session(spec.public_key, spec.preshared_key.as_ref(), session_index);
        self.by_key.insert(spec.public_key, index);
        self.by_address.insert(spec.ipv4, index);
        let peer = Peer {
            spec,
            session,
            endpoint: None,
            handshake_pending: false,
            latest_handshake: None,
            active_at: None,
            rx_bytes: 0,
            tx_bytes: 0,
            flows: 0,
            half_open: 0,
            timers_until: None,
        };
        if free == self.slots.len() {
            self.slots.push(Some(peer));
        } else {
            self.slots[free] = Some(peer);
        }
    }

    pub(crate) fn remove(&mut self, index: PeerIndex) -> Option<Peer<S>> {
        let peer = self.slots.get_mut(index.0 as usize)?.take()?;
        self.by_key.remove(&peer.spec.public_key);
        self.by_address.remove(&peer.spec.ipv4);
        Some(peer)
    }

    pub(crate) fn get(&mut self, index: PeerIndex) -> Option<&mut Peer<S>> {
        self.slots.get_mut(index.0 as usize)?.as_mut()
    }

    pub(crate) fn index_of_key(&self, key: &PublicKey) -> Option<PeerIndex> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn index_of_address(&self, address: IpAddr) -> Option<PeerIndex> {
        match address {
            IpAddr::V4(address) => self.by_address.get(&address).copied(),
            IpAddr::V6(_) => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer<S>)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| slot.as_ref().map(|peer| (PeerIndex(index as u32), peer)))
    }

    pub(crate) fn reports(&self) -> Vec<PeerReport> {
        self.iter().map(|(_, peer)| peer.report()).collect()
    }
}
