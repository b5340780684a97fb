//! Datagrams on their way to peers, encrypted straight into the buffers that are handed to the
//! kernel.
//!
//! Datagrams of one size to one endpoint follow each other in one buffer, so that they can leave
//! in one call (`UDP_SEGMENT`, Linux 4.18). Buffers are used again; in steady state nothing is
//! allocated.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::session::{MIN_OUTPUT, OVERHEAD};

/// Most datagrams in one send (`UDP_MAX_SEGMENTS` in Linux up to 6.x).
pub(crate) const MAX_SEGMENTS: usize = 64;

/// Most bytes in one send: the largest UDP payload over IPv4.
pub(crate) const MAX_BYTES: usize = 65_507;

/// Batches kept for reuse; more are only needed in a burst.
const MAX_SPARE: usize = 32;

/// How far back an open batch of the same endpoint is looked for.
const LOOK_BACK: usize = 8;

/// Bytes that may wait; beyond, packets are dropped as a router drops them.
const MAX_QUEUED: usize = 16 * 1024 * 1024;

/// Where a peer is reached: its outer address, and where it speaks to. Answers leave from there,
/// or a firewall on the way would not know them for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer's outer address.
    pub address: SocketAddr,
    /// Which of the host's addresses it speaks to, where known.
    pub local: Option<IpAddr>,
    /// Index of the shell's socket.
    pub socket: usize,
}

/// Datagrams for one endpoint, each `segment_size` long, the last one perhaps shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: Endpoint,
    /// The datagrams, one after the other.
    pub contents: &'a [u8],
    /// The length of each.
    pub segment_size: usize,
}

struct Batch {
    destination: Endpoint,
    buffer: Vec<u8>,
    filled: usize,
    segments: usize,
    segment_size: usize,
    closed: bool,
}

impl Batch {
    fn takes(&self, destination: Endpoint, room: usize, expected: usize) -> bool {
        !self.closed
            && self.destination == destination
            && self.segments < MAX_SEGMENTS
            && expected <= self.segment_size
            && self.filled + room <= self.buffer.len()
    }
}

/// The queue of batches.
#[derive(Default)]
pub(crate) struct TransmitQueue {
    batches: VecDeque<Batch>,
    lent: Option<Batch>,
    spare: Vec<Vec<u8>>,
    queued: usize,
}

impl std::fmt::Debug for TransmitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TransmitQueue({} batches, {} bytes)",
            self.batches.len(),
            self.queued
        )
    }
}

impl TransmitQueue {
    /// Lends room for one datagram that carries `packet_len` bytes to `write`, which returns how
    /// many bytes it filled (0: nothing is sent). False when the queue is full.
    pub(crate) fn push(
        &mut self,
        destination: Endpoint,
        packet_len: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        if self.queued > MAX_QUEUED {
            return false;
        }
        let expected = packet_len + OVERHEAD;
        let room = expected.max(MIN_OUTPUT);
        let open = self
            .batches
            .iter()
            .rev()
            .take(LOOK_BACK)
            .position(|batch| batch.destination == destination);
        let last = open.map(|back| self.batches.len() - 1 - back);
        let index =
            match last.filter(|index| self.batches[*index].takes(destination, room, expected)) {
                Some(index) => index,
                None => {
                    let buffer = self.spare.pop().unwrap_or_else(|| vec![0; MAX_BYTES]);
                    self.batches.push_back(Batch {
                        destination,
                        buffer,
                        filled: 0,
                        segments: 0,
                        segment_size: expected,
                        closed: false,
                    });
                    self.batches.len() - 1
                }
            };
        let batch = &mut self.batches[index];
        let start = batch.filled;
        let written = write(&mut batch.buffer[start..start + room]);
        if written == 0 {
            if batch.segments == 0 {
                batch.closed = true; // Stays empty and is skipped when it is taken.
            }
            return true;
        }
        if batch.segments == 0 {
            batch.segment_size = written;
        }
        batch.filled += written;
        batch.segments += 1;
        batch.closed = written != batch.segment_size;
        self.queued += written;
        if written > batch.segment_size {
            // A handshake came out where shorter data was expected: it must stand alone.
            self.split_last(index, written);
        }
        true
    }

