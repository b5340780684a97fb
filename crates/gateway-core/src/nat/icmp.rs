//! ICMP through the NAT: pings by their identifier, errors by the packet they quote (RFC 5508).

use std::net::SocketAddrV4;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::rewrite::{Side, replace_address};
use crate::packet::{ICMP_HEADER, IPV4_HEADER, Protocol, Sum, checksum_offset, set_word, word};

/// Bytes of transport header that every error quotes (RFC 792).
const QUOTED: usize = 8;

/// The kinds of ICMP that cross (RFC 792).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    EchoRequest {
        ident: u16,
    },
    EchoReply {
        ident: u16,
    },
    /// An error about a packet.
    Error(Quote),
}

/// The packet that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) protocol: Protocol,
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    /// Where the quoted IP header begins, and its transport header.
    at: usize,
    transport_at: usize,
}

/// Reads a message whose IP header is sound; `None` when it is not one that crosses.
pub(crate) fn read(packet: &[u8]) -> Option<Message> {
    let ip_header = usize::from(Ipv4Packet::new_unchecked(packet).header_len());
    let icmp = packet
        .get(ip_header..)
        .filter(|icmp| icmp.len() >= ICMP_HEADER)?;
    if Sum::of(icmp).folded() != 0xffff {
        return None;
    }
    match (icmp[0], icmp[1]) {
        (8, 0) => Some(Message::EchoRequest {
            ident: word(icmp, 4),
        }),
        (0, 0) => Some(Message::EchoReply {
            ident: word(icmp, 4),
        }),
        // Unreachable, time exceeded, parameter problem. Redirects end here.
        (3 | 11 | 12, _) => quote(packet, ip_header + ICMP_HEADER).map(Message::Error),
        _ => None,
    }
}

fn quote(packet: &[u8], at: usize) -> Option<Quote> {
    let quoted = packet
        .get(at..)
        .filter(|quoted| quoted.len() >= IPV4_HEADER)?;
    let header = Ipv4Packet::new_unchecked(quoted);
    let header_len = usize::from(header.header_len());
    if header.version() != 4 || header_len < IPV4_HEADER || header.frag_offset() != 0 {
        return None;
    }
    let transport = quoted.get(header_len..header_len + QUOTED)?;
    let (protocol, source, destination) = match header.next_header() {
        IpProtocol::Tcp => (Protocol::Tcp, word(transport, 0), word(transport, 2)),
        IpProtocol::Udp => (Protocol::Udp, word(transport, 0), word(transport, 2)),
        IpProtocol::Icmp if matches!(transport[0], 0 | 8) => {
            let ident = word(transport, 4);
            (Protocol::Echo, ident, ident)
        }
        _ => return None,
    };
    Some(Quote {
        protocol,
        source: SocketAddrV4::new(header.src_addr(), source),
        destination: SocketAddrV4::new(header.dst_addr(), destination),
        at,
        transport_at: at + header_len,
    })
}

/// Gives a ping another identifier.
pub(crate) fn replace_ident(packet: &mut [u8], ident: u16) {
    let at = usize::from(Ipv4Packet::new_unchecked(&packet[..]).header_len());
    let change = Sum::default().minus(word(packet, at + 4)).plus(ident);
    let checksum = change.update(word(packet, at + 2));
    set_word(packet, at + 4, ident);
    set_word(packet, at + 2, checksum);
}

/// Replaces one end of the packet that an error quotes, and finishes the error's checksum.
pub(crate) fn replace_quoted_end(packet: &mut [u8], quote: &Quote, side: Side, new: SocketAddrV4) {
    let addresses = replace_address(&mut packet[quote.at..], side, *new.ip());
    let port_at = quote.transport_at
        + match (quote.protocol, side) {
            (Protocol::Echo, _) => 4,
            (_, Side::Source) => 0,
            (_, Side::Destination) => 2,
        };
    let change = match quote.protocol {
        Protocol::Echo => Sum::default(), // No pseudo-header (RFC 792).
        Protocol::Tcp | Protocol::Udp => addresses,
    };
    let change = change.minus(word(packet, port_at)).plus(new.port());
    set_word(packet, port_at, new.port());
    let checksum_at = quote.transport_at + checksum_offset(quote.protocol);
    if packet.len() >= checksum_at + 2 && word(packet, checksum_at) != 0 {
        let checksum = change.update(word(packet, checksum_at));
        set_word(packet, checksum_at, checksum);
    }
    finish(packet, quote.at - ICMP_HEADER);
}

fn finish(packet: &mut [u8], icmp_at: usize) {
    set_word(packet, icmp_at + 2, 0);
    let checksum = Sum::of(&packet[icmp_at..]).checksum();
    set_word(packet, icmp_at + 2, checksum);
}
