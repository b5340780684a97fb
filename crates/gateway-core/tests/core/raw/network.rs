//! A network that sends as network cards with offloads do: many segments in one packet.

use popup_gateway_core::{Frame, Offload, Received, Transport};
use smoltcp::wire::{Ipv4Packet, TcpPacket, TcpSeqNumber, UdpPacket};

use crate::support::SentFrame;

const IP: usize = 20;

/// The packets on the wire that a frame becomes: its offload carried out as a card would.
pub(super) fn on_the_wire(frame: &SentFrame) -> Vec<Vec<u8>> {
    let Some(offload) = frame.offload else {
        return vec![frame.packet.clone()];
    };
    let Offload {
        transport,
        segment_size,
        header_len,
        checksum_start,
        checksum_offset,
    } = offload;
    let expected = match transport {
        Transport::Tcp => (20, 16),
        Transport::Udp => (20, 6),
    };
    assert_eq!((checksum_start, checksum_offset), expected);
    let whole = Ipv4Packet::new_checked(&frame.packet).unwrap();
    assert!(whole.verify_checksum());
    assert_eq!(usize::from(whole.total_len()), frame.packet.len());
    if transport == Transport::Udp {
        let datagram = UdpPacket::new_checked(&frame.packet[IP..]).unwrap();
        assert_eq!(usize::from(datagram.len()), frame.packet.len() - IP);
    }
    let (header, payload) = frame.packet.split_at(usize::from(header_len));
    assert!(payload.len() > usize::from(segment_size), "two or more");
    let mut unfinished = frame.packet.clone();
    leave_unfinished(&mut unfinished);
    assert_eq!(
        unfinished, frame.packet,
        "the checksum is the pseudo-header's"
    );
    let (source, destination) = (whole.src_addr().into(), whole.dst_addr().into());
    let last = payload.len().div_ceil(usize::from(segment_size)) - 1;
    let wire: Vec<Vec<u8>> = payload
        .chunks(usize::from(segment_size))
        .enumerate()
        .map(|(n, piece)| {
            let mut packet = [header, piece].concat();
            let total = packet.len() as u16;
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            ip.set_total_len(total);
            ip.fill_checksum();
            match transport {
                Transport::Tcp => {
                    let mut segment = TcpPacket::new_unchecked(&mut packet[IP..]);
                    let sequence = segment.seq_number() + n * usize::from(segment_size);
                    segment.set_seq_number(sequence);
                    segment.set_psh(segment.psh() && n == last);
                    segment.fill_checksum(&source, &destination);
                }
                Transport::Udp => {
                    let mut datagram = UdpPacket::new_unchecked(&mut packet[IP..]);
                    datagram.set_len(total - IP as u16);
                    datagram.fill_checksum(&source, &destination);
                }
            }
            packet
        })
        .collect();
    assert_eq!(taken_apart(frame), wire);
    wire
}

/// The packets that the gateway itself takes a frame apart into, numbered as a card leaves them.
fn taken_apart(frame: &SentFrame) -> Vec<Vec<u8>> {
    let number = [frame.packet[4], frame.packet[5]];
    let mut packets = Vec::new();
    let frame = Frame {
        packet: &frame.packet,
        offload: frame.offload,
    };
    frame.split(|packet| {
        let mut packet = packet.to_vec();
        packet[4..6].copy_from_slice(&number);
        Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        packets.push(packet);
    });
    packets
}

/// Joins what follows each other as GRO does, and leaves checksums unfinished as a card does.
pub(super) fn coalesce(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Received)> {
    let mut joined: Vec<(Vec<u8>, Received, TcpSeqNumber)> = Vec::new();
    for packet in packets {
        let (headers, sequence, flags) = read(&packet);
        let payload = packet.len() - headers;
        let next = sequence + payload;
        if let Some((first, received, expected)) = joined.last_mut()
            && *expected == sequence
            && payload > 0
            && flags & 0x27 == 0
            && first[IP + 12..IP + 13] == packet[IP + 12..IP + 13]
            && first[IP + 8..IP + 12] == packet[IP + 8..IP + 12]
            && first[IP + 14..IP + 16] == packet[IP + 14..IP + 16]
            && first.len() + payload < 60_000
        {
            let size = first.len() - headers;
            let size = usize::from(received.segment_size.unwrap_or(size as u16));
            if payload <= size && (first.len() - headers).is_multiple_of(size) {
                first.extend_from_slice(&packet[headers..]);
                first[IP + 13] |= packet[IP + 13] & 0x08;
                received.segment_size = Some(size as u16);
                *expected = next;
                continue;
            }
        }
        joined.push((packet, Received::default(), next));
    }
    joined
        .into_iter()
        .map(|(mut packet, mut received, _)| {
            received.partial_checksum = true;
            leave_unfinished(&mut packet);
            (packet, received)
        })
        .collect()
}

fn read(packet: &[u8]) -> (usize, TcpSeqNumber, u8) {
    let segment = TcpPacket::new_checked(&packet[IP..]).unwrap();
    (
        IP + usize::from(segment.header_len()),
        segment.seq_number(),
        packet[IP + 13],
    )
}

/// Puts the pseudo-header's sum where the checksum belongs.
pub(super) fn leave_unfinished(packet: &mut [u8]) {
    let total = packet.len() as u16;
    let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
    ip.set_total_len(total);
    ip.fill_checksum();
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let at = match u8::from(ip.next_header()) {
        6 => 16,
        _ => 6,
    };
    let protocol = u32::from(u8::from(ip.next_header()));
    let words = [source, destination].map(|address| {
        let bits = u32::from(address);
        (bits >> 16) + (bits & 0xffff)
    });
    let mut sum = words[0] + words[1] + protocol + u32::from(total) - IP as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[IP + at..IP + at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}