    fn split_last(&mut self, index: usize, written: usize) {
        let batch = &mut self.batches[index];
        batch.filled -= written;
        batch.segments -= 1;
        let mut buffer = self.spare.pop().unwrap_or_else(|| vec![0; MAX_BYTES]);
        buffer[..written].copy_from_slice(&batch.buffer[batch.filled..batch.filled + written]);
        let destination = batch.destination;
        self.batches.insert(
            index + 1,
            Batch {
                destination,
                buffer,
                filled: written,
                segments: 1,
                segment_size: written,
                closed: true,
            },
        );
    }

    /// The next batch to be sent. The one before is given back with this call.
    pub(crate) fn pop(&mut self) -> Option<Transmit<'_>> {
        if let Some(sent) = self.lent.take() {
            self.recycle(sent);
        }
        loop {
            let batch = self.batches.pop_front()?;
            if batch.filled == 0 {
                self.recycle(batch);
                continue;
            }
            self.queued -= batch.filled;
            let batch = self.lent.insert(batch);
            return Some(Transmit {
                destination: batch.destination,
                contents: &batch.buffer[..batch.filled],
                segment_size: batch.segment_size,
            });
        }
    }

    fn recycle(&mut self, batch: Batch) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(batch.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(queue: &mut TransmitQueue, destination: Endpoint, len: usize, mark: u8) {
        assert!(queue.push(destination, len - OVERHEAD, |out| {
            out[..len].fill(mark);
            len
        }));
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            address: SocketAddr::from(([198, 51, 100, 2], port)),
            local: None,
            socket: 0,
        }
    }

    #[test]
    fn equal_datagrams_to_one_endpoint_leave_together() {
        let mut queue = TransmitQueue::default();
        for mark in 0..3 {
            fill(&mut queue, endpoint(1), 1452, mark);
        }
        fill(&mut queue, endpoint(1), 200, 3);
        fill(&mut queue, endpoint(1), 1452, 4);
        let first = queue.pop().unwrap();
        assert_eq!(
            (first.contents.len(), first.segment_size),
            (3 * 1452 + 200, 1452)
        );
        let second = queue.pop().unwrap();
        assert_eq!((second.contents.len(), second.contents[0]), (1452, 4));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn a_handshake_in_place_of_data_stands_alone() {
        let mut queue = TransmitQueue::default();
        fill(&mut queue, endpoint(1), 100, 1);
        assert!(queue.push(endpoint(1), 60, |out| {
            out[..148].fill(2);
            148
        }));
        let sizes: Vec<usize> =
            std::iter::from_fn(|| queue.pop().map(|t| t.contents.len())).collect();
        assert_eq!(sizes, [100, 148]);
    }

    proptest! {
        #[test]
        fn every_datagram_arrives_once_and_in_order_for_its_endpoint(
            datagrams in proptest::collection::vec((0u16..4, 148usize..1500), 0..400)
        ) {
            let mut queue = TransmitQueue::default();
            let mut expected: Vec<Vec<(usize, u8)>> = vec![Vec::new(); 4];
            for (number, (port, len)) in datagrams.iter().enumerate() {
                fill(&mut queue, endpoint(*port), *len, number as u8);
                expected[usize::from(*port)].push((*len, number as u8));
            }
            let mut arrived: Vec<Vec<(usize, u8)>> = vec![Vec::new(); 4];
            while let Some(transmit) = queue.pop() {
                let pieces: Vec<_> = transmit.contents.chunks(transmit.segment_size).collect();
                prop_assert!(pieces.len() <= MAX_SEGMENTS && transmit.contents.len() <= MAX_BYTES);
                for piece in pieces {
                    arrived[usize::from(transmit.destination.address.port())].push((piece.len(), piece[0]));
                }
            }
            prop_assert_eq!(arrived, expected);
        }
    }
}
