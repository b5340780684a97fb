//! Replaces one end of a packet, and carries the change into its checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::packet::{IPV4_HEADER, Layout, Protocol, Sum, TCP_HEADER, set_word, udp_nonzero, word};

/// The two ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// Gives the packet another address on one side; returns by how much sums over it change.
pub(crate) fn replace_address(packet: &mut [u8], side: Side, new: Ipv4Addr) -> Sum {
    let at = match side {
        Side::Source => 12,
        Side::Destination => 16,
    };
    let old = Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    packet[at..at + 4].copy_from_slice(&new.octets());
    let change = Sum::default().minus_address(old).plus_address(new);
    let checksum = change.update(word(packet, 10));
    set_word(packet, 10, checksum);
    change
}

/// Gives a TCP or UDP packet another end. `partial`: its checksum is the pseudo-header's sum only.
pub(crate) fn replace_end(
    packet: &mut [u8],
    layout: &Layout,
    side: Side,
    new: SocketAddrV4,
    partial: bool,
) {
    let addresses = replace_address(packet, side, *new.ip());
    let at = layout.ip_header
        + match side {
            Side::Source => 0,
            Side::Destination => 2,
        };
    let old_port = word(packet, at);
    set_word(packet, at, new.port());
    let checksum_at = layout.checksum_at();
    let checksum = word(packet, checksum_at);
    let checksum = if partial {
        addresses.update_unfinished(checksum)
    } else if layout.protocol == Protocol::Udp && checksum == 0 {
        0 // The sender has made none (RFC 768).
    } else {
        let change = addresses.minus(old_port).plus(new.port());
        udp_nonzero(layout.protocol, change.update(checksum))
    };
    set_word(packet, checksum_at, checksum);
}

