//! One end of a TCP connection with a peer, by smoltcp.
//!
//! This is the seam behind which another TCP can be put. Each connection has an interface and a
//! socket set of its own, since smoltcp looks at every socket of a set for every packet.

use std::net::SocketAddrV4;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::{Duration, Instant};

use super::flight::Flight;
use super::memory::{CHUNK, Touched};
use super::recovery::{Duplicates, Stall};
use crate::DropReason;
use crate::packet::{Layout, TcpFlags, cut, fill_checksum};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint, Ipv4Cidr};

/// Delay of acknowledgements that carry nothing. Every second full segment is answered at once
/// (RFC 5681, section 4.2).
const ACK_DELAY: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(10);

/// Packets sent at once: as many full ones as leave in one call (`transmit::MAX_BYTES`). A client's
/// socket holds about 90 datagrams unread (`rmem_default`), and a longer burst would overflow it.
pub(super) const MAX_BURST: usize = 45;

/// Bytes of IP and TCP header without options, as the library sends data.
const HEADERS: usize = 20 + 20;

/// Longest IPv4 packet.
const MAX_PACKET: usize = 65_535;

/// Least memory that is touched at a time.
const PAGE: usize = 4096;

/// The connection, as seen from the peer: this side plays the outside host.
pub(crate) struct Terminator {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    started: Instant,
    mtu: usize,
    capacity: usize,
    sending: Touched,
    receiving: Touched,
    flight: Flight,
    duplicates: Duplicates,
    stall: Stall,
    /// The peer's FIN has come, and nothing has been sent since that would acknowledge it.
    end_unanswered: bool,
}

/// Room to work in, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Room(Vec<u8>);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The handshake is not finished.
    Opening,
    /// Data may flow, at least in one direction.
    Open,
    /// Both sides have said their last, and each knows it of the other.
    Lingering,
    /// It is over.
    Closed,
}

impl std::fmt::Debug for Terminator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Terminator({:?}, {} bytes)",
            self.socket().state(),
            self.buffer_bytes()
        )
    }
}

