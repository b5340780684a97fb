//! Packets as a peer or a remote sends them, with right checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; 20 + payload.len()];
    header.emit(
        &mut Ipv4Packet::new_unchecked(&mut packet),
        &ChecksumCapabilities::default(),
    );
    packet[20..].copy_from_slice(payload);
    packet
}

pub(crate) fn udp(source: SocketAddrV4, destination: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: source.port(),
        dst_port: destination.port(),
    };
    let mut payload = vec![0; 8 + data.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut payload),
        &(*source.ip()).into(),
        &(*destination.ip()).into(),
        data.len(),
        |room| room.copy_from_slice(data),
        &ChecksumCapabilities::default(),
    );
    ipv4(*source.ip(), *destination.ip(), IpProtocol::Udp, &payload)
}

/// Puts options, of a whole number of words, into a packet's header.
pub(crate) fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], options, &packet[20..]].concat();
    let total = packet.len() as u16;
    let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
    header.set_header_len(20 + options.len() as u8);
    header.set_total_len(total);
    header.fill_checksum();
    packet
}

/// Options that ask for a way by 10.0.0.4: loose, strict, and behind another.
pub(crate) const SOURCE_ROUTES: [[u8; 8]; 3] = [
    [131, 7, 4, 10, 0, 0, 4, 0],
    [137, 7, 4, 10, 0, 0, 4, 0],
    [1, 131, 7, 8, 10, 0, 0, 4],
];

pub(crate) fn ping(source: Ipv4Addr, destination: Ipv4Addr, ident: u16, data: &[u8]) -> Vec<u8> {
    let repr = Icmpv4Repr::EchoRequest {
        ident,
        seq_no: 3,
        data,
    };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(
        &mut Icmpv4Packet::new_unchecked(&mut payload),
        &ChecksumCapabilities::default(),
    );
    ipv4(source, destination, IpProtocol::Icmp, &payload)
}
