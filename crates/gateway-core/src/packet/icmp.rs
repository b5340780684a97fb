//! ICMP for IPv4: echo, and the errors the gateway answers with (RFC 792, RFC 1812 section 4.3).

use std::net::Ipv4Addr;

use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4TimeExceeded, IpProtocol,
};

use super::ipv4::{Parsed, write_header};
use super::{ICMP_HEADER, IPV4_HEADER};
use crate::DropReason;

/// Largest ICMP error, so that it passes every path (RFC 1812, section 4.3.2.3).
const MAX_ERROR: usize = 576;

/// Why a destination cannot be reached (RFC 792; RFC 1812, section 5.2.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Host,
    Protocol,
    Port,
    Prohibited,
}

/// An echo request of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EchoRequest<'a> {
    pub(crate) ident: u16,
    pub(crate) sequence: u16,
    pub(crate) data: &'a [u8],
}

/// Reads an echo request; anything else of ICMP is not carried.
pub(crate) fn echo_request<'a>(packet: &Parsed<'a>) -> Result<EchoRequest<'a>, DropReason> {
    let icmp =
        Icmpv4Packet::new_checked(packet.payload).map_err(|_| DropReason::MalformedPacket)?;
    if !icmp.verify_checksum() {
        return Err(DropReason::InvalidChecksum);
    }
    if icmp.msg_type() != Icmpv4Message::EchoRequest || icmp.msg_code() != 0 {
        return Err(DropReason::UnsupportedProtocol);
    }
    Ok(EchoRequest {
        ident: icmp.echo_ident(),
        sequence: icmp.echo_seq_no(),
        data: &packet.payload[ICMP_HEADER..],
    })
}

/// Makes an echo reply in `buffer`; `None` when the data is too long for one packet.
pub(crate) fn echo_reply<'a>(
    buffer: &'a mut Vec<u8>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    echo: EchoRequest<'_>,
    identification: u16,
) -> Option<&'a [u8]> {
    u16::try_from(IPV4_HEADER + ICMP_HEADER + echo.data.len()).ok()?;
    buffer.clear();
    buffer.resize(IPV4_HEADER + ICMP_HEADER, 0);
    buffer.extend_from_slice(echo.data);
    let mut icmp = Icmpv4Packet::new_unchecked(&mut buffer[IPV4_HEADER..]);
    icmp.set_msg_type(Icmpv4Message::EchoReply);
    icmp.set_msg_code(0);
    icmp.set_echo_ident(echo.ident);
    icmp.set_echo_seq_no(echo.sequence);
    icmp.fill_checksum();
    write_header(
        buffer,
        source,
        destination,
        IpProtocol::Icmp,
        identification,
    );
    Some(buffer)
}

/// Makes a destination unreachable message, unless `original` is one that must not be answered.
pub(crate) fn unreachable<'a>(
    buffer: &'a mut Vec<u8>,
    source: Ipv4Addr,
    original: &Parsed<'_>,
    why: Unreachable,
) -> Option<&'a [u8]> {
    let code = match why {
        Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
        Unreachable::Protocol => Icmpv4DstUnreachable::ProtoUnreachable,
        Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
        Unreachable::Prohibited => Icmpv4DstUnreachable::CommProhibited,
    };
    error(
        buffer,
        source,
        original,
        Icmpv4Message::DstUnreachable,
        code.into(),
        0,
    )
}

/// Makes a "fragmentation needed" that names the MTU of the next hop, in bytes (RFC 1191,
/// section 4), unless `original` is one that must not be answered.
pub(crate) fn too_big<'a>(
    buffer: &'a mut Vec<u8>,
    source: Ipv4Addr,
    original: &Parsed<'_>,
    mtu: u16,
) -> Option<&'a [u8]> {
    let (message, code) = (
        Icmpv4Message::DstUnreachable,
        Icmpv4DstUnreachable::FragRequired,
    );
    error(buffer, source, original, message, code.into(), mtu)
}

