//! A gateway for one client, in the test's own process: WireGuard on loopback UDP, and behind it
//! one host that answers pings, names and HTTP at the gateway's tunnel address. Every other address is prohibited.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use popup_gateway_core::session::{
    Interface as _, MIN_OUTPUT, Opened, Sealed, Sender, Session as _,
};
use popup_gateway_core::{BoringInterface, BoringSession};
use popup_model::{PresharedKey, PrivateKey, PublicKey};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    HardwareAddress, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpCidr,
    IpProtocol, Ipv4Packet, Ipv4Repr,
};

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// The only name there is.
pub(crate) const NAME: &str = "popup.example.net";

/// Longest wait before the stop flag is looked at.
const TURN: Duration = Duration::from_millis(20);

/// How this gateway behaves.
#[derive(Clone)]
pub(crate) struct Behaviour {
    pub(crate) preshared_key: Option<PresharedKey>,
    /// Inner packets above this are lost, both ways.
    pub(crate) largest_packet: usize,
    pub(crate) answers_names: bool,
    pub(crate) http_port: u16,
    pub(crate) response: Vec<u8>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            preshared_key: None,
            largest_packet: usize::MAX,
            answers_names: true,
            http_port: 80,
            response: response(200, 200_000),
        }
    }
}

/// An HTTP response with a body of this length.
pub(crate) fn response(status: u16, length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

/// A running gateway; it ends when dropped.
pub(crate) struct Gateway {
    pub(crate) endpoint: SocketAddr,
    pub(crate) public_key: PublicKey,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start(client: PublicKey, behaviour: Behaviour) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(TURN)).unwrap();
        let endpoint = socket.local_addr().unwrap();
        let private_key = PrivateKey::generate();
        let public_key = private_key.public_key();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            let mut inside = Inside::new(&private_key, client, behaviour);
            while !stop.load(Ordering::Relaxed) {
                inside.turn(&socket);
            }
        });
        Self {
            endpoint,
            public_key,
            stopped,
            thread: Some(thread),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the gateway's thread panicked"
            );
        }
    }
}

struct Inside {
    behaviour: Behaviour,
    client: PublicKey,
    wireguard: BoringInterface,
    session: BoringSession,
    client_at: Option<SocketAddr>,
    host: Interface,
    sockets: SocketSet<'static>,
    dns: SocketHandle,
    http: SocketHandle,
    /// How much of the response has been sent; `None` before the request is complete.
    sent: Option<usize>,
    link: Link,
}

