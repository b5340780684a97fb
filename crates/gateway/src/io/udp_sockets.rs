//! The outside ends of UDP mappings: one unconnected socket each, with the kernel's batching where
//! it has it (`UDP_SEGMENT`, Linux 4.18; `UDP_GRO`, Linux 5.0), since most of what peers send by
//! UDP is long transfers of browsers.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Token};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt::UdpGroSegment,
};
use popup_gateway_core::session::Interface;
use popup_gateway_core::{Gateway, QUANTUM, UdpMapping};
use rustix::net::sockopt::Ipv4PathMtuDiscovery;
use slotmap::SecondaryMap;

use super::registry::{Owner, Registry};

/// Datagrams, or trains of them, that are read from one socket before others have their turn; and
/// no more than [`QUANTUM`] bytes.
const TURN: usize = 64;

/// Asked for; without CAP_NET_ADMIN the kernel grants at most `net.core.{r,w}mem_max`.
const BUFFER_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
struct Outside {
    socket: UdpSocket,
    token: Token,
    /// Whether the system may be asked to send trains.
    segments: bool,
}

#[derive(Debug)]
pub(super) struct UdpSockets {
    sockets: SecondaryMap<UdpMapping, Outside>,
    control: Vec<u8>,
}

impl Default for UdpSockets {
    fn default() -> Self {
        Self {
            sockets: SecondaryMap::new(),
            control: nix::cmsg_space!(i32),
        }
    }
}

impl UdpSockets {
    pub(super) fn open<I: Interface>(
        &mut self,
        gateway: &mut Gateway<I>,
        poll: &mio::Registry,
        registry: &mut Registry,
        mapping: UdpMapping,
    ) {
        let opened = bind().and_then(|mut socket| {
            let owner = Owner::Udp(mapping);
            let token = registry.register(poll, &mut socket, owner, Interest::READABLE)?;
            Ok(Outside {
                socket,
                token,
                segments: true,
            })
        });
        match opened {
            Ok(outside) => {
                self.sockets.insert(mapping, outside);
            }
            Err(error) => {
                tracing::debug!("cannot open a UDP socket: {error}");
                gateway.handle_udp_failed(Instant::now(), mapping);
            }
        }
    }

    /// Sends datagrams of `segment_size` bytes; returns how many the system refuses.
    pub(super) fn send(
        &mut self,
        mapping: UdpMapping,
        destination: SocketAddrV4,
        payload: &[u8],
        segment_size: usize,
    ) -> usize {
        let Some(outside) = self.sockets.get_mut(mapping) else {
            return 0;
        };
        let socket = &outside.socket;
        let to = SockaddrIn::from(destination);
        if outside.segments
            && payload.len() > segment_size
            && let Ok(size) = u16::try_from(segment_size)
        {
            let segments = [ControlMessage::UdpGsoSegments(&size)];
            let parts = [IoSlice::new(payload)];
            let flags = MsgFlags::empty();
            match sendmsg(socket.as_raw_fd(), &parts, &segments, flags, Some(&to)) {
                Ok(_) => return 0,
                Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => {
                    return payload.len().div_ceil(segment_size);
                }
                // The way there has a device that computes no checksums (Linux before 6.11).
                Err(nix::Error::EIO) => outside.segments = false,
                // Datagrams longer than the path, which it does not cut.
                Err(error) => tracing::trace!("cannot send datagrams as one: {error}"),
            }
        }
        let refused = |datagram: &&[u8]| match socket.send_to(datagram, destination.into()) {
            Ok(_) => false,
            Err(error) => {
                tracing::trace!("cannot send a UDP datagram: {error}");
                true
            }
        };
        match payload.is_empty() {
            true => usize::from(refused(&payload)),
            false => payload.chunks(segment_size).filter(refused).count(),
        }
    }