/// Makes the largest segment that a SYN offers to take fit `mtu` (RFC 879: MTU without the two
/// headers). `partial` as for [`replace_end`].
pub(crate) fn clamp_segment_size(packet: &mut [u8], layout: &Layout, mtu: u16, partial: bool) {
    let most = mtu.saturating_sub((IPV4_HEADER + TCP_HEADER) as u16);
    let mut at = layout.ip_header + TCP_HEADER;
    while at < layout.headers {
        let length = match packet[at] {
            0 => return,
            1 => 1,
            _ => match packet.get(at + 1) {
                Some(length) if *length >= 2 && at + usize::from(*length) <= layout.headers => {
                    usize::from(*length)
                }
                _ => return,
            },
        };
        if packet[at] == 2 && length == 4 {
            let old = word(packet, at + 2);
            if old > most {
                // An option may begin at an odd place, where its bytes belong to two words.
                let even = (at + 2) & !1;
                let words = even..(at + 5) & !1;
                let before = Sum::of(&packet[words.clone()]).folded();
                set_word(packet, at + 2, most);
                let after = Sum::of(&packet[words]).folded();
                if !partial {
                    let checksum_at = layout.checksum_at();
                    let change = Sum::default().minus(before).plus(after);
                    let checksum = change.update(word(packet, checksum_at));
                    set_word(packet, checksum_at, checksum);
                }
            }
            return;
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{TcpFlags, checksum_is_right, finish_checksum, take_hop};
    use proptest::prelude::*;
    use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

    const INSIDE: &str = "10.8.0.2:40000";
    const REMOTE: &str = "203.0.113.9:443";

    /// A TCP packet with these options, whole and with right checksums.
    fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let headers = IPV4_HEADER + TCP_HEADER + options.len();
        let mut bytes = vec![0; headers];
        bytes.extend(payload);
        bytes[IPV4_HEADER + TCP_HEADER..headers].copy_from_slice(options);
        let total = bytes.len() as u16;
        let (source, destination): (SocketAddrV4, SocketAddrV4) =
            (INSIDE.parse().unwrap(), REMOTE.parse().unwrap());
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes[..]);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(total);
        ip.set_hop_limit(64);
        ip.set_next_header(IpProtocol::Tcp);
        ip.set_src_addr(*source.ip());
        ip.set_dst_addr(*destination.ip());
        ip.fill_checksum();
        let segment = &mut bytes[IPV4_HEADER..];
        segment[12] = ((TCP_HEADER + options.len()) / 4 * 16) as u8;
        segment[13] = flags;
        let mut segment = TcpPacket::new_unchecked(segment);
        segment.set_src_port(source.port());
        segment.set_dst_port(destination.port());
        segment.fill_checksum(&(*source.ip()).into(), &(*destination.ip()).into());
        bytes
    }

    fn verify(bytes: &[u8]) {
        let ip = Ipv4Packet::new_checked(bytes).unwrap();
        assert!(ip.verify_checksum());
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        match ip.next_header() {
            IpProtocol::Tcp => assert!(
                TcpPacket::new_checked(ip.payload())
                    .unwrap()
                    .verify_checksum(&source, &destination)
            ),
            _ => assert!(
                UdpPacket::new_checked(ip.payload())
                    .unwrap()
                    .verify_checksum(&source, &destination)
            ),
        }
    }

    proptest! {
        #[test]
        fn either_end_can_be_replaced_and_the_checksums_stay_right(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            address in any::<u32>(), port in 1u16.., destination in any::<bool>(), partial in any::<bool>(),
        ) {
            let mut packet = tcp(TcpFlags::ACK, &[], &payload);
            let layout = Layout::new(&packet).unwrap();
            if partial {
                let sum = Sum::of_pseudo_header(&packet, IPV4_HEADER);
                set_word(&mut packet, layout.checksum_at(), sum.folded());
            }
            let new = SocketAddrV4::new(address.into(), port);
            let side = if destination { Side::Destination } else { Side::Source };
            replace_end(&mut packet, &layout, side, new, partial);
            take_hop(&mut packet);
            let replaced = Layout::new(&packet).unwrap();
            prop_assert_eq!(if destination { replaced.destination } else { replaced.source }, new);
            prop_assert_eq!(packet[8], 63);
            if partial {
                finish_checksum(&mut packet, &replaced);
            }
            verify(&packet);
            prop_assert!(checksum_is_right(&packet, IPV4_HEADER));
        }

        #[test]
        fn a_damaged_segment_is_told(position in any::<proptest::sample::Index>(), flip in 1u8..) {
            let mut packet = tcp(TcpFlags::ACK, &[], b"some payload");
            let at = IPV4_HEADER + position.index(packet.len() - IPV4_HEADER);
            packet[at] ^= flip;
            prop_assert!(!checksum_is_right(&packet, IPV4_HEADER));
        }

        #[test]
        fn no_bytes_make_reading_or_clamping_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut packet = tcp(TcpFlags::SYN, &[], &bytes);
            let more = packet.len().min(60);
            packet[32] = ((more - IPV4_HEADER) / 4 * 16) as u8;
            if let Ok(layout) = Layout::new(&packet) {
                clamp_segment_size(&mut packet, &layout, 1420, false);
            }
        }
    }

    #[test]
    fn the_segment_size_is_clamped_wherever_its_option_begins() {
        for options in [
            vec![2, 4, 0x05, 0xb4],
            vec![1, 2, 4, 0x05, 0xb4, 1, 1, 1],
            vec![4, 2, 1, 2, 4, 0x05, 0xb4, 0],
        ] {
            let mut packet = tcp(TcpFlags::SYN, &options, &[]);
            let layout = Layout::new(&packet).unwrap();
            clamp_segment_size(&mut packet, &layout, 1420, false);
            verify(&packet);
            let segment = TcpPacket::new_checked(&packet[IPV4_HEADER..]).unwrap();
            let mut rest = segment.options();
            let mut found = None;
            while !rest.is_empty() {
                let (next, option) = smoltcp::wire::TcpOption::parse(rest).unwrap();
                if let smoltcp::wire::TcpOption::MaxSegmentSize(size) = option {
                    found = Some(size);
                }
                rest = next;
            }
            assert_eq!(found, Some(1380), "{options:?}");
        }
    }

    #[test]
    fn a_segment_size_that_fits_is_left_alone() {
        let mut packet = tcp(TcpFlags::SYN, &[2, 4, 0x05, 0x00], &[]);
        let before = packet.clone();
        let layout = Layout::new(&packet).unwrap();
        clamp_segment_size(&mut packet, &layout, 1420, false);
        assert_eq!(packet, before);
    }
}
