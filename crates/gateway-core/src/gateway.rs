//! The gateway: from a datagram to a packet to a flow, and back.
//!
//! # Theory of operation
//!
//! A datagram is first given to its peer: a handshake by the public key inside, anything else by
//! the session index. What the peer's session opens is an inner packet. Its source must be one of
//! the peer's own addresses (cryptokey routing), its destination must pass the egress policy, and
//! then it belongs to TCP, UDP or ping. Whatever goes no further is counted with its reason, and
//! answered where the sender can use an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use popup_model::{PublicKey, TunnelNetworks};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use smoltcp::wire::IpProtocol;

use crate::context::Context;
use crate::echo::EchoMappings;
use crate::output::{Command, EchoMapping, Output, TcpFlow, UdpMapping};
use crate::packet::{
    Parsed, Unreachable, Version, decrement_ttl, echo_reply, echo_request, no_route, version,
};
use crate::peers::{PeerIndex, PeerReport, PeerSpec, Peers};
use crate::policy::{EgressPolicy, Refusal};
use crate::reassembly::Reassembly;
use crate::session::{Interface, Opened, Sender, Session};
use crate::tcp::{ConnectFailure, TcpFlows};
use crate::transmit::{Endpoint, Transmit};
use crate::udp::UdpMappings;
use crate::{DropCounters, DropReason, Limits};

/// How often the sessions' timers run.
const TICK: Duration = Duration::from_millis(250);

/// The period over which handshakes are counted to tell load.
const LOAD_PERIOD: Duration = Duration::from_secs(1);

/// Largest datagram: a UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// What the gateway is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// The networks inside the tunnel.
    pub networks: TunnelNetworks,
    /// Where peers may go.
    pub policy: EgressPolicy,
    /// How much they may use.
    pub limits: Limits,
    /// Whether peers may reach each other.
    pub peer_to_peer: bool,
    /// Whether the system lets us send pings.
    pub echo: bool,
    /// For sequence numbers and identifications; from the system's random source.
    pub seed: [u8; 32],
}

/// Live flows by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// TCP connections.
    pub tcp: usize,
    /// UDP mappings.
    pub udp: usize,
    /// Echo mappings.
    pub icmp: usize,
}

/// The gateway's core, for any WireGuard implementation `I`.
pub struct Gateway<I: Interface> {
    interface: I,
    peers: Peers<I::Session>,
    tcp: TcpFlows,
    udp: UdpMappings,
    echo: EchoMappings,
    reassembly: Reassembly,
    policy: EgressPolicy,
    limits: Limits,
    network: Ipv4Net,
    gateway: Ipv4Addr,
    gateway_ipv6: Ipv6Addr,
    peer_to_peer: bool,
    echo_available: bool,
    output: Output,
    rng: StdRng,
    flows: usize,
    next_tick: Option<Instant>,
    load_since: Option<Instant>,
    opened: Vec<u8>,
    scratch: Vec<u8>,
}

impl<I: Interface> std::fmt::Debug for Gateway<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Gateway({}, {:?})",
            self.interface.public_key(),
            self.flow_counts()
        )
    }
}

/// Borrows the parts of the gateway that a flow table needs, beside the table itself.
macro_rules! context {
    ($gateway:ident, $now:expr) => {
        &mut Context {
            now: $now,
            peers: &mut $gateway.peers,
            output: &mut $gateway.output,
            limits: &$gateway.limits,
            rng: &mut $gateway.rng,
            gateway: $gateway.gateway,
            flows: &mut $gateway.flows,
            scratch: &mut $gateway.scratch,
        }
    };
}

