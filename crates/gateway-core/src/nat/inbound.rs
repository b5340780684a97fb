//! From the network to a peer.

use smoltcp::wire::IpProtocol;

use super::bindings::{ANY, BindingId, End};
use super::icmp::{Message, Quote, read, replace_ident, replace_quoted_end};
use super::rewrite::{Side, clamp_segment_size, replace_address, replace_end};
use super::{Nat, Received};
use crate::DropReason;
use crate::context::Context;
use crate::packet::{Layout, Parsed, Protocol, TcpFlags, cut, finish_checksum, take_hop, too_big};
use crate::session::Session;

impl Nat {
    /// Takes a packet from the network.
    pub(crate) fn handle_frame<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        packet: &mut [u8],
        received: Received,
    ) {
        if let Err(reason) = self.take_frame(cx, packet, received) {
            cx.output.drop(reason);
        }
    }

    fn take_frame<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        packet: &mut [u8],
        received: Received,
    ) -> Result<(), DropReason> {
        let parsed = Parsed::new(packet)?;
        if !self.is_own(parsed.destination) {
            return Ok(());
        }
        let length = parsed.bytes.len();
        let Some(fragment) = parsed.fragment else {
            return self.take_whole(cx, &mut packet[..length], received);
        };
        match self.reassembly.handle(cx.now, &parsed, fragment)? {
            Some(mut whole) => self.take_whole(cx, &mut whole, Received::default()),
            None => Ok(()),
        }
    }

    fn take_whole<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        packet: &mut [u8],
        received: Received,
    ) -> Result<(), DropReason> {
        match IpProtocol::from(packet[9]) {
            IpProtocol::Tcp | IpProtocol::Udp => self.take_in_turn(cx, packet, received),
            IpProtocol::Icmp => self.take_message(cx, packet),
            _ => Ok(()),
        }
    }

    /// Takes a segment now, or when it is its peer's turn.
    fn take_in_turn<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        packet: &mut [u8],
        received: Received,
    ) -> Result<(), DropReason> {
        let layout = Layout::new(packet)?;
        let id = self.binding_of(&layout)?;
        self.backlog.begin_round(cx.now);
        if self.backlog.passes(packet.len()) {
            return self.take_segment(cx, id, layout, packet, received);
        }
        let peer = self.bindings.get(id).map(|binding| binding.peer);
        let peer = peer.ok_or(DropReason::Unsolicited)?;
        match self.backlog.push(peer, packet, received) {
            true => Ok(()),
            false => Err(DropReason::Overload),
        }
    }

    /// Takes what has waited, as far as the round goes.
    pub(super) fn take_backlog<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        self.backlog.begin_round(cx.now);
        while let Some(mut waiting) = self.backlog.pop() {
            let (packet, received) = (&mut waiting.packet[..], waiting.received);
            let taken = Layout::new(packet).and_then(|layout| {
                let id = self.binding_of(&layout)?;
                self.take_segment(cx, id, layout, packet, received)
            });
            if let Err(reason) = taken {
                cx.output.drop(reason);
            }
            self.backlog.recycle(waiting);
        }
    }

    fn binding_of(&self, layout: &Layout) -> Result<BindingId, DropReason> {
        let port = layout.destination.port();
        let id = self
            .bindings
            .of_outside(layout.protocol, port, layout.source);
        id.ok_or(DropReason::Unsolicited)
    }

    fn take_segment<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: BindingId,
        layout: Layout,
        packet: &mut [u8],
        received: Received,
    ) -> Result<(), DropReason> {
        self.note(cx, id, End::Outside, layout.flags);
        self.check_length(cx, id, packet, &layout, received)?;
        let Some(binding) = self.bindings.get(id) else {
            return Err(DropReason::Unsolicited);
        };
        let (peer, inside) = (binding.peer, binding.inside);
        if packet[8] <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let partial = received.partial_checksum;
        replace_end(packet, &layout, Side::Destination, inside, partial);
        take_hop(packet);
        let layout = Layout {
            destination: inside,
            ..layout
        };
        if layout.flags.is_some_and(|flags| flags.has(TcpFlags::SYN)) {
            let mtu = self.narrower(cx, peer);
            clamp_segment_size(packet, &layout, mtu, partial);
        }
        if let Some(size) = received.segment_size {
            let entry = cx.peers.get(peer).ok_or(DropReason::PeerNotConnected)?;
            let (now, output) = (cx.now, &mut *cx.output);
            cut(packet, &layout, size.into(), |segment| {
                output.send(now, entry, segment);
            });
            return Ok(());
        }
        if partial {
            finish_checksum(packet, &layout);
        }
        cx.send(peer, packet);
        Ok(())
    }

    /// Tells a remote whose packet is too long for the tunnel and must not be cut.
    fn check_length<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: BindingId,
        packet: &mut [u8],
        layout: &Layout,
        received: Received,
    ) -> Result<(), DropReason> {
        let peer = self
            .bindings
            .get(id)
            .and_then(|binding| cx.peers.get(binding.peer));
        let mtu = peer.ok_or(DropReason::PeerNotConnected)?.spec.mtu;
        let longest = match received.segment_size {
            Some(size) => packet.len().min(layout.headers + usize::from(size)),
            None => packet.len(),
        };
        let may_be_cut = packet[6] & 0x40 == 0;
        if longest <= usize::from(mtu) || may_be_cut {
            return Ok(());
        }
        if received.partial_checksum && received.segment_size.is_none() {
            finish_checksum(packet, layout);
        }
        let parsed = Parsed::new(packet)?;
        let mut buffer = std::mem::take(cx.scratch);
        if too_big(&mut buffer, self.settings.address, &parsed, mtu).is_some() {
            self.frames.push(&buffer);
        }
        *cx.scratch = buffer;
        Err(DropReason::PacketTooBig)
    }

    fn take_message<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let id = match read(packet) {
            Some(Message::EchoReply { ident }) => self.take_echo_reply(packet, ident)?,
            Some(Message::Error(quote)) => self.take_error(packet, &quote)?,
            // The system answers pings of its own address itself.
            Some(Message::EchoRequest { .. }) | None => return Ok(()),
        };
        let binding = self.bindings.get(id).ok_or(DropReason::Unsolicited)?;
        if packet[8] <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        replace_address(packet, Side::Destination, *binding.inside.ip());
        take_hop(packet);
        cx.send(binding.peer, packet);
        Ok(())
    }

    fn take_echo_reply(&mut self, packet: &mut [u8], ident: u16) -> Result<BindingId, DropReason> {
        // The system's own pings are answered too.
        let id = self.bindings.of_outside(Protocol::Echo, ident, ANY);
        let id = id.ok_or(DropReason::Unsolicited)?;
        if let Some(binding) = self.bindings.get(id) {
            replace_ident(packet, binding.inside.port());
        }
        Ok(id)
    }

    /// An error about something that a peer has sent (RFC 5508, REQ-4).
    fn take_error(&mut self, packet: &mut [u8], quote: &Quote) -> Result<BindingId, DropReason> {
        if !self.is_own(*quote.source.ip()) {
            return Err(DropReason::Unsolicited);
        }
        let (port, remote) = (quote.source.port(), quote.destination);
        let id = self.bindings.of_outside(quote.protocol, port, remote);
        let id = id.ok_or(DropReason::Unsolicited)?;
        if let Some(binding) = self.bindings.get(id) {
            replace_quoted_end(packet, quote, Side::Source, binding.inside);
        }
        Ok(id)
    }
}
