//! The UDP socket that peers speak to, with the kernel's batching where it has it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use popup_gateway_core::{Endpoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

use super::steering;

/// Room for bursts. Without CAP_NET_ADMIN the kernel grants at most `net.core.{r,w}mem_max`.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Largest buffer that UDP_GRO fills at once.
const RECEIVE_BYTES: usize = 65_536;

/// Buffers for one call of `recvmmsg`. With UDP_GRO a few hold hundreds of datagrams, and few stay
/// in the processor's cache until what is in them has been sent on.
const BATCH_SIZE: usize = 8;

/// How long a full send buffer is waited for before the datagrams are dropped. It empties as fast
/// as the link sends, so this is only reached when the link is down.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// A socket bound to one port, for IPv6 and IPv4 where the system has both.
pub(crate) struct WireGuardSocket {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    ipv6: bool,
}

/// Buffers for one call of `recvmmsg`, shared by all sockets of a loop.
pub(super) struct ReceiveBuffers {
    bytes: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self {
            bytes: vec![0; BATCH_SIZE * RECEIVE_BYTES],
            meta: [RecvMeta::default(); BATCH_SIZE],
        }
    }
}

impl WireGuardSocket {
    /// Opens the socket. An unprivileged process may bind ports below 1024 only where
    /// `net.ipv4.ip_unprivileged_port_start` says so, as it does in containers.
    ///
    /// `count` sockets share the port, one for each loop, and the kernel chooses between them by
    /// the session that a datagram is for. Where it cannot, the loops hand datagrams over.
    pub(crate) fn bind(port: u16, count: usize) -> io::Result<Vec<Self>> {
        let port = match count {
            0 | 1 => port,
            // Sockets that share a port let in those of any other process of this user
            // (SO_REUSEPORT, socket(7)); one that does not finds out whether somebody has it.
            _ => {
                let (alone, _) = Self::open_any(port, false)?;
                let bound = alone.local_addr()?.as_socket();
                bound.map_or(port, |address| address.port())
            }
        };
        let sockets: Vec<Self> = (0..count)
            .map(|_| Self::bind_one(port, count > 1))
            .collect::<io::Result<_>>()?;
        if let [first, _, ..] = &sockets[..]
            && let Err(error) = steering::by_session_index(first.socket.as_fd())
        {
            tracing::warn!("the kernel cannot choose the loop for a datagram: {error}");
        }
        Ok(sockets)
    }

    fn bind_one(port: u16, shared: bool) -> io::Result<Self> {
        let (socket, ipv6) = Self::open_any(port, shared)?;
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // WireGuard's datagrams may be fragmented on a path narrower than the tunnel assumes, as
        // the kernel's own WireGuard lets them; QUIC's library says otherwise.
        rustix::net::sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
        if ipv6 {
            rustix::net::sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT)?;
        }
        Ok(Self {
            socket,
            state,
            ipv6,
        })
    }

    /// A socket at every address of this host, and whether IPv6 is among them.
    fn open_any(port: u16, shared: bool) -> io::Result<(Socket, bool)> {
        let any = (Ipv6Addr::UNSPECIFIED, port).into();
        match Self::open(Domain::IPV6, any, shared) {
            Err(error) if no_ipv6(&error) => {
                let any = (Ipv4Addr::UNSPECIFIED, port).into();
                Ok((Self::open(Domain::IPV4, any, shared)?, false))
            }
            opened => Ok((opened?, true)),
        }
    }

    fn open(domain: Domain, address: SocketAddr, shared: bool) -> io::Result<Socket> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        Ok(socket)
    }

    pub(super) fn register(&self, registry: &mio::Registry, token: Token) -> io::Result<()> {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.socket);
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Reads what has arrived, one datagram at a time to `take`. False when nothing is left.
    ///
    /// The kernel's GRO hands over joined datagrams out of order where trains of them follow each
    /// other closely, and a TCP inside would take that for loss. Within one call their counters
    /// tell the order.
    pub(super) fn receive(
        &self,
        buffers: &mut ReceiveBuffers,
        mut take: impl FnMut(SocketAddr, Option<IpAddr>, &[u8]),
    ) -> bool {
        let mut slices = buffers.bytes.chunks_mut(RECEIVE_BYTES).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let received = match self.state.recv(
            UdpSockRef::from(&self.socket),
            &mut slices,
            &mut buffers.meta,
        ) {
            Ok(received) => received,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!("cannot receive: {error}");
                }
                // An error of one datagram (an ICMP answer to an earlier one) hides no other.
                return error.kind() != io::ErrorKind::WouldBlock;
            }
        };
        let mut order: [usize; BATCH_SIZE] = std::array::from_fn(|index| index);
        let order = &mut order[..received.min(BATCH_SIZE)];
        order.sort_by_key(|index| place(&slices[*index][..buffers.meta[*index].len]));
        for index in order {
            let meta = &buffers.meta[*index];
            let source = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            for datagram in slices[*index][..meta.len].chunks(meta.stride.max(1)) {
                take(source, meta.dst_ip, datagram);
            }
        }
        // A call that has not filled all buffers has emptied the socket; what comes now is told.
        received == BATCH_SIZE
    }

    /// Sends a batch; returns how many datagrams could not be sent.
    pub(super) fn send(&self, batch: &Transmit<'_>) -> usize {
        let as_socket = |address: IpAddr| match address {
            IpAddr::V4(address) if self.ipv6 => address.to_ipv6_mapped().into(),
            address => address,
        };
        let Endpoint { address, local, .. } = batch.destination;
        let mut transmit = quinn_udp::Transmit {
            destination: SocketAddr::new(as_socket(address.ip()), address.port()),
            ecn: None,
            contents: &[],
            segment_size: Some(batch.segment_size),
            src_ip: local.map(as_socket),
        };
        let mut failed = 0;
        let mut rest = batch.contents;
        while !rest.is_empty() {
            // Asked anew each time: the number falls to 1 when the kernel refuses segmentation.
            let most = batch.segment_size * self.state.max_gso_segments().max(1);
            let (now, later) = rest.split_at(most.min(rest.len()));
            transmit.contents = now;
            failed += self.send_once(&mut transmit, batch.segment_size);
            rest = later;
        }
        failed
    }

    /// One call of `sendmsg`, made again where that can help.
    fn send_once(&self, transmit: &mut quinn_udp::Transmit<'_>, segment_size: usize) -> usize {
        let count = transmit.contents.len().div_ceil(segment_size);
        for _ in 0..4 {
            let socket = UdpSockRef::from(&self.socket);
            match self.state.try_send(socket, transmit) {
                Ok(()) => return 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait_for_room() {
                        return count;
                    }
                }
                // The address may have left this host: let the kernel choose another.
                Err(_) if transmit.src_ip.take().is_some() => {}
                Err(error) if self.state.max_gso_segments() == 1 && count > 1 => {
                    tracing::info!("no segmentation offload here ({error})");
                    let one_by_one = |datagram| {
                        let mut single = quinn_udp::Transmit {
                            contents: datagram,
                            ..transmit.clone()
                        };
                        self.send_once(&mut single, segment_size)
                    };
                    return transmit.contents.chunks(segment_size).map(one_by_one).sum();
                }
                Err(error) => {
                    tracing::debug!("cannot send: {error}");
                    return count;
                }
            }
        }
        count
    }

    fn wait_for_room(&self) -> bool {
        let fd = self.socket.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        let patience = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: SEND_PATIENCE.as_nanos() as _,
        };
        matches!(poll(&mut fds, Some(&patience)), Ok(ready) if ready > 0)
    }
}

