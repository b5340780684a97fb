//! Where the parts of a TCP or UDP packet are, and its transport's checksum.

use std::net::SocketAddrV4;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::Sum;
use crate::DropReason;

/// Bytes of a TCP header without options.
pub(crate) const TCP_HEADER: usize = 20;

/// What crosses the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    /// Ping; its identifier stands where others have a port.
    Echo,
}

/// The control bits of a TCP segment (RFC 9293, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpFlags(pub(crate) u8);

impl TcpFlags {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const CWR: u8 = 0x80;

    pub(crate) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Whether the segment asks for a new connection.
    pub(crate) fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }
}

/// Where a packet's parts are. What it says lies inside the packet it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) protocol: Protocol,
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    /// Bytes of IP header.
    pub(crate) ip_header: usize,
    /// Bytes of IP header and transport header.
    pub(crate) headers: usize,
    /// Of TCP only.
    pub(crate) flags: Option<TcpFlags>,
}

impl Layout {
    /// Reads a TCP or UDP packet whose IP header is sound and not of a later fragment.
    pub(crate) fn new(packet: &[u8]) -> Result<Self, DropReason> {
        let header = Ipv4Packet::new_unchecked(packet);
        let ip_header = usize::from(header.header_len());
        let transport = packet.get(ip_header..).ok_or(DropReason::MalformedPacket)?;
        let (protocol, length, flags) = match header.next_header() {
            IpProtocol::Tcp if transport.len() >= TCP_HEADER => {
                let length = usize::from(transport[12] >> 4) * 4;
                (Protocol::Tcp, length, Some(TcpFlags(transport[13])))
            }
            IpProtocol::Udp if transport.len() >= 8 => (Protocol::Udp, 8, None),
            _ => return Err(DropReason::MalformedPacket),
        };
        if (flags.is_some() && length < TCP_HEADER) || length > transport.len() {
            return Err(DropReason::MalformedPacket);
        }
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let (source, destination) = (port(0), port(2));
        if destination == 0 || source == 0 {
            return Err(DropReason::MalformedPacket);
        }
        Ok(Self {
            protocol,
            source: SocketAddrV4::new(header.src_addr(), source),
            destination: SocketAddrV4::new(header.dst_addr(), destination),
            ip_header,
            headers: ip_header + length,
            flags,
        })
    }

    /// Where the transport's checksum is.
    pub(crate) fn checksum_at(&self) -> usize {
        self.ip_header + checksum_offset(self.protocol)
    }
}

/// Where a transport has its checksum, from its header's start.
pub(crate) fn checksum_offset(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
        Protocol::Echo => 2,
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The sequence number of a TCP packet.
pub(crate) fn sequence(packet: &[u8], ip_header: usize) -> u32 {
    u32::from(word(packet, ip_header + 4)) << 16 | u32::from(word(packet, ip_header + 6))
}

pub(crate) fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A UDP checksum that comes out as zero is written as its other form (RFC 768).
pub(crate) fn udp_nonzero(protocol: Protocol, checksum: u16) -> u16 {
    match (protocol, checksum) {
        (Protocol::Udp, 0) => 0xffff,
        (_, checksum) => checksum,
    }
}

/// Finishes the checksum of a packet that came with the pseudo-header's sum only.
pub(crate) fn finish_checksum(packet: &mut [u8], layout: &Layout) {
    let at = layout.checksum_at();
    let checksum = Sum::of(&packet[layout.ip_header..]).checksum();
    set_word(packet, at, udp_nonzero(layout.protocol, checksum));
}

/// Gives a packet its transport's checksum, whatever was in its place.
pub(crate) fn fill_checksum(packet: &mut [u8], layout: &Layout) {
    let sum = Sum::of_pseudo_header(packet, layout.ip_header);
    set_word(packet, layout.checksum_at(), sum.folded());
    finish_checksum(packet, layout);
}

/// Whether the checksum of a TCP packet, or of a UDP packet that has one, is right.
pub(crate) fn checksum_is_right(packet: &[u8], ip_header: usize) -> bool {
    Sum::of_pseudo_header(packet, ip_header)
        .plus_sum(Sum::of(&packet[ip_header..]))
        .folded()
        == 0xffff
}
