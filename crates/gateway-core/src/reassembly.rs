//! Fragments of inner packets, until their datagram is whole (RFC 791, section 3.2).
//!
//! Invariant: at most [`MAX_DATAGRAMS`] unfinished datagrams and 64 KiB each, whatever peers send.
//! Fragments that overlap discard their datagram, since no honest sender makes them (RFC 5722).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use crate::DropReason;
use crate::packet::{Fragment, IPV4_HEADER, Parsed};

/// Unfinished datagrams kept, over all peers.
const MAX_DATAGRAMS: usize = 64;

/// How long the rest is waited for (RFC 1122, section 3.3.2, allows 60 s to 120 s; peers are one
/// tunnel away, where a fragment either follows at once or is lost).
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest payload of an IPv4 packet.
const MAX_PAYLOAD: usize = 65_535 - IPV4_HEADER;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
    id: u16,
}

#[derive(Debug)]
struct Unfinished {
    key: Key,
    since: Instant,
    ttl: u8,
    payload: Vec<u8>,
    /// Ranges present, sorted and apart from each other.
    present: Vec<(usize, usize)>,
    total: Option<usize>,
}

/// The unfinished datagrams.
#[derive(Debug, Default)]
pub(crate) struct Reassembly(Vec<Unfinished>);

impl Reassembly {
    /// Takes a fragment; the whole packet when it was the last one missing.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        packet: &Parsed<'_>,
        fragment: Fragment,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        self.0
            .retain(|unfinished| now.duration_since(unfinished.since) < PATIENCE);
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            id: fragment.id,
        };
        let index = match self.0.iter().position(|unfinished| unfinished.key == key) {
            Some(index) => index,
            None => {
                if self.0.len() >= MAX_DATAGRAMS {
                    self.0.remove(0);
                }
                self.0.push(Unfinished {
                    key,
                    since: now,
                    ttl: packet.ttl,
                    payload: Vec::new(),
                    present: Vec::new(),
                    total: None,
                });
                self.0.len() - 1
            }
        };
        match self.0[index].add(packet.payload, fragment) {
            Err(Rejected) => {
                self.0.remove(index);
                Err(DropReason::FragmentRejected)
            }
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(self.0.remove(index).into_packet())),
        }
    }
}

struct Rejected;

impl Unfinished {
    /// Adds a fragment; true when the datagram is whole.
    fn add(&mut self, payload: &[u8], fragment: Fragment) -> Result<bool, Rejected> {
        let (start, end) = (fragment.offset, fragment.offset + payload.len());
        let uneven = fragment.more && !payload.len().is_multiple_of(8);
        if payload.is_empty() || uneven || end > MAX_PAYLOAD {
            return Err(Rejected);
        }
        let at = self.present.partition_point(|range| range.0 < start);
        let overlaps_before = at > 0 && self.present[at - 1].1 > start;
        let overlaps_after = self.present.get(at).is_some_and(|next| next.0 < end);
        if overlaps_before || overlaps_after {
            return Err(Rejected);
        }
        if !fragment.more {
            if self.total.is_some() || self.present.last().is_some_and(|last| last.1 > end) {
                return Err(Rejected);
            }
            self.total = Some(end);
        } else if self.total.is_some_and(|total| end > total) {
            return Err(Rejected);
        }
        self.present.insert(at, (start, end));
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload[start..end].copy_from_slice(payload);
        let mut covered = 0;
        for (from, to) in &self.present {
            if *from != covered {
                return Ok(false);
            }
            covered = *to;
        }
        Ok(self.total == Some(covered))
    }

    fn into_packet(self) -> Vec<u8> {
        let mut bytes = vec![0; IPV4_HEADER];
        bytes.extend_from_slice(&self.payload);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
        packet.set_version(4);
        packet.set_header_len(IPV4_HEADER as u8);
        packet.set_total_len((IPV4_HEADER + self.payload.len()) as u16);
        packet.set_ident(self.key.id);
        packet.clear_flags();
        packet.set_hop_limit(self.ttl);
        packet.set_next_header(self.key.protocol);
        packet.set_src_addr(self.key.source);
        packet.set_dst_addr(self.key.destination);
        packet.fill_checksum();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{fragments, udp_datagram, udp_payload};
    use proptest::prelude::*;

    fn pieces(len: usize, mtu: usize, id: u16) -> (Vec<u8>, Vec<Vec<u8>>) {
        let payload: Vec<u8> = (0..len).map(|n| (n / 3) as u8).collect();
        let (mut buffer, mut scratch, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
        let (from, to) = (
            "10.8.0.2:1000".parse().unwrap(),
            "203.0.113.1:53".parse().unwrap(),
        );
        let packet = udp_datagram(&mut buffer, from, to, &payload, id).unwrap();
        fragments(packet, mtu, &mut scratch, |piece| {
            pieces.push(piece.to_vec())
        });
        (payload, pieces)
    }

    fn feed(
        reassembly: &mut Reassembly,
        now: Instant,
        piece: &[u8],
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let parsed = Parsed::new(piece).unwrap();
        reassembly.handle(now, &parsed, parsed.fragment.expect("a fragment"))
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_make_the_datagram_again(
            len in 1500usize..9000,
            order in proptest::collection::vec(any::<u32>(), 16),
        ) {
            let (payload, mut pieces) = pieces(len, 1280, 7);
            let mut keyed: Vec<_> = pieces.drain(..).enumerate().collect();
            keyed.sort_by_key(|(n, _)| order[*n % order.len()]);
            let mut reassembly = Reassembly::default();
            let now = Instant::now();
            let mut whole = None;
            for (_, piece) in &keyed {
                prop_assert!(whole.is_none());
                whole = feed(&mut reassembly, now, piece).unwrap();
            }
            let whole = whole.expect("whole after the last piece");
            let parsed = Parsed::new(&whole).unwrap();
            prop_assert_eq!(udp_payload(&parsed).unwrap().2, &payload[..]);
            prop_assert!(reassembly.0.is_empty());
        }
    }

    #[test]
    fn overlapping_fragments_discard_the_datagram() {
        let (_, pieces) = pieces(3000, 1280, 7);
        let mut reassembly = Reassembly::default();
        let now = Instant::now();
        feed(&mut reassembly, now, &pieces[0]).unwrap();
        assert_eq!(
            feed(&mut reassembly, now, &pieces[0]),
            Err(DropReason::FragmentRejected)
        );
        assert!(reassembly.0.is_empty());
    }

    #[test]
    fn unfinished_datagrams_are_bounded_in_number_and_time() {
        let mut reassembly = Reassembly::default();
        let now = Instant::now();
        for id in 0..1000 {
            feed(&mut reassembly, now, &pieces(3000, 1280, id).1[0]).unwrap();
            assert!(reassembly.0.len() <= MAX_DATAGRAMS);
        }
        feed(
            &mut reassembly,
            now + PATIENCE,
            &pieces(3000, 1280, 5000).1[0],
        )
        .unwrap();
        assert_eq!(reassembly.0.len(), 1);
    }
}