impl Terminator {
    /// One that is nobody's yet, for peers with this MTU, with buffers of `capacity` bytes each way.
    pub(crate) fn new(now: Instant, mtu: u16, capacity: usize, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mtu = usize::from(mtu);
        let mut link = Link {
            mtu,
            incoming: None,
            room: &mut Room::default(),
            emit: &mut |_| {},
        };
        let interface = Interface::new(config, &mut link, smoltcp::time::Instant::ZERO);
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; capacity]),
            SocketBuffer::new(vec![0; capacity]),
        );
        // `Flight` takes its place: it follows the measured path and not the losses.
        socket.set_congestion_control(CongestionControl::None);
        // The outside end decides what is worth a segment; waiting here would add its delay twice.
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        Self {
            interface,
            sockets,
            handle,
            started: now,
            mtu,
            capacity,
            sending: Touched::new(capacity),
            receiving: Touched::new(capacity),
            flight: Flight::new(capacity),
            duplicates: Duplicates::default(),
            stall: Stall::default(),
            end_unanswered: false,
        }
    }

    /// Answers `syn`, which a peer sent to `outside`. What it was before is over.
    pub(crate) fn accept(&mut self, now: Instant, outside: SocketAddrV4, syn: &[u8]) {
        self.sending = Touched::new(self.capacity);
        self.receiving = Touched::new(self.capacity);
        self.flight = Flight::new(self.capacity);
        self.duplicates = Duplicates::default();
        self.stall = Stall::default();
        self.end_unanswered = false;
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // A prefix of 0 puts every peer on the link: no route is needed.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(*outside.ip(), 0)));
        });
        let socket = self.socket_mut();
        socket.abort();
        socket.set_ack_delay(Some(ACK_DELAY));
        let listening = socket.listen(IpListenEndpoint {
            addr: Some((*outside.ip()).into()),
            port: outside.port(),
        });
        debug_assert!(
            listening.is_ok(),
            "a closed socket can listen on a port that is not 0"
        );
        self.take_packet(now, syn, &mut |_| {});
    }

    /// The MTU that it was made for: the library asks for it once.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu as u16
    }

    /// Whether it holds so little memory that it may be kept for another connection.
    pub(crate) fn is_light(&self) -> bool {
        self.buffer_bytes() <= 4 * CHUNK
    }

    /// Bytes of memory its buffers have touched.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.sending.bytes() + self.receiving.bytes()
    }

    /// Takes a packet of the peer, whose checksums are right, with `left` bytes left for buffers.
    /// An answer that cannot wait goes to `emit`.
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        left: usize,
        emit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), DropReason> {
        if self.socket().recv_queue() == 0 {
            self.receiving.handle_empty();
        }
        let Ok(layout) = Layout::new(packet) else {
            return Err(DropReason::MalformedPacket);
        };
        let data = packet.len() - layout.headers;
        if data > 0 {
            // What arrives ahead of a gap is put where it belongs, which touches a page of its own.
            let touches = data.max(PAGE);
            if touches > self.receiving.room(left) {
                return Err(DropReason::MemoryLimit);
            }
            self.receiving.handle_entered(touches);
        }
        if layout.flags.is_some_and(|flags| flags.has(TcpFlags::FIN)) {
            // A connection that ends is not to wait for more.
            self.socket_mut().set_ack_delay(None);
            self.end_unanswered = true;
        }
        let mut answered = false;
        self.take_packet(now, packet, &mut |answer| {
            answered = true;
            emit(answer);
        });
        self.end_unanswered &= !answered;
        if self.socket().send_queue() == 0 {
            self.sending.handle_empty();
        }
        Ok(())
    }

    fn take_packet(&mut self, now: Instant, packet: &[u8], emit: &mut dyn FnMut(&[u8])) {
        let time = self.time(now);
        let segment = self.segment();
        let Self {
            interface,
            sockets,
            duplicates,
            mtu,
            ..
        } = self;
        duplicates.show(packet, segment, |packet| {
            let mut link = Link {
                mtu: *mtu,
                incoming: Some(packet),
                room: &mut Room::default(),
                emit: &mut *emit,
            };
            interface.poll_ingress_single(time, &mut link, sockets);
        });
        let queued = self.socket().send_queue();
        self.flight.handle_progress(now, queued);
        self.stall.handle_acknowledgement(now, queued);
    }

    /// Gives packets that are due to `emit`, at most [`MAX_BURST`] of them; the rest becomes due
    /// with the next acknowledgement, or a millisecond later.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        room: &mut Room,
        emit: &mut dyn FnMut(&[u8]),
    ) {
        if self.has_said_all() {
            return;
        }
        self.end_stall(now);
        let time = self.time(now);
        let mut emitted = 0;
        while emitted < MAX_BURST {
            let before = emitted;
            let mut count = |packet: &[u8]| {
                emitted += 1;
                emit(packet);
            };
            let mut link = Link {
                mtu: self.mtu,
                incoming: None,
                room,
                emit: &mut count,
            };
            self.interface
                .poll_egress(time, &mut link, &mut self.sockets);
            if emitted == before {
                return;
            }
            self.end_unanswered = false;
        }
    }

    /// When [`Self::poll_transmit`] is due again without other input.
    pub(crate) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        if self.has_said_all() {
            return None;
        }
        let due = self.library_poll_at(now);
        let stall = self.stall.deadline(self.flight.rtt());
        [due, stall].into_iter().flatten().min()
    }

    fn library_poll_at(&mut self, now: Instant) -> Option<Instant> {
        let time = self.time(now);
        let due = self.interface.poll_at(time, &self.sockets)?;
        Some(self.started + Duration::from_micros(due.total_micros().max(0) as u64))
    }

    /// Has the library's time-out fire now, if data has waited too long for it: its clock is moved
    /// on to the time-out, and stays ahead.
    fn end_stall(&mut self, now: Instant) {
        if self
            .stall
            .deadline(self.flight.rtt())
            .is_none_or(|deadline| now < deadline)
        {
            return;
        }
        if let Some(due) = self.library_poll_at(now) {
            self.started -= due.saturating_duration_since(now);
            self.stall.handle_resent(now);
            self.flight.handle_time_out(now);
        }
    }

    /// Lends what the peer has sent; `take` says how much of it is done with.
    pub(crate) fn receive(&mut self, take: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let socket = self.socket_mut();
        if !socket.can_recv() {
            return 0;
        }
        socket
            .recv(|bytes| {
                let taken = take(bytes);
                (taken, taken)
            })
            .unwrap_or(0)
    }

    /// Lends room for what the peer shall get, at most `most` bytes of it; `fill` says how much is
    /// filled.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        left: usize,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let allowed = self.flight.room().min(self.sending.room(left)).min(most);
        // Whole segments: a short one in between would cost as much as a long one.
        let segment = self.segment();
        let allowed = match allowed % segment {
            rest if rest < allowed => allowed - rest,
            _ => allowed,
        };
        let socket = self.socket_mut();
        if allowed == 0 || !socket.can_send() {
            return 0;
        }
        let filled = socket
            .send(|room| {
                let allowed = allowed.min(room.len());
                let filled = fill(&mut room[..allowed]).min(allowed);
                (filled, filled)
            })
            .unwrap_or(0);
        self.flight.handle_entered(now, filled);
        self.sending.handle_entered(filled);
        self.stall.handle_queued(now, self.socket().send_queue());
        filled
    }

    /// Whether there is something to [`Self::receive`].
    pub(crate) fn has_received(&self) -> bool {
        self.socket().can_recv()
    }

    /// Whether a [`Self::send`] would find a useful amount of room.
    pub(crate) fn has_room(&self, left: usize) -> bool {
        self.socket().can_send() && self.flight.has_room() && self.sending.room(left) > 0
    }

    /// Whether the peer has said its last and all of it was received.
    pub(crate) fn peer_has_finished(&self) -> bool {
        let socket = self.socket();
        !matches!(
            socket.state(),
            State::Listen | State::SynReceived | State::Closed
        ) && !socket.may_recv()
    }

    /// Whether nothing is left to be sent. The library would only forget what the peer has sent
    /// when its TIME-WAIT is over, which may be before a slow outside has taken it.
    fn has_said_all(&self) -> bool {
        self.phase() == Phase::Lingering
    }

    /// Whether something sent has not been acknowledged.
    pub(crate) fn awaits_acknowledgement(&self) -> bool {
        self.socket().send_queue() > 0
    }

    /// Sends what is left, then says that it was the last.
    pub(crate) fn close(&mut self) {
        self.socket_mut().close();
    }

    /// Ends the connection at once; the peer gets a reset with the next [`Self::poll_transmit`].
    pub(crate) fn abort(&mut self) {
        self.socket_mut().abort();
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.socket().state() {
            State::SynReceived | State::SynSent => Phase::Opening,
            State::Closed | State::Listen => Phase::Closed,
            State::TimeWait if !self.end_unanswered => Phase::Lingering,
            _ => Phase::Open,
        }
    }

    /// Most data in one packet.
    fn segment(&self) -> usize {
        self.mtu.saturating_sub(HEADERS).max(1)
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.started).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

