//! The client's side of the tunnel: an IPv4 host in user space, by smoltcp.
//!
//! Invariant: packets and time come in as arguments and packets go out through
//! [`Netstack::poll_packet`]; nothing here waits or sends.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use rand::Rng as _;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    HardwareAddress, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpAddress,
    IpCidr, IpEndpoint, IpProtocol, Ipv4Packet,
};

/// Enough for 100 Mbit/s over 80 ms.
const RECEIVE_BUFFER: usize = 1024 * 1024;
const SEND_BUFFER: usize = 64 * 1024;

/// IPv4 and ICMP headers of a ping.
const PING_HEADERS: usize = 28;

/// What a router or a host on the way said of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreachable {
    /// The destination.
    pub(super) destination: Ipv4Addr,
    /// Whether it is forbidden rather than out of reach (RFC 1812, section 5.2.7.1).
    pub(super) prohibited: bool,
}

/// A host with one address.
pub(super) struct Netstack {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
    icmp: SocketHandle,
    udp: SocketHandle,
    ident: u16,
    answered: Vec<u16>,
    unreachable: Option<Unreachable>,
    started_at: Instant,
}

impl std::fmt::Debug for Netstack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netstack({:?})", self.interface.ip_addrs())
    }
}

impl Netstack {
    /// A host with this address behind a link of this MTU.
    pub(super) fn new(address: Ipv4Addr, mtu: u16, now: Instant) -> Self {
        let mut rng = rand::rng();
        let mut queues = Queues {
            mtu: mtu.into(),
            ..Queues::default()
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = rng.random();
        let mut interface = Interface::new(config, &mut queues, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // Neither push can fail: there is room for one, and this is the first.
            let _ = addresses.push(IpCidr::new(address.into(), 32));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(address);

        let ident = rng.random();
        let mut icmp = icmp::Socket::new(
            icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 128 * 1024]),
            icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 128 * 1024]),
        );
        let _ = icmp.bind(icmp::Endpoint::Ident(ident));
        let mut udp = udp::Socket::new(
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 16 * 1024]),
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 16 * 1024]),
        );
        let _ = udp.bind(ephemeral_port());

        let mut sockets = SocketSet::new(Vec::new());
        let (icmp, udp) = (sockets.add(icmp), sockets.add(udp));
        Self {
            interface,
            sockets,
            queues,
            icmp,
            udp,
            ident,
            answered: Vec::new(),
            unreachable: None,
            started_at: now,
        }
    }

    /// Takes a packet from the tunnel.
    pub(super) fn handle_packet(&mut self, packet: &[u8]) {
        if let Some(unreachable) = parse_unreachable(packet) {
            self.unreachable = Some(unreachable);
        }
        self.queues.inbound.push_back(packet.to_vec());
    }

    /// Lets the sockets work, and their timers.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let now = self.stack_time(now);
        self.interface
            .poll(now, &mut self.queues, &mut self.sockets);
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.icmp);
        while let Ok((payload, _)) = socket.recv() {
            let reply = Icmpv4Packet::new_checked(payload)
                .and_then(|packet| Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()));
            if let Ok(Icmpv4Repr::EchoReply { seq_no, .. }) = reply {
                self.answered.push(seq_no);
            }
        }
    }

    /// The next packet for the tunnel.
    pub(super) fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.queues.outbound.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let delay = self
            .interface
            .poll_delay(self.stack_time(now), &self.sockets)?;
        Some(now + std::time::Duration::from(delay))
    }

    /// Sends a ping that makes a packet of `length` bytes.
    pub(super) fn ping(&mut self, destination: Ipv4Addr, sequence: u16, length: u16) {
        let data = vec![0x5a; usize::from(length).saturating_sub(PING_HEADERS)];
        let echo = Icmpv4Repr::EchoRequest {
            ident: self.ident,
            seq_no: sequence,
            data: &data,
        };
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.icmp);
        // A full queue is a lost ping.
        if let Ok(buffer) = socket.send(echo.buffer_len(), IpAddress::Ipv4(destination)) {
            echo.emit(
                &mut Icmpv4Packet::new_unchecked(buffer),
                &ChecksumCapabilities::default(),
            );
        }
    }

    /// Whether that ping has been answered.
    pub(super) fn ping_answered(&self, sequence: u16) -> bool {
        self.answered.contains(&sequence)
    }

    /// Sends a UDP datagram.
    pub(super) fn send_udp(&mut self, to: SocketAddrV4, payload: &[u8]) {
        // A full queue is a lost datagram.
        let _ = self
            .sockets
            .get_mut::<udp::Socket<'_>>(self.udp)
            .send_slice(payload, IpEndpoint::from(to));
    }

    /// The next UDP datagram received, and from where.
    pub(super) fn receive_udp(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let (payload, meta) = self
            .sockets
            .get_mut::<udp::Socket<'_>>(self.udp)
            .recv()
            .ok()?;
        Some((
            SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port),
            payload.to_vec(),
        ))
    }

    /// Opens a TCP connection.
    pub(super) fn connect(&mut self, to: SocketAddrV4) -> SocketHandle {
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; RECEIVE_BUFFER]),
            tcp::SocketBuffer::new(vec![0; SEND_BUFFER]),
        );
        socket.set_nagle_enabled(false);
        // It fails only for port 0, and then the socket stays closed, as after a refusal.
        let _ = socket.connect(
            self.interface.context(),
            IpEndpoint::from(to),
            ephemeral_port(),
        );
        self.sockets.add(socket)
    }

    /// A TCP connection.
    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Whether this destination was said to be unreachable, and how.
    pub(super) fn unreachable(&self, destination: Ipv4Addr) -> Option<Unreachable> {
        self.unreachable
            .filter(|unreachable| unreachable.destination == destination)
    }

    fn stack_time(&self, now: Instant) -> StackInstant {
        let elapsed = now.saturating_duration_since(self.started_at);
        StackInstant::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

fn ephemeral_port() -> u16 {
    rand::rng().random_range(49152..=65535)
}

fn parse_unreachable(packet: &[u8]) -> Option<Unreachable> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    if packet.next_header() != IpProtocol::Icmp {
        return None;
    }
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    let reason = Icmpv4DstUnreachable::from(icmp.msg_code());
    if icmp.msg_type() != Icmpv4Message::DstUnreachable
        || !icmp.verify_checksum()
        || reason == Icmpv4DstUnreachable::FragRequired
    {
        return None;
    }
    // Of the packet at fault there may be no more than its header and 8 bytes (RFC 792), which
    // the library's own parser takes for a packet cut short.
    let destination: [u8; 4] = icmp.data().get(16..20)?.try_into().ok()?;
    Some(Unreachable {
        destination: destination.into(),
        prohibited: matches!(
            reason,
            Icmpv4DstUnreachable::NetProhibited
                | Icmpv4DstUnreachable::HostProhibited
                | Icmpv4DstUnreachable::CommProhibited
        ),
    })
}

/// The link between the netstack and the tunnel.
#[derive(Default)]
struct Queues {
    mtu: usize,
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Outbound<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Outbound<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Received(packet), Outbound(&mut self.outbound)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outbound<'_>> {
        Some(Outbound(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outbound<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Outbound<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
