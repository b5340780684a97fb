//! Packets on their way to the network. Segments of one connection that follow each other become
//! one packet (GSO, Linux `Documentation/networking/segmentation-offloads.rst`), which costs the
//! kernel as much as a single one; and so do datagrams of one size to one remote, where the kernel
//! takes them so.
//!
//! Single packets lie one after the other in one buffer; only when a second one is added does a
//! packet get a large buffer of its own. All buffers are used again.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::ops::Range;

use super::bindings::BindingId;
use super::frame::{Frame, Offload, Transport};
use super::rewrite::{Side, replace_end};
use crate::packet::{
    IPV4_HEADER, Layout, Protocol, Sum, TcpFlags, checksum_is_right, checksum_offset, sequence,
    set_word, take_hop, word,
};
use crate::transmit::MAX_SEGMENTS;

/// Longest IPv4 packet.
const MAX_PACKET: usize = 65_535;

/// Bytes of single packets that may wait; beyond, packets are dropped as a router drops them.
const MAX_SINGLES: usize = 8 * 1024 * 1024;

/// Large packets that may wait; beyond, what could be added to others stays single.
const MAX_LARGE: usize = 32;

/// Large buffers kept for reuse.
const MAX_SPARE: usize = MAX_LARGE;

/// How far back a packet of the same connection, or to the same remote, is looked for.
const LOOK_BACK: usize = 16;

#[derive(Debug)]
enum Place {
    Single(Range<usize>),
    Large(Vec<u8>),
}

/// A packet that may still grow.
#[derive(Debug, Clone, Copy)]
struct Open {
    binding: BindingId,
    remote: SocketAddrV4,
    transport: Transport,
    headers: usize,
    segment_size: usize,
    /// Of TCP only.
    next_sequence: u32,
    closed: bool,
}

impl Open {
    /// What a packet is to others that follow it; nothing, if none may be added.
    fn of(binding: BindingId, packet: &[u8], layout: &Layout, trains: bool) -> Option<Self> {
        let segment_size = packet.len() - layout.headers;
        let (transport, next_sequence) = match layout.protocol {
            Protocol::Tcp => {
                let sequence = sequence(packet, layout.ip_header);
                (Transport::Tcp, sequence.wrapping_add(segment_size as u32))
            }
            Protocol::Udp => (Transport::Udp, 0),
            Protocol::Echo => return None,
        };
        growable(packet, layout, trains).then(|| Self {
            binding,
            remote: layout.destination,
            transport,
            headers: layout.headers,
            segment_size,
            next_sequence,
            closed: layout.flags.is_some_and(|flags| flags.has(TcpFlags::PSH)),
        })
    }

    fn is_for(&self, binding: BindingId, remote: SocketAddrV4) -> bool {
        (self.binding, self.remote) == (binding, remote)
    }

    /// Bytes of payload that a packet may have when all are added.
    fn most_payload(&self) -> usize {
        let longest = MAX_PACKET - self.headers;
        match self.transport {
            Transport::Tcp => longest,
            Transport::Udp => longest.min(self.segment_size * MAX_SEGMENTS),
        }
    }
}

#[derive(Debug)]
struct Queued {
    place: Place,
    open: Option<Open>,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    /// Whether datagrams may be joined.
    trains: bool,
    queue: VecDeque<Queued>,
    singles: Vec<u8>,
    large: usize,
    spare: Vec<Vec<u8>>,
    lent: Vec<u8>,
}

impl FrameQueue {
    pub(crate) fn new(trains: bool) -> Self {
        Self {
            trains,
            ..Self::default()
        }
    }

