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

use crate::context::Context;
use crate::echo::EchoMappings;
use crate::nat::Nat;
use crate::output::{Command, EchoMapping, Output, TcpFlow, UdpMapping};
use crate::peers::{PeerIndex, PeerReport, PeerSpec, Peers};
use crate::policy::EgressPolicy;
use crate::reassembly::Reassembly;
use crate::session::{Interface, Session};
use crate::shard::{Handover, Others, Shard};
use crate::tcp::{ConnectFailure, TcpFlows};
use crate::transmit::{Endpoint, Transmit};
use crate::udp::UdpMappings;
use crate::{
    DropCounters, DropReason, Frame, Limits, PortRefusal, RawSettings, Received, Transport,
};

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

mod packets;

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
    /// How packets leave.
    pub way_out: WayOut,
    /// Which of the gateways beside each other this is.
    pub shard: Shard,
    /// For sequence numbers and identifications; from the system's random source.
    pub seed: [u8; 32],
}

/// How packets of peers leave the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayOut {
    /// Through the system's sockets: TCP is terminated here. `echo`: the system lets us send pings.
    Sockets {
        /// Whether pings can be sent.
        echo: bool,
    },
    /// As packets with another address and port: TCP stays end to end.
    Raw(RawSettings),
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
    others: Others,
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
    nat: Option<Nat>,
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

impl<I: Interface> Gateway<I> {
    /// A gateway without peers.
    pub fn new(interface: I, settings: Settings) -> Self {
        let [ipv4, ipv6] = settings.networks.gateway();
        let (IpAddr::V4(gateway), IpAddr::V6(gateway_ipv6)) = (ipv4, ipv6) else {
            unreachable!("TunnelNetworks pairs an IPv4 with an IPv6 network");
        };
        let (echo_available, nat) = match settings.way_out {
            WayOut::Sockets { echo } => (echo, None),
            WayOut::Raw(raw) => (false, Some(Nat::new(raw))),
        };
        Self {
            interface,
            peers: Peers::default(),
            others: Others::new(settings.shard),
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
            echo_available,
            nat,
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

    /// Makes `wanted` the set of peers, of which this gateway serves its share. Peers that stay as
    /// they are notice nothing; flows of the others end.
    pub fn set_peers(&mut self, now: Instant, mut wanted: Vec<PeerSpec>) {
        self.others.keep_own(&mut wanted);
        for index in self.peers.outdated(&wanted) {
            let cx = context!(self, now);
            self.tcp.remove_peer(cx, index);
            self.udp.remove_peer(cx, index);
            self.echo.remove_peer(cx, index);
            if let Some(nat) = &mut self.nat {
                nat.remove_peer(cx, index);
            }
            self.peers.remove(index);
        }
        for spec in wanted {
            if self.peers.index_of_key(&spec.public_key).is_none() {
                self.peers
                    .insert(&self.interface, self.others.shard(), spec);
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
        match &self.nat {
            Some(nat) => nat.counts(),
            None => FlowCounts {
                tcp: self.tcp.len(),
                udp: self.udp.len(),
                icmp: self.echo.len(),
            },
        }
    }

    // ---- input from peers ----

    /// Takes a datagram that arrived from `source`. Call [`Self::flush`] after a batch of them.
    pub fn handle_datagram(&mut self, now: Instant, source: Endpoint, datagram: &[u8]) {
        if let Err(reason) = self.take_datagram(now, source, datagram) {
            self.output.drop(reason);
        }
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
        self.tcp.send(&self.limits, now, flow, fill)
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

    /// A packet has arrived from the network for the NAT's address. Packets of no flow are ignored:
    /// they may belong to the system's own sockets.
    pub fn handle_frame(&mut self, now: Instant, packet: &mut [u8], received: Received) {
        if let Some(nat) = &mut self.nat {
            nat.handle_frame(context!(self, now), packet, received);
        }
    }

    /// A port could not be held: what was bound to it ends.
    pub fn handle_port_refused(
        &mut self,
        now: Instant,
        transport: Transport,
        port: u16,
        why: PortRefusal,
    ) {
        if let Some(nat) = &mut self.nat {
            nat.handle_port_refused(context!(self, now), transport, port, why);
        }
    }

    /// The system refused to send a datagram.
    pub fn count_send_failure(&mut self) {
        self.output.drop(DropReason::SendFailed);
    }

    /// Takes what another gateway has handed over. Call [`Self::flush`] after a batch of them.
    pub fn handle_handover(&mut self, now: Instant, handover: Handover) {
        match handover {
            Handover::Datagram { source, bytes } => self.handle_datagram(now, source, &bytes),
            Handover::Packet(packet) => {
                if let Err(reason) = self.deliver(now, &packet) {
                    self.output.drop(reason);
                }
            }
        }
    }

    // ---- time ----

    /// Runs everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(context!(self, now));
        self.udp.handle_timeout(context!(self, now));
        self.echo.handle_timeout(context!(self, now));
        if let Some(nat) = &mut self.nat {
            nat.handle_timeout(context!(self, now));
        }
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
                    sent = peer.session.handle_tick(now, out).unwrap_or(0);
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
            self.nat.as_ref().and_then(Nat::next_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- output ----

    /// Finishes a batch of inputs: acknowledgements, data and commands that it made due.
    pub fn flush(&mut self, now: Instant) {
        self.tcp.flush(context!(self, now));
        if let Some(nat) = &mut self.nat {
            nat.flush(context!(self, now));
        }
    }

    /// The next datagrams to send. The ones before are given back with this call.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.output.transmits.pop()
    }

    /// The next packet for the network, after the commands that open its port. The one before is
    /// given back with this call.
    pub fn poll_frame(&mut self) -> Option<Frame<'_>> {
        self.nat.as_mut()?.poll_frame()
    }

    /// The next thing to hand over, and to which gateway.
    pub fn poll_handover(&mut self) -> Option<(usize, Handover)> {
        self.others.next()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command<'_>> {
        if self.output.commands.is_empty()
            && let Some(flow) = self.tcp.next_turn()
        {
            return Some(Command::TcpReady { flow });
        }
        self.output.commands.pop()
    }
}
