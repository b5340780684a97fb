//! IPv4 headers and UDP datagrams.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket};

use super::layout::{set_word, word};
use super::{IPV4_HEADER, Sum, TTL, UDP_HEADER};
use crate::DropReason;

// Options of an IPv4 header (RFC 791, section 3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Which IP a packet is of, with the addresses cryptokey routing looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4 { source: Ipv4Addr },
    V6 { source: Ipv6Addr },
}

/// The version and the source of an inner packet.
pub(crate) fn version(packet: &[u8]) -> Result<Version, DropReason> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let source = packet
                .get(12..16)
                .and_then(|octets| <[u8; 4]>::try_from(octets).ok());
            source.map(|octets| Version::V4 {
                source: octets.into(),
            })
        }
        Some(6) if packet.len() >= 40 => {
            let source = packet
                .get(8..24)
                .and_then(|octets| <[u8; 16]>::try_from(octets).ok());
            source.map(|octets| Version::V6 {
                source: octets.into(),
            })
        }
        _ => None,
    }
    .ok_or(DropReason::MalformedPacket)
}

/// Where a fragment belongs in its datagram (RFC 791, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u16,
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// An IPv4 packet whose header is sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parsed<'a> {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: IpProtocol,
    pub(crate) ttl: u8,
    /// `None` when the packet is whole.
    pub(crate) fragment: Option<Fragment>,
    pub(crate) payload: &'a [u8],
    /// The packet, without bytes that follow its total length.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Parsed<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| DropReason::MalformedPacket)?;
        if packet.version() != 4 || usize::from(packet.header_len()) < IPV4_HEADER {
            return Err(DropReason::MalformedPacket);
        }
        if !packet.verify_checksum() {
            return Err(DropReason::InvalidChecksum);
        }
        let fragmented = packet.more_frags() || packet.frag_offset() != 0;
        Ok(Self {
            source: packet.src_addr(),
            destination: packet.dst_addr(),
            protocol: packet.next_header(),
            ttl: packet.hop_limit(),
            fragment: fragmented.then(|| Fragment {
                id: packet.ident(),
                offset: usize::from(packet.frag_offset()),
                more: packet.more_frags(),
            }),
            payload: &bytes[usize::from(packet.header_len())..usize::from(packet.total_len())],
            bytes: &bytes[..usize::from(packet.total_len())],
        })
    }

    /// Whether the header asks for a way of the sender's own choice: loose or strict source and
    /// record route (RFC 791, section 3.1). An address further on that way is not the destination,
    /// so that nothing which checks destinations has seen it (RFC 7126, sections 4.3 and 4.4).
    pub(crate) fn is_source_routed(&self) -> Result<bool, DropReason> {
        let header = &self.bytes[..self.bytes.len() - self.payload.len()];
        let mut options = header.get(IPV4_HEADER..).unwrap_or_default();
        let mut found = false;
        while let [kind, rest @ ..] = options {
            options = match (*kind, rest) {
                (END_OF_OPTIONS, _) => break,
                (NO_OPERATION, _) => rest,
                (_, [length, ..]) if *length >= 2 => options
                    .get(usize::from(*length)..)
                    .ok_or(DropReason::MalformedPacket)?,
                _ => return Err(DropReason::MalformedPacket),
            };
            found |= matches!(*kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE);
        }
        Ok(found)
    }
}

/// Fills in an IPv4 header without options at the start of `buffer`.
pub(super) fn write_header(
    buffer: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
    identification: u16,
) {
    let total = u16::try_from(buffer.len()).unwrap_or(u16::MAX);
    let mut packet = Ipv4Packet::new_unchecked(buffer);
    packet.set_version(4);
    packet.set_header_len(IPV4_HEADER as u8);
    packet.set_dscp(0);
    packet.set_ecn(0);
    packet.set_total_len(total);
    packet.set_ident(identification);
    packet.clear_flags();
    packet.set_dont_frag(false);
    packet.set_more_frags(false);
    packet.set_frag_offset(0);
    packet.set_hop_limit(TTL);
    packet.set_next_header(protocol);
    packet.set_src_addr(source);
    packet.set_dst_addr(destination);
    packet.fill_checksum();
}

/// The ports and payload of a UDP datagram.
pub(crate) fn udp_payload<'a>(packet: &Parsed<'a>) -> Result<(u16, u16, &'a [u8]), DropReason> {
    let udp = UdpPacket::new_checked(packet.payload).map_err(|_| DropReason::MalformedPacket)?;
    if !udp.verify_checksum(&packet.source.into(), &packet.destination.into()) {
        return Err(DropReason::InvalidChecksum);
    }
    if udp.dst_port() == 0 {
        return Err(DropReason::MalformedPacket);
    }
    Ok((
        udp.src_port(),
        udp.dst_port(),
        &packet.payload[UDP_HEADER..usize::from(udp.len())],
    ))
}

