//! UDP: one mapping for each inside address and port.
//!
//! # Theory of operation
//!
//! The first datagram from an inside address and port opens a socket outside. Every later one
//! from there leaves by the same socket, wherever it goes (endpoint-independent mapping, RFC 4787
//! REQ-1), and whatever arrives at the socket goes back there (endpoint-independent filtering,
//! REQ-8), which is what calls and games need. Only datagrams from inside keep a mapping alive
//! (REQ-6): nobody outside can.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::DropReason;
use crate::context::Context;
use crate::output::{Command, UdpMapping};
use crate::packet::{Parsed, udp_datagram, udp_payload};
use crate::peers::PeerIndex;
use crate::session::Session;
use crate::timers::{Armed, Timers};

/// How long a mapping lives without a datagram from inside (RFC 4787, REQ-5: 5 minutes are
/// recommended).
pub(crate) const IDLE: Duration = Duration::from_secs(300);

/// The same for a mapping that has only asked name servers (REQ-5 (b) lets well-known ports be
/// shorter): resolvers use a fresh port for each question.
pub(crate) const DNS_IDLE: Duration = Duration::from_secs(30);

const DNS_PORT: u16 = 53;

#[derive(Debug)]
struct Mapping {
    peer: PeerIndex,
    inside: SocketAddrV4,
    last_heard: Instant,
    only_dns: bool,
    armed: Armed,
}

impl Mapping {
    fn deadline(&self) -> Instant {
        self.last_heard + if self.only_dns { DNS_IDLE } else { IDLE }
    }
}

/// All UDP mappings.
#[derive(Debug, Default)]
pub(crate) struct UdpMappings {
    mappings: SlotMap<UdpMapping, Mapping>,
    by_inside: HashMap<SocketAddrV4, UdpMapping>,
    timers: Timers<UdpMapping>,
}

impl UdpMappings {
    pub(crate) fn len(&self) -> usize {
        self.mappings.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Takes a datagram of a peer.
    pub(crate) fn handle_datagram<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &Parsed<'_>,
    ) -> Result<(), DropReason> {
        let (source_port, destination_port, payload) = udp_payload(packet)?;
        let inside = SocketAddrV4::new(packet.source, source_port);
        let id = match self.by_inside.get(&inside) {
            Some(id) => *id,
            None => self.open(cx, peer, inside)?,
        };
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.last_heard = cx.now;
            mapping.only_dns &= destination_port == DNS_PORT;
            let deadline = mapping.deadline();
            self.timers.arm(&mut mapping.armed, id, deadline);
        }
        cx.output.commands.udp_send(
            id,
            SocketAddrV4::new(packet.destination, destination_port),
            payload,
        );
        Ok(())
    }

    fn open<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        inside: SocketAddrV4,
    ) -> Result<UdpMapping, DropReason> {
        cx.claim_flow(peer)?;
        let id = self.mappings.insert(Mapping {
            peer,
            inside,
            last_heard: cx.now,
            only_dns: true,
            armed: None,
        });
        self.by_inside.insert(inside, id);
        cx.output.commands.push(Command::UdpOpen { mapping: id });
        Ok(id)
    }

    /// Brings what arrived at a mapping's socket to its peer.
    pub(crate) fn handle_received<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: UdpMapping,
        source: SocketAddrV4,
        payload: &[u8],
    ) {
        let Some(mapping) = self.mappings.get(id) else {
            return;
        };
        let identification = cx.random() as u16;
        let mut buffer = std::mem::take(cx.scratch);
        match udp_datagram(&mut buffer, source, mapping.inside, payload, identification) {
            Some(packet) => cx.send(mapping.peer, packet),
            None => cx.output.drop(DropReason::MalformedPacket),
        }
        *cx.scratch = buffer;
    }

    /// Gives up a mapping whose socket could not be opened or has failed.
    pub(crate) fn handle_failed<S: Session>(&mut self, cx: &mut Context<'_, S>, id: UdpMapping) {
        if self.mappings.contains_key(id) {
            cx.output.drop(DropReason::SendFailed);
            self.remove(cx, id);
        }
    }

    pub(crate) fn handle_timeout<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(id) = self.timers.pop(cx.now) {
            let Some(mapping) = self.mappings.get_mut(id) else {
                continue;
            };
            mapping.armed = None;
            let deadline = mapping.deadline();
            if deadline <= cx.now {
                self.remove(cx, id);
            } else {
                self.timers.arm(&mut mapping.armed, id, deadline);
            }
        }
    }

    pub(crate) fn remove_peer<S: Session>(&mut self, cx: &mut Context<'_, S>, peer: PeerIndex) {
        let of_peer = |(id, mapping): (UdpMapping, &Mapping)| (mapping.peer == peer).then_some(id);
        let gone: Vec<UdpMapping> = self.mappings.iter().filter_map(of_peer).collect();
        for id in gone {
            self.remove(cx, id);
        }
    }

    fn remove<S: Session>(&mut self, cx: &mut Context<'_, S>, id: UdpMapping) {
        let Some(mut mapping) = self.mappings.remove(id) else {
            return;
        };
        self.by_inside.remove(&mapping.inside);
        self.timers.disarm(&mut mapping.armed, id);
        cx.release_flow(mapping.peer);
        cx.output.commands.push(Command::UdpClose { mapping: id });
    }
}