/// The wire, for the length of one call.
///
/// It offers the library what a network card offers the kernel: to compute checksums, and to cut
/// one long segment into many, so that the library's work is done once for all of them.
struct Link<'a> {
    mtu: usize,
    incoming: Option<&'a [u8]>,
    room: &'a mut Room,
    emit: &'a mut dyn FnMut(&[u8]),
}

struct Incoming<'a>(&'a [u8]);

struct Outgoing<'a> {
    room: &'a mut Room,
    emit: &'a mut dyn FnMut(&[u8]),
    segment_size: Option<NonZeroU16>,
}

impl Device for Link<'_> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t>
    where
        Self: 't;

    fn receive(&mut self, now: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), self.transmit(now)?))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing {
            room: &mut *self.room,
            emit: &mut *self.emit,
            segment_size: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new((self.mtu * MAX_BURST).min(MAX_PACKET));
        capabilities
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self {
            room,
            emit,
            segment_size,
        } = self;
        let Some(segment_size) = segment_size else {
            let mut packet = [0; popup_model::MAX_MTU as usize];
            let packet = &mut packet[..len.min(usize::from(popup_model::MAX_MTU))];
            let result = f(packet);
            if let Ok(layout) = Layout::new(packet) {
                fill_checksum(packet, &layout);
            }
            emit(packet);
            return result;
        };
        let Room(long) = room;
        if long.len() < len {
            long.resize(len, 0);
        }
        let packet = &mut long[..len];
        let result = f(packet);
        if let Ok(layout) = Layout::new(packet) {
            cut(packet, &layout, segment_size.get().into(), emit);
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_size = meta.segmentation_offload_size;
    }
}
