//! The packet loop: one thread that waits, takes a batch of input, and runs it to completion.
//!
//! On a host with several processors there are as many loops, with sockets, peers and flows of
//! their own; only what arrives at the wrong one crosses from one to another.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};
use popup_gateway_core::{
    BoringInterface, Command, Endpoint, Gateway, Handover, ROUND, UdpMapping,
};

use super::echo_sockets::EchoSockets;
use super::loop_handle::{Input, LoopEnd, LoopHandle, Snapshot};
use super::raw::{RawPath, refusal};
use super::registry::{Owner, Registry};
use super::splices::Splices;
use super::udp_sockets::UdpSockets;
use super::wireguard_socket::{ReceiveBuffers, WireGuardSocket};

/// Calls of `recvmmsg` on one socket before others have their turn.
const TURN: usize = 8;

/// Bytes of frames that are read before the core's answers to them leave. More than the core sends
/// on in a round: what it has not seen, it cannot share out.
const FRAMES_AT_ONCE: usize = 4 * ROUND;

/// The same for datagrams from outside: little of what the core lets wait for all peers.
const UDP_AT_ONCE: usize = 1024 * 1024;

/// What may wait to be taken over by a loop.
const HANDOVERS: usize = 1024;

/// Counted for frames that are shorter, so that a flood of stumps is a batch, too.
const SMALLEST_FRAME: usize = 64;

struct PacketLoop {
    poll: Poll,
    registry: Registry,
    gateway: Gateway<BoringInterface>,
    wireguard: Vec<WireGuardSocket>,
    splices: Splices,
    udp: UdpSockets,
    echo: EchoSockets,
    raw: Option<RawPath>,
    lost_frames: u64,
    inputs: Receiver<Input>,
    /// What other loops have handed over.
    handed_over: Receiver<Handover>,
    /// All loops, this one among them.
    neighbours: Vec<Neighbour>,
    receive_buffers: ReceiveBuffers,
    udp_buffer: Vec<u8>,
    /// Bytes of datagrams from outside since the core's answers left.
    undrained: usize,
    /// Sockets whose turn ended before they were empty: no event will tell of them again.
    unfinished: Vec<Owner>,
    /// The same of frames, all of whose sockets are read in one turn.
    frames_unfinished: bool,
}

/// Where another loop takes what belongs to it.
#[derive(Clone)]
struct Neighbour {
    handovers: SyncSender<Handover>,
    waker: Arc<Waker>,
}

/// What one loop works with.
pub(crate) struct LoopParts {
    pub(crate) gateway: Gateway<BoringInterface>,
    pub(crate) wireguard: Vec<WireGuardSocket>,
    pub(crate) raw: Option<RawPath>,
}

