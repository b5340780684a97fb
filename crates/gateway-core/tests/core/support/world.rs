//! The clock, the link, and the loop that drives everything.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use popup_gateway_core::session::OVERHEAD;
use popup_gateway_core::{
    EgressPolicy, Endpoint, Gateway, Limits, Offload, PeerSpec, Received, Settings, Shard,
    UdpMapping,
};
use popup_model::{PublicKey, TunnelNetworks};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::client::Client;
use super::counting::during;
use super::outside::Outside;
use super::plain::{Plain, initiation, message};

/// What the link does to datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) loss: f64,
    pub(crate) delay: Duration,
    /// Datagrams are held back by up to this much more.
    pub(crate) jitter: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            loss: 0.0,
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
        }
    }
}

pub(crate) enum Arrival {
    AtGateway { client: usize, datagram: Vec<u8> },
    AtClient { client: usize, datagram: Vec<u8> },
}

/// A packet for the network, as it was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentFrame {
    pub(crate) packet: Vec<u8>,
    pub(crate) offload: Option<Offload>,
}

pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) gateway: Gateway<Plain>,
    pub(crate) clients: Vec<Client>,
    pub(crate) outside: Outside,
    pub(crate) link: Link,
    /// Datagrams the gateway sent, by destination port, since this was last cleared.
    pub(crate) sent_to_ports: Vec<u16>,
    /// Which datagrams on their way to clients are lost, counted from 0.
    pub(crate) lost_to_clients: Vec<u64>,
    pub(crate) posted_to_clients: u64,
    /// Clients move the window with every segment they send, as Linux does.
    pub(crate) windows_move: bool,
    /// Clients answer all that arrives at one time with one acknowledgement, as devices do that
    /// join segments (GRO).
    pub(crate) answers_join: bool,
    /// Packets for the network, since this was last cleared.
    pub(crate) frames: Vec<SentFrame>,
    rng: StdRng,
    pub(crate) arrivals: BTreeMap<(Instant, u64), Arrival>,
    count: u64,
}

const FIRST_PORT: u16 = 1000;

pub(crate) fn peer_spec(number: usize) -> PeerSpec {
    let host = 2 + number as u8;
    PeerSpec {
        public_key: PublicKey::from_bytes([host; 32]),
        preshared_key: None,
        ipv4: Ipv4Addr::new(10, 8, 0, host),
        ipv6: format!("fd00:1:2:3::{host}").parse().unwrap(),
        mtu: 1420,
    }
}

pub(crate) fn endpoint(client: usize) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([198, 51, 100, 2], FIRST_PORT + client as u16)),
        local: None,
        socket: 0,
    }
}

impl World {
    pub(crate) fn new(clients: usize) -> Self {
        Self::with(clients, |_| {})
    }

