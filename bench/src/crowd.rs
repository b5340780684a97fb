//! Many peers in a few threads: to each a TUN device with its peers' addresses, and sessions.
//!
//! wireguard-go once for each peer would cost more than the client's core has. Nothing is batched
//! here, which is slow, but the same for every server and every peer. Each peer has a port of its
//! own, as real ones have: servers may tell peers apart by it, or share them out by it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::lab::{Lab, PORT, SERVER, cores};
use crate::servers::Peer;

/// The crowd. It goes home when this is dropped.
#[derive(Debug)]
pub(crate) struct Crowd {
    addresses: Vec<Ipv4Addr>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Puts `peers` on the client's machine, in a thread for each of its cores, and sends the
    /// internet through their tunnels, each by its own address.
    pub(crate) fn start(
        lab: &Lab,
        peers: &[Peer],
        server_key: popup_model::PublicKey,
    ) -> Result<Self> {
        let mut crowd = Self {
            addresses: crate::rows::addresses(peers),
            end: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        let threads = cores::parse(&lab.plan.cores.client)?.len();
        for (number, peers) in peers.chunks(peers.len().div_ceil(threads)).enumerate() {
            let mut work = Work::new(lab, number, peers, server_key)?;
            let ending = Arc::clone(&crowd.end);
            crowd.threads.push(std::thread::spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    work.turn();
                }
            }));
        }
        Ok(crowd)
    }

    /// The peers' addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().copied()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn open_device(name: &str) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request lives through the call, which only reads and writes in it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == 0 {
        Ok(device)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn open_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SocketAddr::from((SERVER, PORT)))?;
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20)?;
    Ok(socket)
}

struct Member {
    address: Ipv4Addr,
    socket: UdpSocket,
    tunnel: Tunn,
}

struct Work {
    device: File,
    members: Vec<Member>,
    buffer: Vec<u8>,
    /// When the sessions' timers were last looked at.
    timers_at: Instant,
}

impl Work {
    /// Brings the peers of thread number `number` up.
    fn new(
        lab: &Lab,
        number: usize,
        peers: &[Peer],
        server_key: popup_model::PublicKey,
    ) -> Result<Self> {
        let (name, count) = (format!("crowd{number}"), peers.len());
        let device_name = name.clone();
        let (device, sockets) = lab.client.enter(move || {
            let device = open_device(&device_name).context("a TUN device cannot be made")?;
            let sockets: io::Result<Vec<_>> = (0..count).map(|_| open_socket()).collect();
            Ok((device, sockets?))
        })?;
        // Who speaks decides by which device.
        let table = 100 + number;
        lab.client
            .shell(&format!("ip link set {name} mtu 1420 up"))?;
        for peer in peers {
            let address = peer.address;
            lab.client.shell(&format!(
                "ip address add {address}/32 dev {name}
                 ip rule add from {address} lookup {table}"
            ))?;
        }
        lab.client.shell(&format!(
            "ip route add 203.0.113.0/24 dev {name} table {table}
             ip route replace 203.0.113.0/24 dev {name}"
        ))?;
        let members = peers.iter().zip(sockets).map(|(peer, socket)| {
            let secret = StaticSecret::from(*peer.key.as_bytes());
            let public = PublicKey::from(*server_key.as_bytes());
            Member {
                address: peer.address,
                socket,
                tunnel: Tunn::new(secret, public, None, Some(25), 0, None),
            }
        });
        Ok(Self {
            device,
            members: members.collect(),
            buffer: vec![0; 65536],
            timers_at: Instant::now(),
        })
    }

    fn turn(&mut self) {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let device = PollFd::from_borrowed_fd(self.device.as_fd(), PollFlags::IN);
        let sockets = self.members.iter();
        let sockets =
            sockets.map(|member| PollFd::from_borrowed_fd(member.socket.as_fd(), PollFlags::IN));
        let mut ready: Vec<_> = std::iter::once(device).chain(sockets).collect();
        poll(&mut ready, Some(&patience)).ok();
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        self.take_packets();
        for (member, ready) in self.members.iter_mut().zip(&ready[1..]) {
            if *ready {
                member.take_datagrams(&mut self.device, &mut self.buffer);
            }
        }
        self.keep_time();
    }

    fn take_packets(&mut self) {
        let mut packet = [0; 2048];
        for _ in 0..64 {
            let Ok(length) = self.device.read(&mut packet) else {
                return;
            };
            let Some(source) = packet.get(12..16).filter(|_| length >= 20) else {
                continue;
            };
            let mut members = self.members.iter_mut();
            let Some(member) = members.find(|member| member.address.octets() == source) else {
                continue;
            };
            if let TunnResult::WriteToNetwork(datagram) = member
                .tunnel
                .encapsulate(&packet[..length], &mut self.buffer)
            {
                member.socket.send(datagram).ok();
            }
        }
    }

    /// Handshakes that nobody answered, and keepalives.
    fn keep_time(&mut self) {
        if self.timers_at.elapsed() < Duration::from_millis(250) {
            return;
        }
        self.timers_at = Instant::now();
        for member in &mut self.members {
            let result = member.tunnel.update_timers(&mut self.buffer);
            if let TunnResult::WriteToNetwork(datagram) = result {
                member.socket.send(datagram).ok();
            }
        }
    }
}

impl Member {
    fn take_datagrams(&mut self, device: &mut File, buffer: &mut [u8]) {
        let mut datagram = [0; 2048];
        for _ in 0..16 {
            let Ok(length) = self.socket.recv(&mut datagram) else {
                return;
            };
            let mut input = &datagram[..length];
            loop {
                match self.tunnel.decapsulate(None, input, buffer) {
                    TunnResult::WriteToNetwork(reply) => {
                        self.socket.send(reply).ok();
                        input = &[];
                    }
                    TunnResult::WriteToTunnelV4(packet, _)
                    | TunnResult::WriteToTunnelV6(packet, _) => {
                        // One write is one packet.
                        device.write_all(packet).ok();
                        break;
                    }
                    TunnResult::Done | TunnResult::Err(_) => break,
                }
            }
        }
    }
}
