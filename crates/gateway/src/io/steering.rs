//! Has the kernel bring a peer's datagrams to the loop that serves the peer.
//!
//! The loops have a socket each for the same port (`SO_REUSEPORT`, socket(7)). Which of them gets a
//! datagram is told by a classic BPF program (`SO_ATTACH_REUSEPORT_CBPF`, Linux 4.5) that reads it
//! from the index in the message: the one that the gateway gave the session
//! (WireGuard whitepaper, section 5.4).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::bpf::{IF_EQUAL, JUMP, LOAD_BYTE, RETURN, RETURN_A, SHIFT_RIGHT};

// Message types, and where the receiver's index has its highest byte: it is little-endian.
const HANDSHAKE_RESPONSE: u32 = 2;
const COOKIE_REPLY: u32 = 3;
const DATA: u32 = 4;
const RESPONSE_INDEX: u32 = 11;
const INDEX: u32 = 7;

/// Bits of that byte that do not tell the loop: the index has 32 bits, of which the library that
/// makes it keeps 8 for itself, 20 tell the peer, and 4 the loop.
const NOT_THE_LOOP: u32 = 4;

/// Steers the datagrams of all sockets that share this one's port. Initiations, which have no index
/// of ours, go to the first socket.
pub(super) fn by_session_index(socket: BorrowedFd<'_>) -> io::Result<()> {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_BYTE, 0, 0, 0),
        step(IF_EQUAL, 4, 0, DATA),
        step(IF_EQUAL, 3, 0, COOKIE_REPLY),
        step(IF_EQUAL, 0, 5, HANDSHAKE_RESPONSE),
        step(LOAD_BYTE, 0, 0, RESPONSE_INDEX),
        step(JUMP, 0, 0, 1),
        step(LOAD_BYTE, 0, 0, INDEX),
        step(SHIFT_RIGHT, 0, 0, NOT_THE_LOOP),
        step(RETURN_A, 0, 0, 0),
        step(RETURN, 0, 0, 0),
    ];
    attach(socket, &mut program)
}

fn attach(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let header = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads one `sock_fprog` and the `len` instructions it points to, both of
    // which outlive the call, and keeps a copy.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const header).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    /// Sockets that share a port of the loopback interface.
    fn sockets(count: usize) -> Vec<UdpSocket> {
        let mut address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut sockets: Vec<UdpSocket> = Vec::new();
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            let socket = UdpSocket::from(socket);
            address = socket.local_addr().unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            sockets.push(socket);
        }
        sockets
    }

    fn message(kind: u8, index_at: usize, gateway: u32) -> Vec<u8> {
        let mut bytes = vec![0xff; 64];
        bytes[0] = kind;
        let index = (gateway << 20 | 5) << 8 | 3;
        bytes[index_at..index_at + 4].copy_from_slice(&index.to_le_bytes());
        bytes
    }

    #[test]
    fn every_message_reaches_the_loop_that_its_index_tells() {
        let sockets = sockets(3);
        by_session_index(sockets[0].as_fd()).unwrap();
        let to = sockets[0].local_addr().unwrap();
        let mut cases = vec![(vec![1; 148], 0), (vec![4], 0), (b"no message".to_vec(), 0)];
        for gateway in 0..3 {
            cases.push((message(4, 4, gateway), gateway as usize));
            cases.push((message(3, 4, gateway), gateway as usize));
            cases.push((message(2, 8, gateway), gateway as usize));
        }
        for (bytes, gateway) in cases {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(&bytes, to).unwrap();
            let mut buffer = [0; 200];
            let got = sockets[gateway].recv(&mut buffer);
            assert_eq!(got.expect("it came to this one"), bytes.len());
        }
    }
}