/// Makes a UDP datagram in `buffer`; `None` when the payload is too long for one.
pub(crate) fn udp_datagram<'a>(
    buffer: &'a mut Vec<u8>,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    payload: &[u8],
    identification: u16,
) -> Option<&'a [u8]> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    u16::try_from(IPV4_HEADER + usize::from(length)).ok()?;
    buffer.clear();
    buffer.resize(IPV4_HEADER + UDP_HEADER, 0);
    buffer.extend_from_slice(payload);
    let mut udp = UdpPacket::new_unchecked(&mut buffer[IPV4_HEADER..]);
    udp.set_src_port(source.port());
    udp.set_dst_port(destination.port());
    udp.set_len(length);
    udp.fill_checksum(&(*source.ip()).into(), &(*destination.ip()).into());
    write_header(
        buffer,
        *source.ip(),
        *destination.ip(),
        IpProtocol::Udp,
        identification,
    );
    Some(buffer)
}

/// Takes one hop off the packet's life (RFC 1812, section 5.3.1).
pub(crate) fn take_hop(packet: &mut [u8]) {
    let old = word(packet, 8);
    let new = old.saturating_sub(0x0100);
    set_word(packet, 8, new);
    let checksum = Sum::default().minus(old).plus(new).update(word(packet, 10));
    set_word(packet, 10, checksum);
}

