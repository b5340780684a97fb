//! A WireGuard peer without a network interface: it sends what no well-behaved system would.

use std::fmt;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::packet::{Reply, reply_about};
use super::{Client, Conf};

/// The peer.
pub struct RawPeer {
    tunnel: Tunn,
    socket: UdpSocket,
    address: Ipv4Addr,
    buffer: Vec<u8>,
}

impl fmt::Debug for RawPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawPeer({})", self.address)
    }
}

impl RawPeer {
    /// A peer with the keys of `conf`, on the client's machine. It has sent nothing yet.
    pub fn new(client: &Client, conf: &Conf) -> Self {
        let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect(conf.endpoint()).unwrap();
        Self::with_socket(socket, conf)
    }

    fn with_socket(socket: UdpSocket, conf: &Conf) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let tunnel = Tunn::new(
            StaticSecret::from(*conf.private_key().as_bytes()),
            PublicKey::from(*conf.server_key().as_bytes()),
            conf.preshared_key().map(|key| *key.as_bytes()),
            None,
            7,
            None,
        );
        Self {
            tunnel,
            socket,
            address: conf.address(),
            buffer: vec![0; 65536],
        }
    }

    /// Its address in the tunnel.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Has its socket keep much more than a program without privileges may ask for.
    pub fn keep_bursts(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.socket, 16 << 20).unwrap();
    }

    /// Goes on from another port of the client's machine, with the same session.
    pub fn roam(&mut self, client: &Client) {
        let gateway = self.socket.peer_addr().unwrap();
        let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect(gateway).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        self.socket = socket;
    }

    /// A handshake initiation, not sent.
    pub fn initiation(&mut self) -> Vec<u8> {
        match self
            .tunnel
            .format_handshake_initiation(&mut self.buffer, true)
        {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            other => panic!("no initiation: {other:?}"),
        }
    }

    /// Sends a datagram as it is.
    pub fn send_datagram(&self, datagram: &[u8]) {
        self.socket.send(datagram).ok();
    }

    /// What `packet` looks like on the wire; queued behind a handshake when there is no session.
    pub fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match self.tunnel.encapsulate(packet, &mut self.buffer) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
            _ => None,
        }
    }

    /// Sends an inner packet.
    pub fn send(&mut self, packet: &[u8]) {
        if let Some(datagram) = self.seal(packet) {
            self.send_datagram(&datagram);
        }
    }

    /// The next inner packet that arrives before `deadline`.
    pub fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let mut datagram = vec![0; 65536];
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut datagram) else {
                continue;
            };
            let mut input = &datagram[..length];
            loop {
                match self.tunnel.decapsulate(None, input, &mut self.buffer) {
                    TunnResult::WriteToNetwork(reply) => {
                        self.socket.send(reply).ok();
                        input = &[];
                    }
                    TunnResult::WriteToTunnelV4(packet, _)
                    | TunnResult::WriteToTunnelV6(packet, _) => {
                        return Some(packet.to_vec());
                    }
                    TunnResult::Done | TunnResult::Err(_) => break,
                }
            }
        }
        None
    }

    /// Sends `packet` and waits for what the gateway has to say about `target`.
    pub fn ask(&mut self, packet: &[u8], target: Ipv4Addr, patience: Duration) -> Option<Reply> {
        self.send(packet);
        let deadline = Instant::now() + patience;
        loop {
            let received = self.receive(deadline)?;
            if let Some(reply) = reply_about(&received, target) {
                return Some(reply);
            }
        }
    }

    /// Whether a handshake succeeds.
    pub fn shakes_hands(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let initiation = self.initiation();
        self.send_datagram(&initiation);
        let mut datagram = vec![0; 65536];
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut datagram) else {
                continue;
            };
            let is_response = length == 92 && datagram[0] == 2;
            if let TunnResult::WriteToNetwork(reply) =
                self.tunnel
                    .decapsulate(None, &datagram[..length], &mut self.buffer)
            {
                self.socket.send(reply).ok();
                if is_response {
                    return true;
                }
            }
        }
        false
    }
}