/// Where data belongs among that of its session (WireGuard whitepaper, section 5.4.6: after the
/// type the receiver's index, then the counter). Everything else comes first.
fn place(datagram: &[u8]) -> (u32, u64) {
    match datagram {
        [4, 0, 0, 0, i0, i1, i2, i3, counter @ ..] => match counter.first_chunk() {
            Some(counter) => (
                u32::from_le_bytes([*i0, *i1, *i2, *i3]),
                u64::from_le_bytes(*counter),
            ),
            None => (0, 0),
        },
        _ => (0, 0),
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(index: u32, counter: u64, len: usize) -> Vec<u8> {
        let mut datagram = vec![4, 0, 0, 0];
        datagram.extend(index.to_le_bytes());
        datagram.extend(counter.to_le_bytes());
        datagram.resize(len, 0);
        datagram
    }

    /// What arrives when these are sent one after the other, before anybody reads.
    fn received(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let sockets = WireGuardSocket::bind(0, 1).unwrap();
        let port = sockets[0].socket.local_addr().unwrap().port();
        let client = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for datagram in datagrams {
            client
                .send_to(datagram, (Ipv4Addr::LOCALHOST, port))
                .unwrap();
        }
        let (mut buffers, mut got) = (ReceiveBuffers::default(), Vec::new());
        while sockets[0].receive(&mut buffers, |_, _, datagram| got.push(datagram.to_vec())) {}
        got
    }

    #[test]
    fn a_port_is_one_gateways_alone_however_many_sockets_it_has() {
        let port_of = |socket: &WireGuardSocket| socket.socket.local_addr().unwrap().port();
        for count in [1, 2] {
            let first = WireGuardSocket::bind(0, count).unwrap();
            let port = port_of(&first[0]);
            assert_eq!(first.len(), count);
            assert!(first.iter().all(|socket| port_of(socket) == port));
            for second in [1, 2] {
                let refused = WireGuardSocket::bind(port, second).map(drop);
                let kind = refused.map_err(|error| error.kind());
                let taken = Err(io::ErrorKind::AddrInUse);
                assert_eq!(kind, taken, "{count}, then {second}");
            }
            drop(first);
            assert_eq!(WireGuardSocket::bind(port, count).unwrap().len(), count);
        }
    }

    #[test]
    fn what_the_kernel_hands_over_out_of_order_is_put_in_order() {
        let sent = [
            data(7, 3, 60),
            data(9, 1, 70),
            data(7, 1, 80),
            vec![1; 148],
            data(7, 2, 90),
        ];
        let [third, other, first, handshake, second] = &sent;
        let in_order = [handshake, first, second, third, other].map(Vec::clone);
        assert_eq!(received(&sent), in_order);
    }

    #[test]
    fn many_datagrams_are_all_read_and_stumps_do_no_harm() {
        let mut sent: Vec<Vec<u8>> = (0..50).map(|n| data(7, n, 100 + n as usize)).collect();
        sent.push(vec![4, 0, 0, 0, 1]);
        sent.push(vec![4]);
        let mut got = received(&sent);
        got.sort();
        sent.sort();
        assert_eq!(got, sent);
    }
}
