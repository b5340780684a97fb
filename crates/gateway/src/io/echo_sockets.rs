//! Ping sockets: ICMP echo without privilege, where `net.ipv4.ping_group_range` allows it
//! (Linux 3.0, icmp(7)).

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use popup_gateway_core::session::Interface;
use popup_gateway_core::{EchoMapping, Gateway};
use slotmap::SecondaryMap;
use socket2::{Domain, Protocol, Socket, Type};

use super::registry::{Owner, Registry};

const HEADER: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Whether the system lets this process ping. Found out by trying.
pub(crate) fn echo_available() -> bool {
    match open() {
        Ok(_) => true,
        Err(error) => {
            tracing::info!("no ping sockets ({error}): pings will be answered as unreachable");
            false
        }
    }
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[derive(Debug, Default)]
pub(super) struct EchoSockets(SecondaryMap<EchoMapping, (Socket, Token)>);

impl EchoSockets {
    pub(super) fn open<I: Interface>(
        &mut self,
        gateway: &mut Gateway<I>,
        poll: &mio::Registry,
        registry: &mut Registry,
        mapping: EchoMapping,
    ) {
        let opened = open().and_then(|socket| {
            let owner = Owner::Echo(mapping);
            let fd = socket.as_raw_fd();
            let token = registry.register(poll, &mut SourceFd(&fd), owner, Interest::READABLE)?;
            Ok((socket, token))
        });
        match opened {
            Ok(socket) => {
                self.0.insert(mapping, socket);
            }
            Err(error) => {
                tracing::debug!("cannot open a ping socket: {error}");
                gateway.handle_echo_failed(Instant::now(), mapping);
            }
        }
    }

    /// Sends one; false when the system refuses.
    pub(super) fn send(
        &self,
        mapping: EchoMapping,
        destination: Ipv4Addr,
        sequence: u16,
        data: &[u8],
    ) -> bool {
        let Some((socket, _)) = self.0.get(mapping) else {
            return true;
        };
        // The kernel fills in the identifier and the checksum.
        let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0];
        message[6..HEADER].copy_from_slice(&sequence.to_be_bytes());
        message.extend_from_slice(data);
        if let Err(error) = socket.send_to(&message, &SocketAddrV4::new(destination, 0).into()) {
            tracing::trace!("cannot send a ping: {error}");
            return false;
        }
        true
    }

    /// Reads every answer that has arrived.
    pub(super) fn receive<I: Interface>(
        &self,
        gateway: &mut Gateway<I>,
        now: Instant,
        mapping: EchoMapping,
        buffer: &mut [u8],
    ) {
        let Some((socket, _)) = self.0.get(mapping) else {
            return;
        };
        loop {
            match receive_from(socket, buffer) {
                Ok((len, Some(source))) if len >= HEADER && buffer[0] == ECHO_REPLY => {
                    let sequence = u16::from_be_bytes([buffer[6], buffer[7]]);
                    gateway.handle_echo(now, mapping, source, sequence, &buffer[HEADER..len]);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    pub(super) fn close(
        &mut self,
        poll: &mio::Registry,
        registry: &mut Registry,
        mapping: EchoMapping,
    ) {
        if let Some((socket, token)) = self.0.remove(mapping) {
            let _ = poll.deregister(&mut SourceFd(&socket.as_raw_fd()));
            registry.remove(token);
        }
    }
}

fn receive_from(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<Ipv4Addr>)> {
    let (len, _, source) = rustix::net::recvfrom(socket, buffer, rustix::net::RecvFlags::empty())?;
    let source = source.and_then(|source| SocketAddr::try_from(source).ok());
    Ok((
        len,
        match source {
            Some(SocketAddr::V4(source)) => Some(*source.ip()),
            _ => None,
        },
    ))
}