impl<I: Interface> Gateway<I> {
    /// A gateway without peers.
    pub fn new(interface: I, settings: Settings) -> Self {
        let [ipv4, ipv6] = settings.networks.gateway();
        let (IpAddr::V4(gateway), IpAddr::V6(gateway_ipv6)) = (ipv4, ipv6) else {
            unreachable!("TunnelNetworks pairs an IPv4 with an IPv6 network");
        };
        Self {
            interface,
            peers: Peers::default(),
            tcp: TcpFlows::default(),
            udp: UdpMappings::default(),
            echo: EchoMappings::default(),
            reassembly: Reassembly::default(),
            policy: settings.policy,
            limits: settings.limits,
            network: settings.networks.ipv4(),
            gateway,
            gateway_ipv6,
            peer_to_peer: settings.peer_to_peer,
            echo_available: settings.echo,
            output: Output::default(),
            rng: StdRng::from_seed(settings.seed),
            flows: 0,
            next_tick: None,
            load_since: None,
            opened: vec![0; MAX_DATAGRAM],
            scratch: Vec::new(),
        }
    }

    // ---- configuration ----

    /// Makes `wanted` the set of peers. Peers that stay as they are notice nothing; flows of the
    /// others end.
    pub fn set_peers(&mut self, now: Instant, wanted: Vec<PeerSpec>) {
        for index in self.peers.outdated(&wanted) {
            let cx = context!(self, now);
            self.tcp.remove_peer(cx, index);
            self.udp.remove_peer(cx, index);
            self.echo.remove_peer(cx, index);
            self.peers.remove(index);
        }
        for spec in wanted {
            if self.peers.index_of_key(&spec.public_key).is_none() {
                self.peers.insert(&self.interface, spec);
            }
        }
    }

    /// Adds what was counted before a restart.
    pub fn add_to_counters(&mut self, peer: &PublicKey, rx_bytes: u64, tx_bytes: u64) {
        let index = self.peers.index_of_key(peer);
        if let Some(peer) = index.and_then(|index| self.peers.get(index)) {
            peer.rx_bytes += rx_bytes;
            peer.tx_bytes += tx_bytes;
        }
    }

    /// Says which addresses are the host's own, now.
    pub fn set_own_addresses(&mut self, own: impl IntoIterator<Item = Ipv4Addr>) {
        self.policy.set_own_addresses(own);
    }

    // ---- reports ----

    /// What is known of each peer.
    pub fn peers(&self) -> Vec<PeerReport> {
        self.peers.reports()
    }

    /// What has been dropped, and why.
    pub fn drops(&self) -> &DropCounters {
        &self.output.drops
    }

    /// How many flows are alive.
    pub fn flow_counts(&self) -> FlowCounts {
        FlowCounts {
            tcp: self.tcp.len(),
            udp: self.udp.len(),
            icmp: self.echo.len(),
        }
    }

    // ---- input from peers ----

    /// Takes a datagram that arrived from `source`. Call [`Self::flush`] after a batch of them.
    pub fn handle_datagram(&mut self, now: Instant, source: Endpoint, datagram: &[u8]) {
        if let Err(reason) = self.take_datagram(now, source, datagram) {
            self.output.drop(reason);
        }
    }

