//! What the flow tables need of the gateway around them.

use std::time::Instant;

use rand::RngCore as _;
use rand::rngs::StdRng;

use crate::output::Output;
use crate::packet::{Parsed, Unreachable, reset_for, time_exceeded, too_big, unreachable};
use crate::peers::{PeerIndex, Peers};
use crate::session::Session;
use crate::{DropReason, Limits};

/// The gateway without its flow tables, lent to one of them for the length of a call.
pub(crate) struct Context<'a, S> {
    pub(crate) now: Instant,
    pub(crate) peers: &'a mut Peers<S>,
    pub(crate) output: &'a mut Output,
    pub(crate) limits: &'a Limits,
    pub(crate) rng: &'a mut StdRng,
    pub(crate) gateway: std::net::Ipv4Addr,
    /// Flows of all kinds.
    pub(crate) flows: &'a mut usize,
    pub(crate) scratch: &'a mut Vec<u8>,
}

impl<S: Session> Context<'_, S> {
    /// Takes a place for a new flow, or says which limit is reached.
    pub(crate) fn claim_flow(&mut self, peer: PeerIndex) -> Result<(), DropReason> {
        let entry = self.peers.get(peer).ok_or(DropReason::UnknownPeer)?;
        if *self.flows >= self.limits.flows {
            return Err(DropReason::FlowLimit);
        }
        if entry.flows >= self.limits.flows_per_peer {
            return Err(DropReason::PeerFlowLimit);
        }
        entry.flows += 1;
        *self.flows += 1;
        Ok(())
    }

    /// Gives a place back.
    pub(crate) fn release_flow(&mut self, peer: PeerIndex) {
        *self.flows = self.flows.saturating_sub(1);
        if let Some(entry) = self.peers.get(peer) {
            entry.flows = entry.flows.saturating_sub(1);
        }
    }

    /// Sends a packet to a peer.
    pub(crate) fn send(&mut self, peer: PeerIndex, packet: &[u8]) {
        match self.peers.get(peer) {
            Some(entry) => self.output.send(self.now, entry, packet),
            None => self.output.drop(DropReason::PeerNotConnected),
        }
    }

    /// Sends the packet that `make` builds from `original`, if it builds one.
    pub(crate) fn answer(&mut self, peer: PeerIndex, make: impl FnOnce(&mut Vec<u8>) -> bool) {
        let mut buffer = std::mem::take(self.scratch);
        if make(&mut buffer) {
            self.send(peer, &buffer);
        }
        *self.scratch = buffer;
    }

    /// Tells a peer that its packet cannot be delivered.
    pub(crate) fn answer_unreachable(
        &mut self,
        peer: PeerIndex,
        original: &Parsed<'_>,
        why: Unreachable,
    ) {
        let gateway = self.gateway;
        self.answer(peer, |buffer| {
            unreachable(buffer, gateway, original, why).is_some()
        });
    }

    /// Tells a peer that its packet is longer than `mtu` and must not be cut.
    pub(crate) fn answer_too_big(&mut self, peer: PeerIndex, original: &Parsed<'_>, mtu: u16) {
        let gateway = self.gateway;
        self.answer(peer, |buffer| {
            too_big(buffer, gateway, original, mtu).is_some()
        });
    }

    /// Tells a peer that its packet's life ends here.
    pub(crate) fn answer_time_exceeded(&mut self, peer: PeerIndex, original: &Parsed<'_>) {
        let gateway = self.gateway;
        self.answer(peer, |buffer| {
            time_exceeded(buffer, gateway, original).is_some()
        });
    }

    /// Refuses a TCP segment.
    pub(crate) fn answer_reset(&mut self, peer: PeerIndex, original: &Parsed<'_>) {
        self.answer(peer, |buffer| reset_for(buffer, original).is_some());
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