/// Makes a time exceeded message, unless `original` is one that must not be answered.
pub(crate) fn time_exceeded<'a>(
    buffer: &'a mut Vec<u8>,
    source: Ipv4Addr,
    original: &Parsed<'_>,
) -> Option<&'a [u8]> {
    error(
        buffer,
        source,
        original,
        Icmpv4Message::TimeExceeded,
        Icmpv4TimeExceeded::TtlExpired.into(),
        0,
    )
}

fn error<'a>(
    buffer: &'a mut Vec<u8>,
    source: Ipv4Addr,
    original: &Parsed<'_>,
    message: Icmpv4Message,
    code: u8,
    mtu: u16,
) -> Option<&'a [u8]> {
    if !may_be_answered(original) {
        return None;
    }
    let quoted = original
        .bytes
        .len()
        .min(MAX_ERROR - IPV4_HEADER - ICMP_HEADER);
    buffer.clear();
    buffer.resize(IPV4_HEADER + ICMP_HEADER, 0);
    buffer.extend_from_slice(&original.bytes[..quoted]);
    buffer[IPV4_HEADER + 6..IPV4_HEADER + 8].copy_from_slice(&mtu.to_be_bytes());
    let mut icmp = Icmpv4Packet::new_unchecked(&mut buffer[IPV4_HEADER..]);
    icmp.set_msg_type(message);
    icmp.set_msg_code(code);
    icmp.fill_checksum();
    write_header(buffer, source, original.source, IpProtocol::Icmp, 0);
    Some(buffer)
}

/// No error about an error, a later fragment, or a packet to many (RFC 1122, section 3.2.2).
fn may_be_answered(original: &Parsed<'_>) -> bool {
    let to_many = original.destination.is_multicast() || original.destination.is_broadcast();
    let later_fragment = original
        .fragment
        .is_some_and(|fragment| fragment.offset != 0);
    let is_error = original.protocol == IpProtocol::Icmp
        && !matches!(original.payload.first(), Some(0 | 8 | 13..=18));
    !to_many && !later_fragment && !is_error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::udp_datagram;

    #[test]
    fn an_error_quotes_the_packet_and_is_itself_never_answered() {
        let (mut packet, mut error, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let (client, server) = (
            "10.8.0.2:5".parse().unwrap(),
            "203.0.113.1:53".parse().unwrap(),
        );
        udp_datagram(&mut packet, client, server, &[7; 1200], 1).unwrap();
        let original = Parsed::new(&packet).unwrap();
        let gateway = Ipv4Addr::new(10, 8, 0, 1);
        unreachable(&mut error, gateway, &original, Unreachable::Prohibited).unwrap();
        assert_eq!(error.len(), MAX_ERROR);
        assert_eq!(&error[20..22], &[3, 13]);
        assert_eq!(&error[28..60], &packet[..32]);
        let error = Parsed::new(&error).unwrap();
        assert_eq!(error.destination, *client.ip());
        assert!(
            Icmpv4Packet::new_checked(error.payload)
                .unwrap()
                .verify_checksum()
        );
        assert!(unreachable(&mut again, gateway, &error, Unreachable::Host).is_none());
    }

    #[test]
    fn packets_to_many_are_not_answered() {
        let (mut packet, mut error) = (Vec::new(), Vec::new());
        for many in ["224.0.0.251:5353", "255.255.255.255:67"] {
            udp_datagram(
                &mut packet,
                "10.8.0.2:5".parse().unwrap(),
                many.parse().unwrap(),
                &[],
                1,
            )
            .unwrap();
            let original = Parsed::new(&packet).unwrap();
            assert!(
                unreachable(
                    &mut error,
                    Ipv4Addr::new(10, 8, 0, 1),
                    &original,
                    Unreachable::Port
                )
                .is_none()
            );
        }
    }
}
