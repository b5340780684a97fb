//! The `raw` way out's sockets: frames by AF_PACKET, with CAP_NET_RAW alone.
//!
//! # Theory of operation
//!
//! [`RawSockets::open`] does what needs the capability, before the process gives it up.
//! [`RawSockets::prepare`] then chooses a block of ports that the system gives to nobody, and tests
//! whether connections by this way survive. From then on the packet loop reads frames for those
//! ports from an AF_PACKET socket, and writes the core's frames to the neighbour they are for.
//! Ports in use are held by silent sockets, or the system would answer what arrives for them.

mod filter;
mod held_ports;
mod netlink;
mod network;
mod next_hop;
mod packet_socket;
mod port_block;
mod queues;
mod self_test;
mod syscalls;
mod virtio;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use popup_gateway_core::{Frame, Limits, RawSettings, Received, Shard, Transport};
use socket2::{Domain, Protocol, Socket, Type};

use held_ports::HeldPorts;
pub(super) use held_ports::refusal;
use netlink::Netlink;
use network::{Network, NoWayOut};
use next_hop::{Hop, NextHops};
use packet_socket::PacketSocket;
pub(crate) use self_test::Proof;

/// Most ports of each transport that are held at once; TCP ports are shared by connections to
/// different remotes.
const MOST_HELD: usize = 8_192;

/// Ports of each transport that a loop may try to hold however few descriptors there are.
const FEWEST_HELD: usize = 16;

/// Why packets cannot leave this way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("no CAP_NET_RAW")]
    NotAllowed,
    #[error("{operation}: {source}")]
    System {
        operation: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Network(#[from] NoWayOut),
    #[error("the system gives nearly every port to other sockets (net.ipv4.ip_local_port_range)")]
    NoPorts,
    #[error("the self-test has failed: {0}")]
    SelfTest(&'static str),
}

impl Unavailable {
    fn system(operation: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::System { operation, source },
        }
    }
}

/// What needed the capability. Nothing arrives yet.
pub(crate) struct RawSockets {
    frames: PacketSocket,
    packets: Socket,
    hops: NextHops,
}

impl RawSockets {
    /// Opens the sockets on the interface that leads out.
    pub(crate) fn open() -> Result<Self, Unavailable> {
        let packets = packets_with_headers()?;
        let mut netlink = Netlink::open().map_err(NoWayOut::from)?;
        let network = Network::read(&mut netlink).map_err(NoWayOut::from)?;
        let (outside, routes) = network.way_out()?;
        let frames = PacketSocket::open(outside.index, outside.mac)?;
        Ok(Self {
            frames,
            packets,
            hops: NextHops::new(netlink, outside, routes),
        })
    }

    /// Makes the way out ready and tests it against `target`, if there is one. `taken` are ports of
    /// the gateway itself; of the others, and of `descriptors`, the loop that `shard` tells gets
    /// its share.
    pub(crate) fn prepare(
        self,
        shard: Shard,
        taken: &[u16],
        descriptors: usize,
        target: Option<SocketAddrV4>,
    ) -> Result<(RawPath, Proof), Unavailable> {
        let outside = self.hops.outside();
        let block = port_block::choose(&ports_of_others(taken)).ok_or(Unavailable::NoPorts)?;
        let descriptors = Limits::descriptors_for_flows(descriptors, shard.count());
        let settings = RawSettings {
            address: outside.address,
            mtu: outside.mtu,
            ports: port_block::share(&block, shard.index(), shard.count()),
            held_ports: (MOST_HELD.min(descriptors / 2) / shard.count()).max(FEWEST_HELD),
            trains: self.frames.takes_trains(),
        };
        tracing::info!(
            interface = outside.name,
            ports = ?settings.ports,
            held_ports = settings.held_ports,
            trains = settings.trains,
            receive_buffer = self.frames.queues.receive_bytes(),
            "packets can leave as frames"
        );
        let filter = filter::frames_for(settings.address, &settings.ports);
        self.frames
            .queues
            .take_only(&filter)
            .map_err(|error| Unavailable::system("SO_ATTACH_FILTER", error))?;
        let mut path = RawPath {
            frames: self.frames,
            packets: self.packets,
            hops: self.hops,
            held: HeldPorts::new(settings.address, settings.trains),
            settings,
        };
        let proof = self_test::run(&mut path, target)?;
        Ok((path, proof))
    }
}

/// A socket for packets with their IP header, which the system routes (raw(7)).
fn packets_with_headers() -> Result<Socket, Unavailable> {
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(raw))
        .map_err(|error| Unavailable::system("IP_HDRINCL", error))?;
    socket
        .set_nonblocking(true)
        .map_err(|error| Unavailable::system("IP_HDRINCL", error))?;
    Ok(socket)
}

fn ports_of_others(taken: &[u16]) -> Vec<std::ops::RangeInclusive<u16>> {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default()
    };
    let mut ranges = port_block::parse_taken(
        &read("ip_local_port_range"),
        &read("ip_local_reserved_ports"),
    );
    ranges.extend(taken.iter().map(|port| *port..=*port));
    ranges
}

/// The way out, in use.
pub(crate) struct RawPath {
    frames: PacketSocket,
    packets: Socket,
    hops: NextHops,
    held: HeldPorts,
    settings: RawSettings,
}

impl RawPath {
    /// What the core is to know of it.
    pub(crate) fn settings(&self) -> RawSettings {
        self.settings.clone()
    }

    pub(super) fn register(
        &self,
        registry: &mio::Registry,
        token: impl FnMut(usize) -> mio::Token,
    ) -> io::Result<()> {
        self.frames.queues.register(registry, token)
    }

    /// Notes that something has arrived at one of its sockets.
    pub(super) fn handle_readable(&mut self, number: usize) {
        self.frames.queues.handle_readable(number);
    }

    /// Lends the next packet to `take`; `None` when there is none now, otherwise its length.
    pub(super) fn receive(&mut self, take: impl FnOnce(&mut [u8], Received)) -> Option<usize> {
        self.frames.receive(take)
    }

    /// Frames that arrived faster than they were read, since the last call.
    pub(super) fn lost(&self) -> u64 {
        self.frames.queues.lost()
    }

    /// Sends a frame on its way.
    pub(super) fn send(&mut self, now: Instant, frame: &Frame<'_>) -> io::Result<()> {
        let destination = destination(frame.packet).ok_or(io::ErrorKind::InvalidInput)?;
        match self.hops.hop(now, destination) {
            Hop::To(mac) => self.frames.send(mac, frame),
            // The system's own firewall may refuse what it has not seen the beginning of.
            Hop::Confirm(mac) => match self.send_by_system(destination, frame) {
                (0, Err(_)) => self.frames.send(mac, frame),
                (_, sent) => sent,
            },
            Hop::Unknown => self.send_by_system(destination, frame).1,
        }
    }

    /// Sends a frame packet by packet: how many have been sent, and what became of the last.
    fn send_by_system(&self, destination: Ipv4Addr, frame: &Frame<'_>) -> (usize, io::Result<()>) {
        let to = SocketAddr::from((destination, 0)).into();
        let (mut count, mut sent) = (0, Ok(()));
        frame.split(|packet| {
            if sent.is_ok() {
                sent = self.packets.send_to(packet, &to).map(drop);
                count += usize::from(sent.is_ok());
            }
        });
        (count, sent)
    }

    pub(super) fn hold(&mut self, transport: Transport, port: u16) -> io::Result<()> {
        self.held.hold(transport, port)
    }

    pub(super) fn release(&mut self, transport: Transport, port: u16) {
        self.held.release(transport, port);
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(bytes.into())
}
