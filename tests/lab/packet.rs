//! Inner IPv4 packets, made and read byte by byte so that they can also be wrong.

use std::net::Ipv4Addr;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// What a gateway answered to a packet, as far as the tests care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Destination unreachable, with its code.
    Unreachable(u8),
    /// An echo reply.
    Echo,
    /// A TCP segment with RST.
    Reset,
    /// A TCP segment with SYN and ACK.
    Accepted,
    /// A UDP datagram.
    Datagram,
}

/// The ICMP codes that say "administratively prohibited" (RFC 1122, RFC 1812).
pub const PROHIBITED: [u8; 3] = [9, 10, 13];

/// An IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// An echo request.
pub fn ping(from: Ipv4Addr, to: Ipv4Addr, sequence: u16) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x0b, 0x0b];
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(b"is anybody there");
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, ICMP, &message)
}

/// A UDP datagram.
pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = Vec::new();
    for field in [from.1, to.1, length, 0] {
        datagram.extend_from_slice(&field.to_be_bytes());
    }
    datagram.extend_from_slice(payload);
    let sum = match transport_checksum(from.0, to.0, UDP, &datagram) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(from.0, to.0, UDP, &datagram)
}

/// A segment that opens a TCP connection.
pub fn syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&from.1.to_be_bytes());
    segment.extend_from_slice(&to.1.to_be_bytes());
    segment.extend_from_slice(&[
        0, 0, 0x10, 0, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    segment.extend_from_slice(&[2, 4, 0x05, 0x50]);
    let sum = transport_checksum(from.0, to.0, TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(from.0, to.0, TCP, &segment)
}

/// What `packet` answers to something sent to `target`; `None` when it is about something else.
pub fn reply_about(packet: &[u8], target: Ipv4Addr) -> Option<Reply> {
    let header = usize::from(packet.first()? & 15) * 4;
    let source = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?);
    let payload = packet.get(header..)?;
    match (packet[9], payload.first()?) {
        (ICMP, 3) => {
            let quoted = payload.get(8 + 16..8 + 20)?;
            (quoted == target.octets()).then(|| Reply::Unreachable(payload[1]))
        }
        (ICMP, 0) if source == target => Some(Reply::Echo),
        (TCP, _) if source == target => {
            let flags = *payload.get(13)?;
            if flags & 4 != 0 {
                Some(Reply::Reset)
            } else {
                (flags & 0x12 == 0x12).then_some(Reply::Accepted)
            }
        }
        (UDP, _) if source == target => Some(Reply::Datagram),
        _ => None,
    }
}

fn transport_checksum(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> u16 {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    checksum(&[
        &from.octets(),
        &to.octets(),
        &[0, protocol],
        &length,
        payload,
    ])
}

/// RFC 1071. Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