/// Starts loops beside each other, each on a thread of its own, in the order of their gateways'
/// shards.
pub(crate) fn start(parts: Vec<LoopParts>) -> io::Result<LoopHandle> {
    let (mut loops, mut ends, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
    for parts in parts {
        let (packet_loop, end, neighbour) = PacketLoop::new(parts)?;
        loops.push(packet_loop);
        ends.push(end);
        neighbours.push(neighbour);
    }
    let mut threads = Vec::new();
    for (index, mut packet_loop) in loops.into_iter().enumerate() {
        packet_loop.neighbours = neighbours.clone();
        let thread = std::thread::Builder::new()
            .name(format!("packets-{index}"))
            .spawn(move || packet_loop.run())?;
        threads.push(thread);
    }
    Ok(LoopHandle::new(ends, threads))
}

impl PacketLoop {
    fn new(parts: LoopParts) -> io::Result<(Self, LoopEnd, Neighbour)> {
        let LoopParts {
            gateway,
            wireguard,
            raw,
        } = parts;
        let poll = Poll::new()?;
        let mut registry = Registry::default();
        for (index, socket) in wireguard.iter().enumerate() {
            socket.register(poll.registry(), registry.insert(Owner::WireGuard(index)))?;
        }
        if let Some(raw) = &raw {
            raw.register(poll.registry(), |number| {
                registry.insert(Owner::Raw(number))
            })?;
        }
        let waker = Waker::new(poll.registry(), registry.insert(Owner::Waker))?;
        let waker = Arc::new(waker);
        let (sender, inputs) = channel();
        let (handovers, handed_over) = sync_channel(HANDOVERS);
        let packet_loop = Self {
            poll,
            registry,
            gateway,
            wireguard,
            splices: Splices::default(),
            udp: UdpSockets::default(),
            echo: EchoSockets::default(),
            raw,
            lost_frames: 0,
            inputs,
            handed_over,
            neighbours: Vec::new(),
            receive_buffers: ReceiveBuffers::default(),
            udp_buffer: vec![0; 65_536],
            undrained: 0,
            unfinished: Vec::new(),
            frames_unfinished: false,
        };
        let end = LoopEnd {
            inputs: sender,
            waker: Some(Arc::clone(&waker)),
        };
        Ok((packet_loop, end, Neighbour { handovers, waker }))
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.patience())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!("cannot wait for packets: {error}");
                return;
            }
            let now = Instant::now();
            let mut frames = std::mem::take(&mut self.frames_unfinished);
            for owner in std::mem::take(&mut self.unfinished) {
                self.handle_readable(now, owner);
            }
            for event in &events {
                match self.registry.owner(event.token()) {
                    Some(Owner::Waker) if !self.handle_inputs(now) => return,
                    Some(Owner::Waker) | None => {}
                    Some(Owner::Tcp(flow)) => {
                        self.splices
                            .handle_event(&mut self.gateway, now, flow, event)
                    }
                    // Which sockets have frames must be known of all before one is read.
                    Some(Owner::Raw(number)) => {
                        if let Some(raw) = &mut self.raw {
                            raw.handle_readable(number);
                        }
                        frames = true;
                    }
                    Some(owner) => self.handle_readable(now, owner),
                }
            }
            if frames {
                self.frames_unfinished = self.receive_frames(now);
            }
            if self.gateway.poll_timeout().is_some_and(|due| due <= now) {
                self.gateway.handle_timeout(now);
            }
            self.drain(now);
        }
    }

    /// Gives other loops what belongs to them.
    fn hand_over(&mut self) {
        while let Some((to, handover)) = self.gateway.poll_handover() {
            let Some(neighbour) = self.neighbours.get(to) else {
                continue;
            };
            match neighbour.handovers.try_send(handover) {
                // Waking fails only when the loop has ended.
                Ok(()) => drop(neighbour.waker.wake()),
                Err(_) => self.gateway.count_send_failure(),
            }
        }
    }

    /// How long nothing needs to be done.
    fn patience(&self) -> Option<Duration> {
        if self.frames_unfinished || !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        self.gateway
            .poll_timeout()
            .map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn handle_readable(&mut self, now: Instant, owner: Owner) {
        let more = match owner {
            Owner::WireGuard(index) => self.receive_datagrams(now, index),
            Owner::Udp(mapping) => self.receive_udp(now, mapping),
            Owner::Echo(mapping) => {
                self.echo
                    .receive(&mut self.gateway, now, mapping, &mut self.udp_buffer);
                false
            }
            Owner::Tcp(_) | Owner::Raw(_) | Owner::Waker => false,
        };
        if more && !self.unfinished.contains(&owner) {
            self.unfinished.push(owner);
        }
    }

    fn receive_datagrams(&mut self, now: Instant, socket: usize) -> bool {
        let mut bytes = 0;
        for _ in 0..TURN {
            let gateway = &mut self.gateway;
            let buffers = &mut self.receive_buffers;
            let more = self.wireguard[socket].receive(buffers, |address, local, datagram| {
                let source = Endpoint {
                    address,
                    local,
                    socket,
                };
                bytes += datagram.len();
                gateway.handle_datagram(now, source, datagram);
            });
            self.drain(now);
            if !more {
                return false;
            }
            // As much as others may send in the round that follows, so that neither direction is
            // served at the cost of the other.
            if bytes >= ROUND {
                break;
            }
        }
        true
    }

    fn receive_frames(&mut self, now: Instant) -> bool {
        let (Some(raw), gateway) = (&mut self.raw, &mut self.gateway) else {
            return false;
        };
        let mut bytes = 0;
        while bytes < FRAMES_AT_ONCE {
            let frame = raw.receive(|packet, received| gateway.handle_frame(now, packet, received));
            match frame {
                Some(len) => bytes += len.max(SMALLEST_FRAME),
                None => return false,
            }
        }
        true
    }

    fn receive_udp(&mut self, now: Instant, mapping: UdpMapping) -> bool {
        let buffer = &mut self.udp_buffer;
        let (bytes, more) = self.udp.receive(&mut self.gateway, now, mapping, buffer);
        self.undrained += bytes;
        if self.undrained >= UDP_AT_ONCE {
            self.drain(now);
        }
        more
    }

    /// Does what the core wants done, until it wants nothing more.
    fn drain(&mut self, now: Instant) {
        self.undrained = 0;
        self.hand_over();
        loop {
            self.gateway.flush(now);
            let mut idle = true;
            while self.run_command(now) {
                idle = false;
            }
            self.send_frames(now);
            while let Some(transmit) = self.gateway.poll_transmit() {
                let failed = self.wireguard[transmit.destination.socket].send(&transmit);
                for _ in 0..failed {
                    self.gateway.count_send_failure();
                }
            }
            if idle {
                return;
            }
        }
    }

    /// Sends the core's frames; their ports are held by now.
    fn send_frames(&mut self, now: Instant) {
        let Some(raw) = &mut self.raw else { return };
        let mut failed = 0;
        while let Some(frame) = self.gateway.poll_frame() {
            if let Err(error) = raw.send(now, &frame) {
                tracing::trace!("cannot send a frame: {error}");
                failed += 1;
            }
        }
        for _ in 0..failed {
            self.gateway.count_send_failure();
        }
    }

    fn run_command(&mut self, now: Instant) -> bool {
        let poll = self.poll.registry();
        let (gateway, registry) = (&mut self.gateway, &mut self.registry);
        let Some(command) = gateway.poll_command() else {
            return false;
        };
        match command {
            Command::TcpConnect { flow, destination } => {
                self.splices
                    .connect(gateway, poll, registry, flow, destination);
            }
            Command::TcpReady { flow } => self.splices.pump(gateway, now, flow),
            Command::TcpShutdown { flow } => self.splices.shutdown(flow),
            Command::TcpClose { flow } => self.splices.close(registry, flow, false),
            Command::TcpReset { flow } => self.splices.close(registry, flow, true),
            Command::UdpOpen { mapping } => self.udp.open(gateway, poll, registry, mapping),
            Command::UdpSend {
                mapping,
                destination,
                payload,
                segment_size,
            } => {
                let failed = self.udp.send(mapping, destination, payload, segment_size);
                for _ in 0..failed {
                    gateway.count_send_failure();
                }
            }
            Command::UdpClose { mapping } => self.udp.close(registry, mapping),
            Command::EchoOpen { mapping } => self.echo.open(gateway, poll, registry, mapping),
            Command::EchoSend {
                mapping,
                destination,
                sequence,
                data,
            } => {
                if !self.echo.send(mapping, destination, sequence, data) {
                    gateway.count_send_failure();
                }
            }
            Command::EchoClose { mapping } => self.echo.close(poll, registry, mapping),
            Command::PortOpen { transport, port } => {
                let held = self.raw.as_mut().map(|raw| raw.hold(transport, port));
                if let Some(Err(error)) = held {
                    tracing::debug!("cannot hold a port: {error}");
                    gateway.handle_port_refused(now, transport, port, refusal(&error));
                }
            }
            Command::PortClose { transport, port } => {
                if let Some(raw) = &mut self.raw {
                    raw.release(transport, port);
                }
            }
        }
        true
    }

    /// Takes what the control loop has sent; false when the loop is to end.
    fn handle_inputs(&mut self, now: Instant) -> bool {
        loop {
            match self.inputs.try_recv() {
                Ok(Input::SetPeers(peers)) => self.gateway.set_peers(now, peers),
                Ok(Input::AddToCounters(counted)) => {
                    for (peer, rx_bytes, tx_bytes) in counted {
                        self.gateway.add_to_counters(&peer, rx_bytes, tx_bytes);
                    }
                }
                Ok(Input::SetOwnAddresses(own)) => self.gateway.set_own_addresses(own),
                Ok(Input::Report(reply)) => {
                    self.lost_frames += self.raw.as_ref().map_or(0, RawPath::lost);
                    let _ = reply.try_send(Snapshot {
                        at: now,
                        peers: self.gateway.peers(),
                        drops: self.gateway.drops().clone(),
                        flows: self.gateway.flow_counts(),
                        lost_frames: self.lost_frames,
                    });
                }
                Ok(Input::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => break,
            }
        }
        while let Ok(handover) = self.handed_over.try_recv() {
            self.gateway.handle_handover(now, handover);
        }
        true
    }
}
