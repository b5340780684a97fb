//! Ports of the NAT, held by sockets that never say a word.
//!
//! Without a socket the system would answer what arrives for the NAT's connections with resets
//! and ICMP errors of its own. A TCP listener that accepts nothing with a hop limit below 255
//! (`IP_MINTTL`, Linux 2.6.34) drops every segment that has crossed a router, and one that wants
//! every segment signed (`TCP_MD5SIG_EXT`, Linux 4.13, where it is built in) drops the others
//! too. Neither needs a capability; a packet filter on a TCP socket does since Linux 6.18. Nothing
//! ever reads from these sockets.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd as _;

use popup_gateway_core::{PortRefusal, Transport};
use rand::RngCore as _;
use socket2::{Domain, Protocol, Socket, Type};

use super::filter;
use super::syscalls::set_option;

/// The hop limit that no packet from beyond a router has.
const MIN_TTL: i32 = 255;

const TCP_MD5SIG_EXT: libc::c_int = 32;
/// The key counts for every address of a network.
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
/// Bytes of `struct tcp_md5sig`.
const MD5SIG_LEN: usize = 216;
const MD5_KEY_LEN: usize = 16;

#[derive(Debug)]
pub(super) struct HeldPorts {
    address: Ipv4Addr,
    /// Whether datagrams are to arrive joined.
    trains: bool,
    held: HashMap<(Transport, u16), Socket>,
}

impl HeldPorts {
    pub(super) fn new(address: Ipv4Addr, trains: bool) -> Self {
        Self {
            address,
            trains,
            held: HashMap::new(),
        }
    }

    pub(super) fn hold(&mut self, transport: Transport, port: u16) -> io::Result<()> {
        let address = SocketAddrV4::new(self.address, port);
        let socket = match transport {
            Transport::Tcp => silent_listener(address),
            Transport::Udp => deaf_socket(address, self.trains),
        }?;
        self.held.insert((transport, port), socket);
        Ok(())
    }

    pub(super) fn release(&mut self, transport: Transport, port: u16) {
        self.held.remove(&(transport, port));
    }
}

/// What it means that a port cannot be held.
pub(in crate::io) fn refusal(error: &io::Error) -> PortRefusal {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE | libc::EACCES) => PortRefusal::Taken,
        _ => PortRefusal::NoResources,
    }
}

fn silent_listener(address: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    set_option(
        socket.as_fd(),
        libc::IPPROTO_IP,
        libc::IP_MINTTL,
        &MIN_TTL.to_ne_bytes(),
    )?;
    // A neighbour on the same link is the only one whom this concerns.
    let _ = set_option(
        socket.as_fd(),
        libc::IPPROTO_TCP,
        TCP_MD5SIG_EXT,
        &key_for_everybody(),
    );
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// `struct tcp_md5sig` with a key that nobody knows, for 0.0.0.0/0.
fn key_for_everybody() -> [u8; MD5SIG_LEN] {
    let mut option = [0; MD5SIG_LEN];
    option[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    // After a `struct sockaddr_storage`: flags, prefix length, key length, interface, key.
    option[128] = TCP_MD5SIG_FLAG_PREFIX;
    option[129] = 0;
    option[130..132].copy_from_slice(&(MD5_KEY_LEN as u16).to_ne_bytes());
    rand::rng().fill_bytes(&mut option[136..136 + MD5_KEY_LEN]);
    option
}

fn deaf_socket(address: SocketAddrV4, trains: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    if trains {
        // The kernel joins datagrams for sockets that want it so, before the frames are read.
        let enable = 1_i32.to_ne_bytes();
        let _ = set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, &enable);
    }
    if socket.attach_filter(&filter::nothing()).is_err() {
        // Then a packet or two wait in it for ever.
        socket.set_recv_buffer_size(0)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpStream, UdpSocket};
    use std::time::Duration;

    const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn free_port() -> u16 {
        let socket = std::net::TcpListener::bind((LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap().port()
    }

    fn holding(transport: Transport) -> (HeldPorts, SocketAddrV4) {
        let (mut held, port) = (HeldPorts::new(LOCALHOST, true), free_port());
        held.hold(transport, port).unwrap();
        (held, SocketAddrV4::new(LOCALHOST, port))
    }

    #[test]
    fn only_a_port_that_is_somebody_elses_is_lost_for_good() {
        for (number, meaning) in [
            (libc::EADDRINUSE, PortRefusal::Taken),
            (libc::EACCES, PortRefusal::Taken),
            (libc::EMFILE, PortRefusal::NoResources),
            (libc::ENFILE, PortRefusal::NoResources),
            (libc::ENOBUFS, PortRefusal::NoResources),
            (libc::ENOMEM, PortRefusal::NoResources),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(refusal(&error), meaning, "{error}");
        }
    }

    #[test]
    fn a_held_tcp_port_neither_accepts_nor_refuses() {
        let (_held, address) = holding(Transport::Tcp);
        let connect = TcpStream::connect_timeout(&address.into(), Duration::from_millis(300));
        assert_eq!(connect.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_held_udp_port_neither_answers_nor_refuses() {
        let (_held, address) = holding(Transport::Udp);
        let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        for _ in 0..2 {
            socket.send(b"hello").unwrap();
            let answer = socket.recv(&mut [0; 10]).unwrap_err();
            assert_eq!(answer.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_port_is_held_once_and_free_when_released() {
        let (mut held, address) = holding(Transport::Tcp);
        let mut other = HeldPorts::new(LOCALHOST, true);
        let refused = other.hold(Transport::Tcp, address.port()).unwrap_err();
        assert_eq!(refusal(&refused), PortRefusal::Taken);
        held.release(Transport::Tcp, address.port());
        other.hold(Transport::Tcp, address.port()).unwrap();
    }
}
