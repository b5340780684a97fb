//! Packets on their way to the network. Segments of one connection that follow each other become
//! one packet (GSO, Linux `Documentation/networking/segmentation-offloads.rst`), which costs the
//! kernel as much as a single one.
//!
//! Single packets lie one after the other in one buffer; only when a second segment follows does a
//! packet get a large buffer of its own. All buffers are used again.

use std::collections::VecDeque;
use std::ops::Range;

use super::bindings::BindingId;
use super::frame::{Frame, Offload};
use super::rewrite::{Side, replace_end};
use crate::packet::{
    IPV4_HEADER, Layout, Sum, TCP_HEADER, TcpFlags, checksum_is_right, sequence, set_word,
    take_hop, word,
};

/// Longest IPv4 packet.
const MAX_PACKET: usize = 65_535;

/// Bytes of single packets that may wait; beyond, packets are dropped as a router drops them.
const MAX_SINGLES: usize = 8 * 1024 * 1024;

/// Large packets that may wait; beyond, segments stay single.
const MAX_LARGE: usize = 32;

/// Large buffers kept for reuse.
const MAX_SPARE: usize = MAX_LARGE;

/// How far back a packet of the same connection is looked for.
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
    headers: usize,
    segment_size: usize,
    next_sequence: u32,
    closed: bool,
}

#[derive(Debug)]
struct Queued {
    place: Place,
    open: Option<Open>,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    queue: VecDeque<Queued>,
    singles: Vec<u8>,
    large: usize,
    spare: Vec<Vec<u8>>,
    lent: Vec<u8>,
}

impl FrameQueue {
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
        source: std::net::SocketAddrV4,
    ) -> bool {
        let open = growable(packet, layout).then(|| Open {
            binding,
            headers: layout.headers,
            segment_size: packet.len() - layout.headers,
            next_sequence: sequence(packet, layout.ip_header)
                .wrapping_add((packet.len() - layout.headers) as u32),
            closed: layout.flags.is_some_and(|flags| flags.has(TcpFlags::PSH)),
        });
        if let Some(open) = &open
            && self.append(open, packet, layout)
        {
            return true;
        }
        self.close(binding);
        match self.push_single(packet, open) {
            Some(packet) => {
                replace_end(packet, layout, Side::Source, source, false);
                take_hop(packet);
                true
            }
            None => false,
        }
    }

    /// Nothing may be added any more to what waits for this binding: something else follows it.
    fn close(&mut self, binding: BindingId) {
        let open = self.queue.iter_mut().rev().take(LOOK_BACK);
        let mut open = open.filter_map(|queued| queued.open.as_mut());
        if let Some(open) = open.find(|open| open.binding == binding) {
            open.closed = true;
        }
    }

    fn append(&mut self, new: &Open, packet: &[u8], layout: &Layout) -> bool {
        let recent = self.queue.iter().rev().take(LOOK_BACK);
        let of_binding =
            |queued: &Queued| queued.open.is_some_and(|open| open.binding == new.binding);
        let Some(back) = recent.clone().position(of_binding) else {
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
        let fits = !open.closed
            && new.segment_size <= open.segment_size
            && first.len() + new.segment_size <= MAX_PACKET
            && open.next_sequence == sequence(packet, layout.ip_header)
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
        buffer[layout.ip_header + 13] |= packet[layout.ip_header + 13] & TcpFlags::PSH;
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

/// Whether segments may be added to this packet, or it to others: nothing but data.
fn growable(packet: &[u8], layout: &Layout) -> bool {
    layout.ip_header == IPV4_HEADER
        && packet.len() > layout.headers
        && layout
            .flags
            .is_some_and(|flags| flags.0 & !TcpFlags::PSH == TcpFlags::ACK)
}

/// Whether the headers differ in nothing but lengths, identification, sequence and checksums, or
/// in what translation has changed in the first.
fn same_headers(first: &[u8], packet: &[u8], layout: &Layout) -> bool {
    let tcp = layout.ip_header;
    let same = |range: Range<usize>| first[range.clone()] == packet[range];
    same(0..2) // Version, header length, class of service and congestion mark.
        && same(6..8) // Fragmentation.
        && first[8] == packet[8].wrapping_sub(1) // The first has lost its hop already.
        && same(tcp + 8..tcp + 13) // Acknowledgement and data offset.
        && same(tcp + 14..tcp + 16) // Window.
        && same(tcp + 18..layout.headers) // Urgent pointer and options.
}

/// Finishes a grown packet as the sender's offload wants it.
fn leave_to_sender(packet: &mut [u8], open: &Open) -> Offload {
    let total = packet.len();
    let change = Sum::default().minus(word(packet, 2)).plus(total as u16);
    let checksum = change.update(word(packet, 10));
    set_word(packet, 10, checksum);
    set_word(packet, 2, total as u16);
    let sum = Sum::of_pseudo_header(packet, IPV4_HEADER);
    set_word(packet, IPV4_HEADER + 16, sum.folded());
    debug_assert!(open.headers >= IPV4_HEADER + TCP_HEADER);
    Offload {
        segment_size: open.segment_size as u16,
        header_len: open.headers as u16,
        checksum_start: IPV4_HEADER as u16,
        checksum_offset: 16,
    }
}