impl Inside {
    fn new(private_key: &PrivateKey, client: PublicKey, behaviour: Behaviour) -> Self {
        let wireguard = BoringInterface::new(private_key);
        let session = wireguard.session(client, behaviour.preshared_key.as_ref(), 1);
        let mut link = Link::default();
        let mut host = Interface::new(
            Config::new(HardwareAddress::Ip),
            &mut link,
            StackInstant::now(),
        );
        host.update_ip_addrs(|addresses| addresses.push(IpCidr::new(ADDRESS.into(), 24)).unwrap());
        let mut dns = udp::Socket::new(
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]),
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]),
        );
        dns.bind(53).unwrap();
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        let mut http = tcp::Socket::new(buffer(), buffer());
        http.listen(behaviour.http_port).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let (dns, http) = (sockets.add(dns), sockets.add(http));
        Self {
            behaviour,
            client,
            wireguard,
            session,
            client_at: None,
            host,
            sockets,
            dns,
            http,
            sent: None,
            link,
        }
    }

    fn turn(&mut self, socket: &UdpSocket) {
        let mut datagram = [0; 65536];
        match socket.recv_from(&mut datagram) {
            Ok((len, from)) => self.receive(socket, from, &datagram[..len]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => panic!("{error}"),
        }
        let mut out = [0; 65536];
        if let (Some(len), Some(to)) = (
            self.session.handle_tick(Instant::now(), &mut out),
            self.client_at,
        ) {
            socket.send_to(&out[..len], to).unwrap();
        }
        self.host
            .poll(StackInstant::now(), &mut self.link, &mut self.sockets);
        if self.behaviour.answers_names {
            self.answer_name();
        }
        self.answer_http();
        self.host
            .poll(StackInstant::now(), &mut self.link, &mut self.sockets);
        while let Some(packet) = self.link.outbound.pop_front() {
            if packet.len() > self.behaviour.largest_packet {
                continue;
            }
            if let (Sealed::Data(len), Some(to)) = (
                self.session.seal(Instant::now(), &packet, &mut out),
                self.client_at,
            ) {
                socket.send_to(&out[..len], to).unwrap();
            }
        }
    }

    fn receive(&mut self, socket: &UdpSocket, from: SocketAddr, datagram: &[u8]) {
        let mut out = vec![0; 65536 + MIN_OUTPUT];
        match self.wireguard.identify(from.ip(), datagram, &mut out) {
            Ok(Sender::Initiator(peer)) if peer == self.client => {}
            Ok(Sender::Index(1)) => {}
            _ => return,
        }
        match self
            .session
            .open(Instant::now(), from.ip(), datagram, &mut out)
        {
            Opened::Packet(packet) if packet.len() <= self.behaviour.largest_packet => {
                match echo_reply(packet).or_else(|| prohibition(packet)) {
                    Some(reply) => self.link.outbound.push_back(reply),
                    None => self.link.inbound.push_back(packet.to_vec()),
                }
            }
            Opened::Reply(reply) => {
                socket.send_to(reply, from).unwrap();
            }
            _ => {}
        }
        self.client_at = Some(from);
    }

    fn answer_name(&mut self) {
        let dns = self.sockets.get_mut::<udp::Socket<'_>>(self.dns);
        while let Ok((query, from)) = dns.recv() {
            let query = Message::from_vec(query).unwrap();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            let name = query.queries[0].name().clone();
            answer.queries = query.queries;
            if name.to_string() == format!("{NAME}.") {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(ADDRESS))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            dns.send_slice(&answer.to_vec().unwrap(), from).unwrap();
        }
    }

    fn answer_http(&mut self) {
        let http = self.sockets.get_mut::<tcp::Socket<'_>>(self.http);
        let complete = http.recv(|request| {
            let complete = request.ends_with(b"\r\n\r\n");
            (if complete { request.len() } else { 0 }, complete)
        });
        if complete == Ok(true) {
            self.sent = Some(0);
        }
        if let Some(sent) = &mut self.sent {
            *sent += http
                .send_slice(&self.behaviour.response[*sent..])
                .unwrap_or(0);
            if *sent == self.behaviour.response.len() {
                http.close();
            }
        }
    }
}

/// The answer to a ping of this host.
fn echo_reply(packet: &[u8]) -> Option<Vec<u8>> {
    let mut reply = packet.to_vec();
    let mut packet = Ipv4Packet::new_checked(&mut reply[..]).ok()?;
    let asker = packet.src_addr();
    if packet.next_header() != IpProtocol::Icmp || packet.dst_addr() != ADDRESS {
        return None;
    }
    packet.set_src_addr(ADDRESS);
    packet.set_dst_addr(asker);
    packet.fill_checksum();
    let mut icmp = Icmpv4Packet::new_checked(packet.payload_mut()).ok()?;
    if icmp.msg_type() != Icmpv4Message::EchoRequest {
        return None;
    }
    icmp.set_msg_type(Icmpv4Message::EchoReply);
    icmp.fill_checksum();
    Some(reply)
}

/// The answer to a packet for anybody but this host.
fn prohibition(packet: &[u8]) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let header = Ipv4Repr::parse(&Ipv4Packet::new_checked(packet).ok()?, &checksums).ok()?;
    if header.dst_addr == ADDRESS {
        return None;
    }
    let icmp = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::CommProhibited,
        header,
        data: &packet[20..28],
    };
    let ip = Ipv4Repr {
        src_addr: ADDRESS,
        dst_addr: header.src_addr,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut reply = vec![0; ip.buffer_len() + icmp.buffer_len()];
    let mut outer = Ipv4Packet::new_unchecked(&mut reply[..]);
    ip.emit(&mut outer, &checksums);
    icmp.emit(
        &mut Icmpv4Packet::new_unchecked(outer.payload_mut()),
        &checksums,
    );
    Some(reply)
}

#[derive(Default)]
struct Link {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

impl Device for Link {
    type RxToken<'a> = Inbound;
    type TxToken<'a> = Outbound<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Inbound, Outbound<'_>)> {
        Some((
            Inbound(self.inbound.pop_front()?),
            Outbound(&mut self.outbound),
        ))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outbound<'_>> {
        Some(Outbound(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1420;
        capabilities
    }
}

struct Inbound(Vec<u8>);

impl phy::RxToken for Inbound {
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
