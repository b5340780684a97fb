//! UDP: one mapping for each inside address and port.
//!
//! # Theory of operation
//!
//! The first datagram from an inside address and port opens a socket outside. Every later one
//! from there leaves by the same socket, wherever it goes (endpoint-independent mapping, RFC 4787
//! REQ-1), and whatever arrives at the socket goes back there (endpoint-independent filtering,
//! REQ-8), which is what calls and games need.

use std::net::SocketAddrV4;

use crate::DropReason;
use crate::context::Context;
use crate::idle;
use crate::mappings::Mappings;
use crate::output::UdpMapping;
use crate::packet::{Parsed, udp_datagram, udp_payload};
use crate::peers::PeerIndex;
use crate::session::Session;

/// All UDP mappings.
pub(crate) type UdpMappings = Mappings<UdpMapping, SocketAddrV4>;

impl UdpMappings {
    /// Takes a datagram of a peer.
    pub(crate) fn handle_datagram<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &Parsed<'_>,
    ) -> Result<(), DropReason> {
        let (source_port, destination_port, payload) = udp_payload(packet)?;
        let inside = SocketAddrV4::new(packet.source, source_port);
        let idle = idle::udp(destination_port);
        let mapping = self.touch(cx, peer, inside, idle)?;
        let destination = SocketAddrV4::new(packet.destination, destination_port);
        cx.output.commands.udp_send(mapping, destination, payload);
        Ok(())
    }

    /// Brings what arrived at a mapping's socket to its peer.
    pub(crate) fn handle_received<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: UdpMapping,
        source: SocketAddrV4,
        payload: &[u8],
    ) {
        let Some(mapping) = self.get(id) else { return };
        let identification = cx.random() as u16;
        let mut buffer = std::mem::take(cx.scratch);
        match udp_datagram(&mut buffer, source, mapping.inside, payload, identification) {
            Some(packet) => cx.send(mapping.peer, packet),
            None => cx.output.drop(DropReason::MalformedPacket),
        }
        *cx.scratch = buffer;
    }
}
