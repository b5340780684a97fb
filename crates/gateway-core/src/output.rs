//! What the core wants done: datagrams to peers, and commands for the outside.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::Instant;

use slotmap::new_key_type;

use crate::nat::Transport;
use crate::packet::fragments;
use crate::peers::Peer;
use crate::session::{Sealed, Session};
use crate::transmit::{MAX_BYTES, MAX_SEGMENTS, TransmitQueue};
use crate::{DropCounters, DropReason};

new_key_type! {
    /// A TCP connection of a peer with the outside. Never used twice.
    pub struct TcpFlow;

    /// A UDP mapping: one inside address and port, one socket outside. Never used twice.
    pub struct UdpMapping;

    /// An echo mapping: one inside address and identifier, one ping socket. Never used twice.
    pub struct EchoMapping;
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Connect, then report `tcp_connected` or `tcp_failed`.
    TcpConnect {
        /// Whose.
        flow: TcpFlow,
        /// Where to.
        destination: SocketAddrV4,
    },
    /// There is something to write to the outside, or room for what it sends, and it is this
    /// connection's turn.
    TcpReady {
        /// Whose.
        flow: TcpFlow,
    },
    /// The peer has said its last: pass that on, and go on reading.
    TcpShutdown {
        /// Whose.
        flow: TcpFlow,
    },
    /// Both sides have said their last: release the socket.
    TcpClose {
        /// Whose.
        flow: TcpFlow,
    },
    /// Break the connection off.
    TcpReset {
        /// Whose.
        flow: TcpFlow,
    },
    /// Open a socket for a mapping.
    UdpOpen {
        /// Whose.
        mapping: UdpMapping,
    },
    /// Send datagrams, each `segment_size` long, the last one perhaps shorter.
    UdpSend {
        /// Whose.
        mapping: UdpMapping,
        /// Where to.
        destination: SocketAddrV4,
        /// The datagrams, one after the other.
        payload: &'a [u8],
        /// The length of each.
        segment_size: usize,
    },
    /// Release a mapping's socket.
    UdpClose {
        /// Whose.
        mapping: UdpMapping,
    },
    /// Open a ping socket for a mapping.
    EchoOpen {
        /// Whose.
        mapping: EchoMapping,
    },
    /// Send an echo request.
    EchoSend {
        /// Whose.
        mapping: EchoMapping,
        /// Where to.
        destination: Ipv4Addr,
        /// Its sequence number.
        sequence: u16,
        /// What the answer will repeat.
        data: &'a [u8],
    },
    /// Release a mapping's ping socket.
    EchoClose {
        /// Whose.
        mapping: EchoMapping,
    },
    /// Hold a port of the outside address, silently, so that the system neither gives it to
    /// another socket nor answers what arrives there. Frames that use it follow.
    PortOpen {
        /// Of which transport.
        transport: Transport,
        /// Which.
        port: u16,
    },
    /// Give a port back.
    PortClose {
        /// Of which transport.
        transport: Transport,
        /// Which.
        port: u16,
    },
}

enum Queued {
    Plain(Command<'static>),
    UdpSend {
        mapping: UdpMapping,
        destination: SocketAddrV4,
        payload: Range<usize>,
        segment_size: usize,
    },
    EchoSend {
        mapping: EchoMapping,
        destination: Ipv4Addr,
        sequence: u16,
        data: Range<usize>,
    },
}

impl Queued {
    /// Adds the datagram at `more`, which has been kept next after this one, if both are of the same
    /// mapping and for the same destination and can leave in one call.
    fn takes(&mut self, to: UdpMapping, at: SocketAddrV4, more: &Range<usize>) -> bool {
        let Self::UdpSend {
            mapping,
            destination,
            payload,
            segment_size,
        } = self
        else {
            return false;
        };
        debug_assert_eq!(payload.end, more.start, "nothing is kept in between");
        let fits = (*mapping, *destination) == (to, at)
            && more.len() <= *segment_size
            && !more.is_empty()
            && payload.len() % *segment_size == 0
            && payload.len() / *segment_size < MAX_SEGMENTS
            && payload.len() + more.len() <= MAX_BYTES;
        if fits {
            payload.end = more.end;
        }
        fits
    }
}

/// Commands in order; their payloads lie in one buffer that is emptied when all are taken.
#[derive(Default)]
pub(crate) struct Commands {
    queue: VecDeque<Queued>,
    payloads: Vec<u8>,
}

impl Commands {
    pub(crate) fn push(&mut self, command: Command<'static>) {
        self.queue.push_back(Queued::Plain(command));
    }

    pub(crate) fn udp_send(
        &mut self,
        mapping: UdpMapping,
        destination: SocketAddrV4,
        payload: &[u8],
    ) {
        let segment_size = payload.len();
        let payload = self.keep(payload);
        let joined = self
            .queue
            .back_mut()
            .is_some_and(|last| last.takes(mapping, destination, &payload));
        if !joined {
            self.queue.push_back(Queued::UdpSend {
                mapping,
                destination,
                payload,
                segment_size,
            });
        }
    }

    pub(crate) fn echo_send(
        &mut self,
        mapping: EchoMapping,
        destination: Ipv4Addr,
        sequence: u16,
        data: &[u8],
    ) {
        let data = self.keep(data);
        self.queue.push_back(Queued::EchoSend {
            mapping,
            destination,
            sequence,
            data,
        });
    }

    fn keep(&mut self, payload: &[u8]) -> Range<usize> {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        start..self.payloads.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<Command<'_>> {
        let Some(queued) = self.queue.pop_front() else {
            self.payloads.clear();
            return None;
        };
        Some(match queued {
            Queued::Plain(command) => command,
            Queued::UdpSend {
                mapping,
                destination,
                payload,
                segment_size,
            } => Command::UdpSend {
                mapping,
                destination,
                payload: &self.payloads[payload],
                segment_size,
            },
            Queued::EchoSend {
                mapping,
                destination,
                sequence,
                data,
            } => Command::EchoSend {
                mapping,
                destination,
                sequence,
                data: &self.payloads[data],
            },
        })
    }
}

/// Everything that leaves the core, and the counters of what does not.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) transmits: TransmitQueue,
    pub(crate) commands: Commands,
    pub(crate) drops: DropCounters,
    fragment: Vec<u8>,
}

impl Output {
    /// Counts a drop.
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// Sends a packet to a peer, in fragments where it is longer than the tunnel's MTU.
    pub(crate) fn send<S: Session>(&mut self, now: Instant, peer: &mut Peer<S>, packet: &[u8]) {
        let mtu = usize::from(peer.spec.mtu);
        if packet.len() <= mtu {
            return seal(now, &mut self.transmits, &mut self.drops, peer, packet);
        }
        let Self {
            transmits,
            drops,
            fragment,
            ..
        } = self;
        fragments(packet, mtu, fragment, |piece| {
            seal(now, transmits, drops, peer, piece)
        });
    }
}

fn seal<S: Session>(
    now: Instant,
    transmits: &mut TransmitQueue,
    drops: &mut DropCounters,
    peer: &mut Peer<S>,
    packet: &[u8],
) {
    let Some(endpoint) = peer.endpoint else {
        return drops.count(DropReason::PeerNotConnected);
    };
    let mut sent = 0;
    let accepted = transmits.push(endpoint, packet.len(), |out| {
        sent = match peer.session.seal(now, packet, out) {
            Sealed::Data(len) | Sealed::Handshake(len) => len,
            Sealed::Waiting => 0,
        };
        sent
    });
    peer.tx_bytes += sent as u64;
    if !accepted {
        drops.count(DropReason::TransmitOverflow);
    }
}