    /// Puts a packet at the end as it is. False when there is no room.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        self.push_single(packet, None).is_some()
    }

    fn push_single(&mut self, packet: &[u8], open: Option<Open>) -> Option<&mut [u8]> {
        let start = self.singles.len();
        if start + packet.len() > MAX_SINGLES {
            return None;
        }
        self.singles.extend_from_slice(packet);
        let place = start..self.singles.len();
        self.queue.push_back(Queued {
            place: Place::Single(place.clone()),
            open,
        });
        Some(&mut self.singles[place])
    }

    /// Puts a packet of a binding at the end, with `source` for its source and one hop less, or
    /// adds it to one that waits. False when there is no room.
    pub(crate) fn push_translated(
        &mut self,
        binding: BindingId,
        packet: &[u8],
        layout: &Layout,
        source: SocketAddrV4,
    ) -> bool {
        let open = Open::of(binding, packet, layout, self.trains);
        if let Some(open) = &open
            && self.append(open, packet, layout)
        {
            return true;
        }
        self.close(binding, layout.destination);
        match self.push_single(packet, open) {
            Some(packet) => {
                replace_end(packet, layout, Side::Source, source, false);
                take_hop(packet);
                true
            }
            None => false,
        }
    }

    /// Nothing may be added any more to what waits for this remote: something else follows it.
    pub(crate) fn close(&mut self, binding: BindingId, remote: SocketAddrV4) {
        let open = self.queue.iter_mut().rev().take(LOOK_BACK);
        let mut open = open.filter_map(|queued| queued.open.as_mut());
        if let Some(open) = open.find(|open| open.is_for(binding, remote)) {
            open.closed = true;
        }
    }

    fn append(&mut self, new: &Open, packet: &[u8], layout: &Layout) -> bool {
        let recent = self.queue.iter().rev().take(LOOK_BACK);
        let with_it = |queued: &Queued| {
            let open = queued.open.as_ref();
            open.is_some_and(|open| open.is_for(new.binding, new.remote))
        };
        let Some(back) = recent.clone().position(with_it) else {
            return false;
        };
        let index = self.queue.len() - 1 - back;
        let Some(open) = self.queue[index].open else {
            return false;
        };
        // Of a large packet all checksums were right when it grew.
        let (first, is_large) = match &self.queue[index].place {
            Place::Single(range) => (&self.singles[range.clone()], false),
            Place::Large(buffer) => (&buffer[..], true),
        };
        let follows = match new.transport {
            Transport::Tcp => open.next_sequence == sequence(packet, layout.ip_header),
            Transport::Udp => true,
        };
        let payload = first.len() - open.headers + new.segment_size;
        let fits = !open.closed
            && follows
            && new.segment_size <= open.segment_size
            && payload <= open.most_payload()
            && open.headers == new.headers
            && same_headers(first, packet, layout)
            && checksum_is_right(packet, IPV4_HEADER)
            && (is_large || checksum_is_right(first, IPV4_HEADER));
        if !fits || !self.enlarge(index) {
            return false;
        }
        let queued = &mut self.queue[index];
        let (Place::Large(buffer), Some(open)) = (&mut queued.place, &mut queued.open) else {
            return false;
        };
        buffer.extend_from_slice(&packet[layout.headers..]);
        if new.transport == Transport::Tcp {
            buffer[layout.ip_header + 13] |= packet[layout.ip_header + 13] & TcpFlags::PSH;
        }
        open.next_sequence = new.next_sequence;
        open.closed = new.closed || new.segment_size < open.segment_size;
        true
    }

    /// Gives a packet room to grow. False when too many have it.
    fn enlarge(&mut self, index: usize) -> bool {
        let Place::Single(range) = &self.queue[index].place else {
            return true;
        };
        if self.large >= MAX_LARGE {
            return false;
        }
        let mut buffer = self
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(MAX_PACKET));
        buffer.extend_from_slice(&self.singles[range.clone()]);
        self.queue[index].place = Place::Large(buffer);
        self.large += 1;
        true
    }

    /// The next packet. The one before is given back with this call.
    pub(crate) fn pop(&mut self) -> Option<Frame<'_>> {
        if self.lent.capacity() > 0 {
            let mut buffer = std::mem::take(&mut self.lent);
            self.large -= 1;
            if self.spare.len() < MAX_SPARE {
                buffer.clear();
                self.spare.push(buffer);
            }
        }
        let Some(queued) = self.queue.pop_front() else {
            self.singles.clear();
            return None;
        };
        match (queued.place, queued.open) {
            (Place::Single(range), _) => Some(Frame {
                packet: &self.singles[range],
                offload: None,
            }),
            (Place::Large(buffer), open) => {
                self.lent = buffer;
                let offload = open.map(|open| leave_to_sender(&mut self.lent, &open));
                Some(Frame {
                    packet: &self.lent,
                    offload,
                })
            }
        }
    }
}

/// Whether others may be added to this packet, or it to others, if its checksum is right: a segment
/// that is nothing but data, or a datagram as long as its packet.
fn growable(packet: &[u8], layout: &Layout, trains: bool) -> bool {
    let ip = layout.ip_header;
    ip == IPV4_HEADER
        && packet.len() > layout.headers
        && match layout.flags {
            Some(flags) => flags.0 & !TcpFlags::PSH == TcpFlags::ACK,
            None => trains && usize::from(word(packet, ip + 4)) == packet.len() - ip,
        }
}

/// Whether the headers differ in nothing but lengths, identification, sequence and checksums, or
/// in what translation has changed in the first.
fn same_headers(first: &[u8], packet: &[u8], layout: &Layout) -> bool {
    let transport = layout.ip_header;
    let same = |range: Range<usize>| first[range.clone()] == packet[range];
    let same_ip = same(0..2) // Version, header length, class of service and congestion mark.
        && same(6..8) // Fragmentation.
        && first[8] == packet[8].wrapping_sub(1); // The first has lost its hop already.
    let same_tcp = || {
        same(transport + 8..transport + 13) // Acknowledgement and data offset.
            && same(transport + 14..transport + 16) // Window.
            && same(transport + 18..layout.headers) // Urgent pointer and options.
    };
    same_ip && (layout.protocol != Protocol::Tcp || same_tcp())
}

/// Finishes a grown packet as the sender's offload wants it.
fn leave_to_sender(packet: &mut [u8], open: &Open) -> Offload {
    let total = packet.len();
    let change = Sum::default().minus(word(packet, 2)).plus(total as u16);
    let checksum = change.update(word(packet, 10));
    set_word(packet, 10, checksum);
    set_word(packet, 2, total as u16);
    if open.transport == Transport::Udp {
        set_word(packet, IPV4_HEADER + 4, (total - IPV4_HEADER) as u16);
    }
    let at = checksum_offset(open.transport.into());
    let sum = Sum::of_pseudo_header(packet, IPV4_HEADER);
    set_word(packet, IPV4_HEADER + at, sum.folded());
    Offload {
        transport: open.transport,
        segment_size: open.segment_size as u16,
        header_len: open.headers as u16,
        checksum_start: IPV4_HEADER as u16,
        checksum_offset: at as u16,
    }
}
