//! UDP: one mapping for each inside address and port.
//!
//! # Theory of operation
//!
//! The first datagram from an inside address and port opens a socket outside. Every later one
//! from there leaves by the same socket, wherever it goes (endpoint-independent mapping, RFC 4787
//! REQ-1), and whatever arrives at the socket goes back there (endpoint-independent filtering,
//! REQ-8), which is what calls and games need.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::DropReason;
use crate::context::Context;
use crate::mappings::Mappings;
use crate::output::UdpMapping;
use crate::packet::{Parsed, udp_datagram, udp_payload};
use crate::peers::PeerIndex;
use crate::session::Session;

/// How long a mapping lives without a datagram from inside (RFC 4787, REQ-5: 5 minutes are
/// recommended).
const IDLE: Duration = Duration::from_secs(300);

/// The same for a mapping that has only asked name servers (REQ-5 (b) lets well-known ports be
/// shorter): resolvers use a fresh port for each question.
const DNS_IDLE: Duration = Duration::from_secs(30);

const DNS_PORT: u16 = 53;

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
        let idle = if destination_port == DNS_PORT {
            DNS_IDLE
        } else {
            IDLE
        };
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