    pub(crate) fn with(clients: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let networks = TunnelNetworks::new(
            "10.8.0.0/24".parse().unwrap(),
            "fd00:1:2:3::/64".parse().unwrap(),
        )
        .unwrap();
        let mut policy = EgressPolicy::default();
        policy.set_own_addresses(["192.0.2.1".parse().unwrap()]);
        let mut settings = Settings {
            networks,
            policy,
            limits: Limits::for_descriptors(1024, 1),
            peer_to_peer: false,
            way_out: popup_gateway_core::WayOut::Sockets { echo: true },
            shard: Shard::default(),
            seed: [7; 32],
        };
        change(&mut settings);
        let start = Instant::now();
        let mut world = Self {
            start,
            now: start,
            gateway: Gateway::new(Plain, settings),
            clients: (0..clients)
                .map(|n| Client::new(peer_spec(n).ipv4))
                .collect(),
            outside: Outside::default(),
            link: Link::default(),
            sent_to_ports: Vec::new(),
            lost_to_clients: Vec::new(),
            posted_to_clients: 0,
            windows_move: false,
            answers_join: false,
            frames: Vec::new(),
            rng: StdRng::seed_from_u64(1),
            arrivals: BTreeMap::new(),
            count: 0,
        };
        world
            .gateway
            .set_peers(start, (0..clients).map(peer_spec).collect());
        for client in 0..clients {
            world.handshake(client);
        }
        world
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    pub(crate) fn handshake(&mut self, client: usize) {
        self.gateway.handle_datagram(
            self.now,
            endpoint(client),
            &initiation(&peer_spec(client).public_key),
        );
        self.drain();
    }

    /// Hands a packet of a client to the gateway at once, past the link.
    pub(crate) fn inject(&mut self, client: usize, packet: &[u8]) {
        self.gateway
            .handle_datagram(self.now, endpoint(client), &message(client as u32, packet));
        self.drain();
    }

    /// Like [`Self::inject`], counting what the core allocates.
    pub(crate) fn inject_counted(&mut self, client: usize, packet: &[u8]) {
        let datagram = message(client as u32, packet);
        during(|| {
            self.gateway
                .handle_datagram(self.now, endpoint(client), &datagram)
        });
        self.drain();
    }

    /// A datagram arrives outside, counting what the core allocates.
    pub(crate) fn udp_counted(
        &mut self,
        mapping: UdpMapping,
        source: SocketAddrV4,
        payload: &[u8],
    ) {
        during(|| self.gateway.handle_udp(self.now, mapping, source, payload));
        self.drain();
    }

    /// Runs until `done` or until `patience` of simulated time is over; says whether it is done.
    pub(crate) fn run_until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.now + patience;
        loop {
            self.exchange();
            if done(self) {
                return true;
            }
            match self.next_event() {
                Some(next) if next <= end => {
                    self.now = next.max(self.now + Duration::from_micros(10))
                }
                _ => {
                    self.now = end;
                    self.exchange();
                    return done(self);
                }
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs everything that is due now.
    fn exchange(&mut self) {
        while let Some(entry) = self
            .arrivals
            .first_entry()
            .filter(|entry| entry.key().0 <= self.now)
        {
            match entry.remove() {
                Arrival::AtGateway { client, datagram } => during(|| {
                    self.gateway
                        .handle_datagram(self.now, endpoint(client), &datagram);
                }),
                Arrival::AtClient { client, datagram } => {
                    self.clients[client].hear(datagram[OVERHEAD..].to_vec())
                }
            }
        }
        if self
            .gateway
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            during(|| self.gateway.handle_timeout(self.now));
        }
        let time = self.time();
        for client in 0..self.clients.len() {
            self.clients[client].poll(time);
            if self.answers_join {
                join_answers(&mut self.clients[client].wire.outgoing);
            }
            while let Some(mut packet) = self.clients[client].wire.outgoing.pop_front() {
                if self.windows_move {
                    move_window(&mut packet, (self.count % 7) as u16);
                }
                let datagram = message(client as u32, &packet);
                self.post(Arrival::AtGateway { client, datagram });
            }
        }
        self.drain();
    }

    /// Takes everything the gateway has to give.
    pub(crate) fn drain(&mut self) {
        loop {
            during(|| self.gateway.flush(self.now));
            let mut idle = true;
            while self.outside.run_command(&mut self.gateway, self.now) {
                idle = false;
            }
            let mut sent = Vec::new();
            while let Some(transmit) = during(|| self.gateway.poll_transmit()) {
                let port = transmit.destination.address.port();
                sent.extend(
                    transmit
                        .contents
                        .chunks(transmit.segment_size)
                        .map(|datagram| (port, datagram.to_vec())),
                );
            }
            for (port, datagram) in sent {
                self.sent_to_ports.push(port);
                let client = usize::from(port.wrapping_sub(FIRST_PORT));
                if datagram.len() > OVERHEAD && client < self.clients.len() {
                    self.post(Arrival::AtClient { client, datagram });
                }
            }
            while let Some(frame) = during(|| self.gateway.poll_frame()) {
                idle = false;
                self.frames.push(SentFrame {
                    packet: frame.packet.to_vec(),
                    offload: frame.offload,
                });
            }
            if idle {
                return;
            }
        }
    }

    /// A packet arrives from the network.
    pub(crate) fn network(&mut self, packet: &[u8], received: Received) {
        let mut packet = packet.to_vec();
        during(|| self.gateway.handle_frame(self.now, &mut packet, received));
        self.drain();
    }

    /// Hands packets of a client to the gateway at once, in one batch.
    pub(crate) fn inject_batch(&mut self, client: usize, packets: &[Vec<u8>]) {
        for packet in packets {
            let datagram = message(client as u32, packet);
            during(|| {
                self.gateway
                    .handle_datagram(self.now, endpoint(client), &datagram)
            });
        }
        self.drain();
    }

    fn post(&mut self, arrival: Arrival) {
        if matches!(arrival, Arrival::AtClient { .. }) {
            self.posted_to_clients += 1;
            if self.lost_to_clients.contains(&(self.posted_to_clients - 1)) {
                return;
            }
        }
        if self.rng.random_bool(self.link.loss) {
            return;
        }
        let jitter = self.link.jitter.mul_f64(self.rng.random());
        self.count += 1;
        self.arrivals
            .insert((self.now + self.link.delay + jitter, self.count), arrival);
    }

    fn next_event(&mut self) -> Option<Instant> {
        let time = self.time();
        let clients: Vec<_> = self
            .clients
            .iter_mut()
            .filter_map(|client| client.poll_at(time))
            .collect();
        let clients = clients
            .into_iter()
            .map(|at| self.start + Duration::from_micros(at.total_micros().max(0) as u64))
            .min();
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        [clients, arrival, self.gateway.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn time(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.now.duration_since(self.start).as_micros() as i64)
    }

    pub(crate) fn drops(&self, reason: popup_gateway_core::DropReason) -> u64 {
        self.gateway.drops().of(reason)
    }
}

/// Leaves only the last of the acknowledgements that say nothing else.
fn join_answers(packets: &mut VecDeque<Vec<u8>>) {
    let last = packets.pop_back();
    packets.retain(|packet| {
        let header = Ipv4Packet::new_checked(&packet[..]).unwrap();
        let segment = TcpPacket::new_checked(header.payload()).unwrap();
        segment.segment_len() > 0 || segment.rst()
    });
    packets.extend(last);
}

/// Makes the window of a TCP segment smaller by a little.
fn move_window(packet: &mut [u8], by: u16) {
    let header = Ipv4Packet::new_checked(&packet[..]).unwrap();
    let (source, destination) = (header.src_addr(), header.dst_addr());
    let mut segment = TcpPacket::new_checked(&mut packet[20..]).unwrap();
    if !segment.syn() {
        segment.set_window_len(segment.window_len().saturating_sub(by));
        segment.fill_checksum(&source.into(), &destination.into());
    }
}
