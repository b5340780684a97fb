//! The `raw` way out: packets leave with the gateway's address and a port of its own.
//!
//! # Theory of operation
//!
//! The first packet of a peer's connection binds its inside address and port to a port outside,
//! which the shell holds so that the system neither uses it nor answers on it. From then on packets
//! of that connection are translated and pass; their ends stay where they are, so TCP's own
//! congestion control, window and loss recovery work from end to end. What arrives for no binding
//! is ignored.
//!
//! Where packets arrive faster than they can be encrypted, they wait by peer ([`backlog`]).
//!
//! Segments of a connection, and datagrams to one remote, leave many in one packet where they follow
//! each other ([`frames`]), and what arrives many in one is cut for the tunnel ([`crate::packet::cut`]).

mod backlog;
mod bindings;
mod frame;
mod frames;
mod icmp;
mod inbound;
mod outbound;
mod ports;
mod rewrite;
mod tracking;

use std::net::SocketAddrV4;
use std::time::Instant;

pub use frame::{Frame, Offload, PortRefusal, RawSettings, Received, Transport};

use crate::DropReason;
use crate::context::Context;
use crate::gateway::FlowCounts;
use crate::packet::{Protocol, TcpFlags};
use crate::peers::PeerIndex;
use crate::reassembly::Reassembly;
use crate::session::Session;
use backlog::Backlog;
use bindings::{BindingId, Bindings, End, NewBinding};
use frames::FrameQueue;
use ports::Ports;
use tracking::{Connection, Tracking};

/// The NAT.
#[derive(Debug)]
pub(crate) struct Nat {
    settings: RawSettings,
    bindings: Bindings,
    ports: Ports,
    frames: FrameQueue,
    backlog: Backlog,
    /// Fragments from outside.
    reassembly: Reassembly,
    scratch: Vec<u8>,
}

impl Nat {
    pub(crate) fn new(settings: RawSettings) -> Self {
        Self {
            ports: Ports::new(&settings),
            frames: FrameQueue::new(settings.trains),
            settings,
            bindings: Bindings::default(),
            backlog: Backlog::default(),
            reassembly: Reassembly::default(),
            scratch: Vec::new(),
        }
    }

    /// How many bindings are alive.
    pub(crate) fn counts(&self) -> FlowCounts {
        self.bindings.counts()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let times = [self.bindings.next_timeout(), self.backlog.next_round()];
        times.into_iter().flatten().min()
    }

    /// Ends what is over.
    pub(crate) fn handle_timeout<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(id) = self.bindings.expired(cx.now) {
            self.remove(cx, id);
        }
    }

    /// Takes what has waited, as far as the round goes, and keeps what is over within its bounds.
    pub(crate) fn flush<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        self.take_backlog(cx);
        while let Some(id) = self.bindings.surplus() {
            self.remove(cx, id);
        }
    }

    /// Ends every binding of a peer.
    pub(crate) fn remove_peer<S: Session>(&mut self, cx: &mut Context<'_, S>, peer: PeerIndex) {
        for id in self.bindings.select(|binding| binding.peer == peer) {
            self.remove(cx, id);
        }
    }

    /// A port cannot be had: what is bound to it ends, and tries again with another.
    pub(crate) fn handle_port_refused<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        transport: Transport,
        port: u16,
        why: PortRefusal,
    ) {
        cx.output.drop(DropReason::SendFailed);
        let protocol = Protocol::from(transport);
        let of_port =
            |binding: &bindings::Binding| (binding.protocol, binding.port) == (protocol, port);
        for id in self.bindings.select(of_port) {
            self.remove(cx, id);
        }
        self.ports.refuse(cx.now, transport, port, why);
    }

    /// The next packet for the network.
    pub(crate) fn poll_frame(&mut self) -> Option<Frame<'_>> {
        self.frames.pop()
    }

    fn remove<S: Session>(&mut self, cx: &mut Context<'_, S>, id: BindingId) {
        let Some((binding, counted)) = self.bindings.remove(id) else {
            return;
        };
        if counted {
            cx.release_flow(binding.peer);
        }
        if binding.protocol == Protocol::Udp {
            let commands = &mut cx.output.commands;
            self.ports.release_udp(commands, binding.peer, binding.port);
        }
    }

    /// Takes note of a packet of a binding.
    fn note<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: BindingId,
        from: End,
        flags: Option<TcpFlags>,
    ) {
        if let Some(peer) = self.bindings.note(cx.now, id, from, flags) {
            cx.release_flow(peer);
        }
    }

    /// The binding of a packet from inside, made now if it may open one.
    fn bind<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        protocol: Protocol,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
        flags: Option<TcpFlags>,
    ) -> Result<BindingId, DropReason> {
        let opens = flags.is_none_or(TcpFlags::opens);
        let tracking = match protocol {
            Protocol::Tcp => Tracking::Tcp(Connection::default()),
            Protocol::Udp => Tracking::udp(remote.port()),
            Protocol::Echo => Tracking::Echo,
        };
        if let Some(id) = self.bindings.of_inside(protocol, inside, remote) {
            if opens && self.bindings.is_over(id) {
                cx.claim_flow(peer)?;
                self.bindings.revive(id);
            }
            if protocol == Protocol::Udp {
                self.bindings.track(id, tracking);
            }
            return Ok(id);
        }
        if !opens {
            return Err(DropReason::UnknownFlow);
        }
        cx.claim_flow(peer)?;
        let port = self
            .free_port(cx, peer, protocol, remote)
            .inspect_err(|_| cx.release_flow(peer))?;
        let new = NewBinding {
            protocol,
            inside,
            port,
            remote,
            tracking,
        };
        Ok(self.bindings.insert(cx.now, peer, new))
    }

    fn free_port<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        protocol: Protocol,
        remote: SocketAddrV4,
    ) -> Result<u16, DropReason> {
        let bindings = &self.bindings;
        let taken = |port: u16| bindings.of_outside(protocol, port, remote).is_some();
        let (now, commands) = (cx.now, &mut cx.output.commands);
        let found = match protocol {
            Protocol::Tcp => self.ports.for_connection(now, cx.rng, commands, taken),
            Protocol::Udp => return self.ports.for_udp(now, cx.rng, commands, peer),
            Protocol::Echo => {
                let tries = std::iter::repeat_with(|| cx.random() as u16);
                tries.take(64).find(|ident| !taken(*ident))
            }
        };
        found.ok_or(DropReason::PortsExhausted)
    }

    fn outside(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.settings.address, port)
    }
}
