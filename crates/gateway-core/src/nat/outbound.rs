//! From a peer to the network.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::IpProtocol;

use super::Nat;
use super::bindings::{ANY, End};
use super::icmp::{Message, read, replace_ident, replace_quoted_end};
use super::rewrite::{Side, clamp_segment_size, replace_address, replace_end};
use crate::DropReason;
use crate::context::Context;
use crate::packet::{Layout, Parsed, Protocol, TcpFlags, Unreachable, fragments, take_hop};
use crate::peers::PeerIndex;
use crate::session::Session;

impl Nat {
    /// Takes a whole packet of a peer, whose header is sound, whose destination is open to it and whose life goes on.
    pub(crate) fn handle_packet<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        match IpProtocol::from(packet[9]) {
            IpProtocol::Tcp | IpProtocol::Udp => self.handle_segment(cx, peer, packet),
            IpProtocol::Icmp => self.handle_message(cx, peer, packet),
            _ => {
                cx.answer_unreachable(peer, &Parsed::new(packet)?, Unreachable::Protocol);
                Err(DropReason::UnsupportedProtocol)
            }
        }
    }

    fn handle_segment<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let layout = Layout::new(packet)?;
        let bound = self.bind(
            cx,
            peer,
            layout.protocol,
            layout.source,
            layout.destination,
            layout.flags,
        );
        let id = match bound {
            Ok(id) => id,
            Err(reason) => {
                let parsed = Parsed::new(packet)?;
                match reason {
                    // The connection is older than this gateway: its peer is better told at once.
                    DropReason::UnknownFlow => cx.answer_reset(peer, &parsed),
                    _ => cx.answer_unreachable(peer, &parsed, Unreachable::Host),
                }
                return Err(reason);
            }
        };
        self.note(cx, id, End::Inside, layout.flags);
        if layout.flags.is_some_and(|flags| flags.has(TcpFlags::SYN)) {
            let mtu = self.narrower(cx, peer);
            clamp_segment_size(packet, &layout, mtu, false);
        }
        let Some(port) = self.bindings.get(id).map(|binding| binding.port) else {
            return Err(DropReason::UnknownFlow);
        };
        let source = self.outside(port);
        let sent = if packet.len() <= usize::from(self.settings.mtu) {
            self.frames.push_translated(id, packet, &layout, source)
        } else {
            self.check_fragmentation(cx, peer, packet)?;
            replace_end(packet, &layout, Side::Source, source, false);
            take_hop(packet);
            self.frames.close(id, layout.destination);
            self.push_in_fragments(packet)
        };
        if sent {
            Ok(())
        } else {
            Err(DropReason::SendFailed)
        }
    }

    fn handle_message<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let parsed = Parsed::new(packet)?;
        let (source, destination) = (parsed.source, parsed.destination);
        let own = self.settings.address;
        match read(packet).ok_or(DropReason::UnsupportedProtocol)? {
            Message::EchoRequest { ident } => {
                let inside = SocketAddrV4::new(source, ident);
                let id = self.bind(cx, peer, Protocol::Echo, inside, ANY, None)?;
                self.note(cx, id, End::Inside, None);
                let port = self.bindings.get(id).map(|binding| binding.port);
                replace_ident(packet, port.ok_or(DropReason::UnknownFlow)?);
            }
            // About something that came from this remote: its binding says what it was outside.
            Message::Error(quote) if *quote.source.ip() == destination => {
                let (inside, remote) = (quote.destination, quote.source);
                let id = self.bindings.of_inside(quote.protocol, inside, remote);
                let binding = id.and_then(|id| self.bindings.get(id));
                let of_peer = binding.filter(|binding| binding.peer == peer);
                let port = of_peer.ok_or(DropReason::UnknownFlow)?.port;
                let outside = self.outside(port);
                replace_quoted_end(packet, &quote, Side::Destination, outside);
            }
            Message::Error(_) | Message::EchoReply { .. } => {
                return Err(DropReason::UnsupportedProtocol);
            }
        }
        self.check_fragmentation(cx, peer, packet)?;
        replace_address(packet, Side::Source, own);
        take_hop(packet);
        if self.push_in_fragments(packet) {
            Ok(())
        } else {
            Err(DropReason::SendFailed)
        }
    }

    /// Tells a peer whose packet is too long for the network and must not be cut
    /// (RFC 1191, section 4).
    fn check_fragmentation<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let mtu = self.settings.mtu;
        if packet.len() <= usize::from(mtu) || packet[6] & 0x40 == 0 {
            return Ok(());
        }
        let parsed = Parsed::new(packet)?;
        cx.answer_too_big(peer, &parsed, mtu);
        Err(DropReason::PacketTooBig)
    }

    pub(super) fn push_in_fragments(&mut self, packet: &[u8]) -> bool {
        let mut sent = true;
        let (frames, scratch) = (&mut self.frames, &mut self.scratch);
        fragments(packet, usize::from(self.settings.mtu), scratch, |piece| {
            sent &= frames.push(piece);
        });
        sent
    }

    /// The smaller of the MTUs on both sides of the gateway.
    pub(super) fn narrower<S: Session>(&self, cx: &mut Context<'_, S>, peer: PeerIndex) -> u16 {
        let tunnel = cx.peers.get(peer).map_or(u16::MAX, |peer| peer.spec.mtu);
        tunnel.min(self.settings.mtu)
    }

    pub(super) fn is_own(&self, address: Ipv4Addr) -> bool {
        address == self.settings.address
    }
}