    fn take_datagram(
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
            Sender::Initiator(key) => self
                .peers
                .index_of_key(&key)
                .ok_or(DropReason::UnknownPeer)?,
            Sender::Index(index) => PeerIndex(index),
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

    fn open(
        &mut self,
        now: Instant,
        source: Endpoint,
        datagram: &[u8],
        index: PeerIndex,
        buffer: &mut [u8],
    ) -> Result<(), DropReason> {
        let peer = self.peers.get(index).ok_or(DropReason::UnknownSession)?;
        let opened = match peer.session.open(source.address.ip(), datagram, buffer) {
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
                    self.output.send(peer, answer);
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
            None => self.handle_whole_packet(now, index, &packet),
            Some(fragment) => match self.reassembly.handle(now, &packet, fragment)? {
                Some(whole) => self.handle_whole_packet(now, index, &Parsed::new(&whole)?),
                None => Ok(()),
            },
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
        let Some(other) = cx.peers.index_of_address(packet.destination.into()) else {
            cx.answer_unreachable(index, &packet, Unreachable::Host);
            return Err(DropReason::PeerNotConnected);
        };
        if packet.ttl <= 1 {
            cx.answer_time_exceeded(index, &packet);
            return Err(DropReason::TtlExceeded);
        }
        let len = packet.bytes.len();
        decrement_ttl(&mut bytes[..len]);
        cx.send(other, &bytes[..len]);
        Ok(())
    }

    // ---- input from outside ----

    /// A connect has succeeded.
    pub fn handle_tcp_connected(&mut self, now: Instant, flow: TcpFlow) {
        self.tcp.handle_connected(context!(self, now), flow);
    }

    /// A connect has failed.
    pub fn handle_tcp_failed(&mut self, now: Instant, flow: TcpFlow, failure: ConnectFailure) {
        self.tcp.fail(context!(self, now), flow, failure);
    }

    /// The outside has said its last.
    pub fn handle_tcp_finished(&mut self, flow: TcpFlow) {
        self.tcp.handle_outside_finished(flow);
    }

    /// The outside has broken off.
    pub fn handle_tcp_reset(&mut self, flow: TcpFlow) {
        self.tcp.handle_outside_reset(flow);
    }

    /// Lends what the peer has sent on `flow` to `take`, which says how much of it is written.
    /// `None` when there is nothing now.
    pub fn tcp_receive(
        &mut self,
        flow: TcpFlow,
        take: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.tcp.receive(flow, take)
    }

    /// Lends room for what the outside sends on `flow` to `fill`, which says how much of it is
    /// filled. `None` when there is none now; [`Command::TcpReady`] follows when there is.
    pub fn tcp_send(
        &mut self,
        now: Instant,
        flow: TcpFlow,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<usize> {
        self.tcp.send(now, flow, fill)
    }

    /// A datagram has arrived at a mapping's socket.
    pub fn handle_udp(
        &mut self,
        now: Instant,
        mapping: UdpMapping,
        source: SocketAddrV4,
        payload: &[u8],
    ) {
        self.udp
            .handle_received(context!(self, now), mapping, source, payload);
    }

    /// A mapping's socket could not be opened, or has failed.
    pub fn handle_udp_failed(&mut self, now: Instant, mapping: UdpMapping) {
        self.udp.handle_failed(context!(self, now), mapping);
    }

    /// A ping has been answered.
    pub fn handle_echo(
        &mut self,
        now: Instant,
        mapping: EchoMapping,
        source: Ipv4Addr,
        sequence: u16,
        data: &[u8],
    ) {
        self.echo
            .handle_reply(context!(self, now), mapping, source, sequence, data);
    }

    /// A ping socket could not be opened, or has failed.
    pub fn handle_echo_failed(&mut self, now: Instant, mapping: EchoMapping) {
        self.echo.handle_failed(context!(self, now), mapping);
    }

    /// The system refused to send a datagram.
    pub fn count_send_failure(&mut self) {
        self.output.drop(DropReason::SendFailed);
    }

    // ---- time ----

    /// Runs everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(context!(self, now));
        self.udp.handle_timeout(context!(self, now));
        self.echo.handle_timeout(context!(self, now));
        if self.next_tick.is_some_and(|at| at <= now) {
            self.tick_sessions(now);
        }
    }

    fn tick_sessions(&mut self, now: Instant) {
        let alive: Vec<PeerIndex> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.timers_run(now))
            .map(|(index, _)| index)
            .collect();
        for index in &alive {
            let Some(peer) = self.peers.get(*index) else {
                continue;
            };
            let Some(endpoint) = peer.endpoint else {
                continue;
            };
            let mut sent = 0;
            self.output
                .transmits
                .push(endpoint, crate::session::MIN_OUTPUT, |out| {
                    sent = peer.session.handle_tick(out).unwrap_or(0);
                    sent
                });
            peer.tx_bytes += sent as u64;
        }
        self.next_tick = (!alive.is_empty()).then_some(now + TICK);
    }

    /// When [`Self::handle_timeout`] is due if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.next_tick,
            self.tcp.next_timeout(),
            self.udp.next_timeout(),
            self.echo.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- output ----

    /// Finishes a batch of inputs: acknowledgements, data and commands that it made due.
    pub fn flush(&mut self, now: Instant) {
        self.tcp.flush(context!(self, now));
    }

    /// The next datagrams to send. The ones before are given back with this call.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.output.transmits.pop()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command<'_>> {
        self.output.commands.pop()
    }
}