    /// Reads a mapping's socket: how many bytes, and whether there may be more.
    pub(super) fn receive<I: Interface>(
        &mut self,
        gateway: &mut Gateway<I>,
        now: Instant,
        mapping: UdpMapping,
        buffer: &mut [u8],
    ) -> (usize, bool) {
        let mut bytes = 0;
        let Some(outside) = self.sockets.get(mapping) else {
            return (bytes, false);
        };
        for _ in 0..TURN {
            if bytes >= QUANTUM {
                break;
            }
            match receive(&outside.socket, buffer, &mut self.control) {
                Ok((len, source, size)) => {
                    bytes += len;
                    if len == 0 {
                        gateway.handle_udp(now, mapping, source, &[]);
                    }
                    for datagram in buffer[..len].chunks(size) {
                        gateway.handle_udp(now, mapping, source, datagram);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (bytes, false),
                Err(_) => {} // An ICMP error about an earlier datagram; it hides no other.
            }
        }
        (bytes, true)
    }

    pub(super) fn close(&mut self, registry: &mut Registry, mapping: UdpMapping) {
        if let Some(Outside { token, .. }) = self.sockets.remove(mapping) {
            // The kernel forgets a socket that is closed (epoll(7), Q6).
            registry.remove(token);
        }
    }
}

/// Reads one datagram, or several of one size that the kernel has joined: how many bytes, from
/// whom, and the size, which is not zero.
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<(usize, SocketAddrV4, usize)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(control), flags)?;
    let source = message.address.ok_or(ErrorKind::InvalidData)?;
    let size = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    });
    let size = size.unwrap_or(message.bytes).max(1);
    Ok((message.bytes, source.into(), size))
}

fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into())?;
    // A peer's datagram may be longer than the path: let it be fragmented, as routers do.
    rustix::net::sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
    let _ = setsockopt(&socket, UdpGroSegment, &true);
    let options = socket2::SockRef::from(&socket);
    let _ = options.set_send_buffer_size(BUFFER_BYTES);
    let _ = options.set_recv_buffer_size(BUFFER_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn sockets() -> (UdpSockets, UdpMapping, SocketAddrV4) {
        let (mut sockets, socket) = (UdpSockets::default(), bind().unwrap());
        let mut names: SlotMap<UdpMapping, ()> = SlotMap::with_key();
        let mapping = names.insert(());
        let port = socket.local_addr().unwrap().port();
        let outside = Outside {
            socket,
            token: Token(0),
            segments: true,
        };
        sockets.sockets.insert(mapping, outside);
        (
            sockets,
            mapping,
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        )
    }

    fn outside() -> (std::net::UdpSocket, SocketAddrV4) {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let timeout = Some(std::time::Duration::from_millis(500));
        socket.set_read_timeout(timeout).unwrap();
        let std::net::SocketAddr::V4(address) = socket.local_addr().unwrap() else {
            unreachable!("bound to IPv4");
        };
        (socket, address)
    }

    fn lengths(socket: &std::net::UdpSocket, count: usize) -> Vec<usize> {
        let mut buffer = vec![0; 65_536];
        (0..count)
            .map(|_| socket.recv(&mut buffer).unwrap())
            .collect()
    }

    #[test]
    fn datagrams_sent_in_one_call_arrive_one_by_one() {
        let (mut sockets, mapping, _) = sockets();
        let (outside, address) = outside();
        assert_eq!(
            sockets.send(mapping, address, &[7; 3 * 1200 + 100], 1200),
            0
        );
        assert_eq!(lengths(&outside, 4), [1200, 1200, 1200, 100]);
        // Longer than any path in one piece, and nothing at all.
        assert_eq!(sockets.send(mapping, address, &vec![7; 60_000], 30_000), 0);
        assert_eq!(sockets.send(mapping, address, &[], 0), 0);
        assert_eq!(lengths(&outside, 3), [30_000, 30_000, 0]);
    }

    #[test]
    fn joined_datagrams_are_told_apart() {
        let (sockets, mapping, address) = sockets();
        let (outside, _) = outside();
        let size = 1000_u16;
        let segments = [ControlMessage::UdpGsoSegments(&size)];
        let payload: Vec<u8> = (0..4500).map(|n| (n / 1000) as u8).collect();
        let to = SockaddrIn::from(address);
        let parts = [IoSlice::new(&payload)];
        let flags = MsgFlags::empty();
        sendmsg(outside.as_raw_fd(), &parts, &segments, flags, Some(&to)).unwrap();
        let socket = &sockets.sockets[mapping].socket;
        let (mut buffer, mut control) = (vec![0; 65_536], nix::cmsg_space!(i32));
        let (mut got, mut pieces) = (Vec::new(), Vec::new());
        while got.len() < payload.len() {
            match receive(socket, &mut buffer, &mut control) {
                Ok((len, _, size)) => {
                    pieces.extend(buffer[..len].chunks(size).map(<[u8]>::len));
                    got.extend_from_slice(&buffer[..len]);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(got, payload);
        assert_eq!(pieces, [1000, 1000, 1000, 1000, 500]);
    }
}
