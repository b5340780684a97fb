//! The outside ends of UDP mappings: one unconnected socket each.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Token};
use popup_gateway_core::session::Interface;
use popup_gateway_core::{Gateway, UdpMapping};
use rustix::net::sockopt::Ipv4PathMtuDiscovery;
use slotmap::SecondaryMap;

use super::registry::{Owner, Registry};

/// Datagrams read from one socket before others have their turn.
const TURN: usize = 64;

#[derive(Debug, Default)]
pub(super) struct UdpSockets(SecondaryMap<UdpMapping, (UdpSocket, Token)>);

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
            Ok((socket, token))
        });
        match opened {
            Ok(socket) => {
                self.0.insert(mapping, socket);
            }
            Err(error) => {
                tracing::debug!("cannot open a UDP socket: {error}");
                gateway.handle_udp_failed(Instant::now(), mapping);
            }
        }
    }

    /// Sends one; false when the system refuses.
    pub(super) fn send(
        &self,
        mapping: UdpMapping,
        destination: SocketAddrV4,
        payload: &[u8],
    ) -> bool {
        let Some((socket, _)) = self.0.get(mapping) else {
            return true;
        };
        if let Err(error) = socket.send_to(payload, destination.into()) {
            tracing::trace!("cannot send a UDP datagram: {error}");
            return false;
        }
        true
    }

    /// Reads a mapping's socket; true when there may be more.
    pub(super) fn receive<I: Interface>(
        &self,
        gateway: &mut Gateway<I>,
        now: Instant,
        mapping: UdpMapping,
        buffer: &mut [u8],
    ) -> bool {
        let Some((socket, _)) = self.0.get(mapping) else {
            return false;
        };
        for _ in 0..TURN {
            match socket.recv_from(buffer) {
                Ok((len, SocketAddr::V4(source))) => {
                    gateway.handle_udp(now, mapping, source, &buffer[..len])
                }
                Ok((_, SocketAddr::V6(_))) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {} // An ICMP error about an earlier datagram; it hides no other.
            }
        }
        true
    }

    pub(super) fn close(
        &mut self,
        poll: &mio::Registry,
        registry: &mut Registry,
        mapping: UdpMapping,
    ) {
        if let Some((mut socket, token)) = self.0.remove(mapping) {
            let _ = poll.deregister(&mut socket);
            registry.remove(token);
        }
    }
}

fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into())?;
    // A peer's datagram may be longer than the path: let it be fragmented, as routers do.
    rustix::net::sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
    Ok(socket)
}