/// Cuts a packet that is longer than `mtu` and gives the pieces to `emit` (RFC 791, section 3.2).
pub(crate) fn fragments(
    packet: &[u8],
    mtu: usize,
    scratch: &mut Vec<u8>,
    mut emit: impl FnMut(&[u8]),
) {
    if packet.len() <= mtu {
        return emit(packet);
    }
    let whole = Ipv4Packet::new_unchecked(packet);
    let (header_len, base, last_of_all) = (
        usize::from(whole.header_len()),
        usize::from(whole.frag_offset()),
        !whole.more_frags(),
    );
    let (header, payload) = packet.split_at(header_len.clamp(IPV4_HEADER, packet.len()));
    let step = (mtu.saturating_sub(header.len()) & !7).max(8);
    let mut offset = 0;
    while offset < payload.len() {
        let end = (offset + step).min(payload.len());
        scratch.clear();
        scratch.extend_from_slice(header);
        scratch.extend_from_slice(&payload[offset..end]);
        let mut piece = Ipv4Packet::new_unchecked(&mut scratch[..]);
        piece.set_total_len((header.len() + end - offset) as u16);
        piece.set_more_frags(end < payload.len() || !last_of_all);
        piece.set_frag_offset((base + offset) as u16);
        piece.fill_checksum();
        emit(scratch);
        offset = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = version(&bytes);
            if let Ok(packet) = Parsed::new(&bytes) {
                let _ = udp_payload(&packet);
                let _ = packet.is_source_routed();
            }
        }

        #[test]
        fn arbitrary_options_never_panic_and_a_source_route_first_is_always_found(
            options in proptest::collection::vec(any::<u8>(), 0..=40),
            kind in prop_oneof![Just(LOOSE_SOURCE_ROUTE), Just(STRICT_SOURCE_ROUTE)],
        ) {
            let packet = with_options(&options);
            let _ = Parsed::new(&packet).unwrap().is_source_routed();
            let rest = &options[..options.len().min(36)];
            let packet = with_options(&[&[1, kind, 3, 4][..], rest].concat());
            let found = Parsed::new(&packet).unwrap().is_source_routed();
            prop_assert_ne!(found, Ok(false));
        }

        #[test]
        fn a_damaged_udp_datagram_never_panics_and_is_never_misread(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            position in any::<proptest::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut buffer = Vec::new();
            let (a, b) = (address("10.8.0.2:1000"), address("203.0.113.1:53"));
            udp_datagram(&mut buffer, a, b, &payload, 7).unwrap();
            let position = position.index(buffer.len());
            buffer[position] ^= flip;
            if let Ok(packet) = Parsed::new(&buffer)
                && packet.fragment.is_none()
                && packet.protocol == IpProtocol::Udp
                && let Ok((_, _, read)) = udp_payload(&packet)
            {
                // Only a change that the checksum does not cover may pass, or the one that
                // makes the checksum field itself say "none".
                prop_assert!(read == payload || buffer[26..28] == [0, 0]);
            }
        }

        #[test]
        fn fragments_carry_every_byte_once(len in 0usize..8000, mtu in 576usize..1500) {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let (mut buffer, mut scratch) = (Vec::new(), Vec::new());
            let packet = udp_datagram(&mut buffer, address("203.0.113.1:53"), address("10.8.0.2:9"), &payload, 7)
                .unwrap()
                .to_vec();
            let mut joined = vec![None; packet.len() - IPV4_HEADER];
            let mut last = 0;
            fragments(&packet, mtu, &mut scratch, |piece| {
                assert!(piece.len() <= mtu);
                let parsed = Parsed::new(piece).unwrap();
                let offset = parsed.fragment.map_or(0, |fragment| fragment.offset);
                for (n, byte) in parsed.payload.iter().enumerate() {
                    assert_eq!(joined[offset + n].replace(*byte), None);
                }
                last += usize::from(!parsed.fragment.is_some_and(|fragment| fragment.more));
            });
            prop_assert_eq!(last, 1);
            prop_assert_eq!(joined.into_iter().collect::<Option<Vec<u8>>>().unwrap(), &packet[IPV4_HEADER..]);
        }
    }

    /// A packet with these options, and zeroes up to a whole number of words.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut packet = [&[0; IPV4_HEADER][..], options].concat();
        packet.resize(packet.len().next_multiple_of(4), 0);
        let header_len = packet.len() as u8;
        packet.extend(b"payload");
        write_header(
            &mut packet,
            [10, 8, 0, 2].into(),
            [203, 0, 113, 1].into(),
            IpProtocol::Udp,
            7,
        );
        let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
        header.set_header_len(header_len);
        header.fill_checksum();
        packet
    }

    #[test]
    fn a_source_route_is_found_among_other_options() {
        let found = |options: &[u8]| {
            Parsed::new(&with_options(options))
                .unwrap()
                .is_source_routed()
        };
        for innocent in [
            &[] as &[u8],
            &[1, 1, 1, 1],
            &[148, 4, 0, 0],
            &[7, 7, 4, 131, 137, 0, 0, 0],
            &[0, 131, 3, 4],
        ] {
            assert_eq!(found(innocent), Ok(false), "{innocent:?}");
        }
        for routed in [
            &[131, 7, 4, 10, 0, 0, 4][..],
            &[137, 7, 8, 10, 0, 0, 4, 0],
            &[1, 148, 4, 0, 0, 137, 3, 4],
        ] {
            assert_eq!(found(routed), Ok(true), "{routed:?}");
        }
        for malformed in [
            &[148, 0, 0, 0][..],
            &[148, 1, 0, 0],
            &[148, 5, 0, 0],
            &[131, 3, 4, 148],
            &[1, 1, 1, 131],
        ] {
            let reason = DropReason::MalformedPacket;
            assert_eq!(found(malformed), Err(reason), "{malformed:?}");
        }
    }

    #[test]
    fn a_fragment_with_options_is_cut_again_in_place() {
        let (mut buffer, mut scratch, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
        udp_datagram(
            &mut buffer,
            address("203.0.113.1:53"),
            address("10.8.0.2:9"),
            &[7; 1392],
            7,
        )
        .unwrap();
        buffer.splice(IPV4_HEADER..IPV4_HEADER, [1, 1, 1, 1]); // Four "no operation" options.
        let total = buffer.len() as u16;
        let mut packet = Ipv4Packet::new_unchecked(&mut buffer[..]);
        packet.set_header_len(24);
        packet.set_total_len(total);
        packet.set_frag_offset(800);
        packet.set_more_frags(true);
        packet.fill_checksum();
        fragments(&buffer, 576, &mut scratch, |piece| {
            let parsed = Parsed::new(piece).unwrap();
            let fragment = parsed.fragment.unwrap();
            assert!(fragment.more && piece[20..24] == [1, 1, 1, 1]);
            offsets.push((fragment.offset, parsed.payload.len()));
        });
        assert_eq!(offsets, [(800, 552), (1352, 552), (1904, 296)]);
    }

    #[test]
    fn a_datagram_longer_than_ipv4_allows_is_not_made() {
        let mut buffer = Vec::new();
        let long = vec![0; 65_508];
        assert!(
            udp_datagram(
                &mut buffer,
                address("1.1.1.1:1"),
                address("2.2.2.2:2"),
                &long,
                1
            )
            .is_none()
        );
        assert!(
            udp_datagram(
                &mut buffer,
                address("1.1.1.1:1"),
                address("2.2.2.2:2"),
                &long[1..],
                1
            )
            .is_some()
        );
    }
}
