//! From a peer's datagram to a packet to a flow.

use std::time::Instant;

use smoltcp::wire::IpProtocol;

use super::{Gateway, LOAD_PERIOD, MAX_DATAGRAM, TICK};
use crate::DropReason;
use crate::context::Context;
use crate::packet::{
    Parsed, Unreachable, Version, echo_reply, echo_request, no_route, take_hop, version,
};
use crate::peers::PeerIndex;
use crate::policy::Refusal;
use crate::session::{Interface, Opened, Sender, Session};
use crate::shard::{Handover, Shard};
use crate::transmit::Endpoint;

impl<I: Interface> Gateway<I> {
    pub(super) fn take_datagram(
        &mut self,
        now: Instant,
        source: Endpoint,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(DropReason::MalformedDatagram);
        }
        if self
            .load_since
            .is_none_or(|since| now.duration_since(since) >= LOAD_PERIOD)
        {
            self.load_since = Some(now);
            self.interface.handle_second();
        }
        let mut cookie = [0; crate::session::MIN_OUTPUT];
        let index = match self
            .interface
            .identify(source.address.ip(), datagram, &mut cookie)?
        {
            Sender::Initiator(key) => match self.peers.index_of_key(&key) {
                Some(index) => index,
                None => {
                    let owner = self.others.of_key(&key).ok_or(DropReason::UnknownPeer)?;
                    return self.hand_over(owner, source, datagram);
                }
            },
            Sender::Index(index) => {
                let (shard, index) = Shard::of_session_index(index);
                if self.others.has(shard) {
                    return self.hand_over(shard, source, datagram);
                }
                if shard != self.others.shard().index() {
                    return Err(DropReason::UnknownSession);
                }
                index
            }
            Sender::Unproven(reply) => {
                self.output.transmits.push(source, reply.len(), |out| {
                    out[..reply.len()].copy_from_slice(reply);
                    reply.len()
                });
                return Err(DropReason::UnderLoad);
            }
        };
        let mut opened = std::mem::take(&mut self.opened);
        let result = self.open(now, source, datagram, index, &mut opened);
        self.opened = opened;
        result
    }

    fn hand_over(
        &mut self,
        to: usize,
        source: Endpoint,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let bytes = datagram.to_vec();
        self.others
            .hand_over(to, Handover::Datagram { source, bytes })
    }

    /// Brings a packet that another gateway has let pass to the peer it is for.
    pub(super) fn deliver(&mut self, now: Instant, packet: &[u8]) -> Result<(), DropReason> {
        let destination = Parsed::new(packet)?.destination;
        let cx = context!(self, now);
        let peer = cx.peers.index_of_address(destination.into());
        cx.send(peer.ok_or(DropReason::PeerNotConnected)?, packet);
        Ok(())
    }

    fn open(
        &mut self,
        now: Instant,
        source: Endpoint,
        datagram: &[u8],
        index: PeerIndex,
        buffer: &mut [u8],
    ) -> Result<(), DropReason> {
        let peer = self.peers.get(index).ok_or(DropReason::UnknownSession)?;
        let opened = match peer
            .session
            .open(now, source.address.ip(), datagram, buffer)
        {
            Opened::Dropped(reason) => return Err(reason),
            opened => opened,
        };
        peer.touch(now);
        peer.rx_bytes += datagram.len() as u64;
        // Only an authentic datagram moves the endpoint (whitepaper, section 2.1).
        peer.endpoint = Some(source);
        if self.next_tick.is_none() {
            self.next_tick = Some(now + TICK);
        }
        let packet = match opened {
            Opened::Dropped(reason) => return Err(reason),
            Opened::Reply(reply) => {
                peer.handshake_pending = true;
                peer.tx_bytes += reply.len() as u64;
                let output = &mut self.output;
                output.transmits.push(source, reply.len(), |out| {
                    out[..reply.len()].copy_from_slice(reply);
                    reply.len()
                });
                self.send_waiting(index);
                return Ok(());
            }
            Opened::Keepalive => None,
            Opened::Packet(packet) => Some(packet),
        };
        if std::mem::take(&mut peer.handshake_pending) {
            peer.latest_handshake = Some(now);
        }
        let Some(packet) = packet else { return Ok(()) };
        let (ipv4, ipv6) = (peer.spec.ipv4, peer.spec.ipv6);
        match version(packet)? {
            Version::V4 { source } if source == ipv4 => {
                self.handle_packet(now, index, packet)?;
                // A device that only shouts into the void (multicast, IPv6 solicitations) is idle.
                if let Some(peer) = self.peers.get(index) {
                    peer.active_at = Some(now);
                }
                Ok(())
            }
            Version::V6 { source } if source == ipv6 => {
                if let Some(answer) = no_route(&mut self.scratch, self.gateway_ipv6, packet) {
                    self.output.send(now, peer, answer);
                }
                Err(DropReason::Ipv6Unreachable)
            }
            _ => Err(DropReason::SpoofedSource),
        }
    }

    /// Sends what was kept back until the session existed.
    fn send_waiting(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        let Some(endpoint) = peer.endpoint else {
            return;
        };
        loop {
            let mut sent = 0;
            self.output
                .transmits
                .push(endpoint, usize::from(popup_model::MAX_MTU), |out| {
                    sent = peer.session.seal_waiting(out).unwrap_or(0);
                    sent
                });
            peer.tx_bytes += sent as u64;
            if sent == 0 {
                return;
            }
        }
    }

    fn handle_packet(
        &mut self,
        now: Instant,
        index: PeerIndex,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        let packet = Parsed::new(bytes)?;
        if packet.is_source_routed()? {
            context!(self, now).answer_unreachable(index, &packet, Unreachable::Prohibited);
            return Err(DropReason::EgressRefused);
        }
        if packet.destination == self.gateway {
            return self.handle_own_packet(now, index, &packet);
        }
        if self.network.contains(&packet.destination) {
            return self.handle_peer_to_peer(now, index, bytes);
        }
        let cx = context!(self, now);
        match self.policy.check(packet.destination) {
            Ok(()) => {}
            Err(Refusal::Multicast) => return Err(DropReason::Multicast),
            Err(Refusal::Never | Refusal::ByDefault) => {
                cx.answer_unreachable(index, &packet, Unreachable::Prohibited);
                return Err(DropReason::EgressRefused);
            }
        }
        if packet.ttl <= 1 {
            cx.answer_time_exceeded(index, &packet);
            return Err(DropReason::TtlExceeded);
        }
        match packet.fragment {
            None if self.nat.is_some() => {
                let len = packet.bytes.len();
                self.translate(now, index, &mut bytes[..len])
            }
            None => self.handle_whole_packet(now, index, &packet),
            Some(fragment) => match self.reassembly.handle(now, &packet, fragment)? {
                Some(mut whole) if self.nat.is_some() => self.translate(now, index, &mut whole),
                Some(whole) => self.handle_whole_packet(now, index, &Parsed::new(&whole)?),
                None => Ok(()),
            },
        }
    }

    fn translate(
        &mut self,
        now: Instant,
        index: PeerIndex,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        match &mut self.nat {
            Some(nat) => nat.handle_packet(context!(self, now), index, packet),
            None => Ok(()),
        }
    }

    fn handle_whole_packet(
        &mut self,
        now: Instant,
        index: PeerIndex,
        packet: &Parsed<'_>,
    ) -> Result<(), DropReason> {
        let cx = context!(self, now);
        match packet.protocol {
            IpProtocol::Tcp => self.tcp.handle_segment(cx, index, packet),
            IpProtocol::Udp => self.udp.handle_datagram(cx, index, packet),
            IpProtocol::Icmp => {
                let echo = echo_request(packet)?;
                if !self.echo_available {
                    cx.answer_unreachable(index, packet, Unreachable::Protocol);
                    return Err(DropReason::EchoUnavailable);
                }
                self.echo.handle_request(cx, index, packet, echo)
            }
            _ => {
                cx.answer_unreachable(index, packet, Unreachable::Protocol);
                Err(DropReason::UnsupportedProtocol)
            }
        }
    }

    /// The gateway's own address answers ping, and refuses everything else.
    fn handle_own_packet(
        &mut self,
        now: Instant,
        index: PeerIndex,
        packet: &Parsed<'_>,
    ) -> Result<(), DropReason> {
        let whole;
        let packet = match packet.fragment {
            None => packet,
            Some(fragment) => match self.reassembly.handle(now, packet, fragment)? {
                Some(bytes) => {
                    whole = bytes;
                    &Parsed::new(&whole)?
                }
                None => return Ok(()),
            },
        };
        let cx = context!(self, now);
        match packet.protocol {
            IpProtocol::Icmp => {
                let echo = echo_request(packet)?;
                let identification = cx.random() as u16;
                let mut buffer = Vec::new();
                if let Some(reply) = echo_reply(
                    &mut buffer,
                    self.gateway,
                    packet.source,
                    echo,
                    identification,
                ) {
                    context!(self, now).send(index, reply);
                }
                Ok(())
            }
            IpProtocol::Tcp => {
                cx.answer_reset(index, packet);
                Err(DropReason::NoService)
            }
            _ => {
                cx.answer_unreachable(index, packet, Unreachable::Port);
                Err(DropReason::NoService)
            }
        }
    }

    fn handle_peer_to_peer(
        &mut self,
        now: Instant,
        index: PeerIndex,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        let packet = Parsed::new(bytes)?;
        let cx = context!(self, now);
        if !self.peer_to_peer {
            cx.answer_unreachable(index, &packet, Unreachable::Prohibited);
            return Err(DropReason::PeerToPeerRefused);
        }
        let other = cx.peers.index_of_address(packet.destination.into());
        let elsewhere = self.others.of_address(packet.destination);
        if other.is_none() && elsewhere.is_none() {
            cx.answer_unreachable(index, &packet, Unreachable::Host);
            return Err(DropReason::PeerNotConnected);
        }
        if packet.ttl <= 1 {
            cx.answer_time_exceeded(index, &packet);
            return Err(DropReason::TtlExceeded);
        }
        let len = packet.bytes.len();
        take_hop(&mut bytes[..len]);
        match (other, elsewhere) {
            (Some(other), _) => cx.send(other, &bytes[..len]),
            (None, Some(owner)) => {
                let packet = Handover::Packet(bytes[..len].to_vec());
                self.others.hand_over(owner, packet)?;
            }
            (None, None) => {}
        }
        Ok(())
    }
}
