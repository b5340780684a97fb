//! The one ICMPv6 message the gateway makes: there is no route (RFC 4443, section 3.1).
//!
//! Without it a client with `::/0` in its AllowedIPs waits for a time-out before it tries IPv4.

use std::net::Ipv6Addr;

use super::Sum;

const HEADER: usize = 40;
const ICMPV6: u8 = 58;

/// The smallest MTU of IPv6; an error quotes no more than fits (RFC 4443, section 2.4 (c)).
const MIN_MTU: usize = 1280;

/// Makes a "no route to destination" for `original` in `buffer`, unless it must not be answered.
pub(crate) fn no_route<'a>(
    buffer: &'a mut Vec<u8>,
    gateway: Ipv6Addr,
    original: &[u8],
) -> Option<&'a [u8]> {
    let header = original.get(..HEADER)?;
    let source: [u8; 16] = header[8..24].try_into().ok()?;
    let to_many = header[24] == 0xff;
    let is_error = header[6] == ICMPV6 && original.get(HEADER).is_none_or(|kind| kind & 0x80 == 0);
    if to_many || is_error {
        return None;
    }
    let quoted = &original[..original.len().min(MIN_MTU - HEADER - 8)];
    buffer.clear();
    buffer.extend_from_slice(&[0x60, 0, 0, 0]);
    buffer.extend_from_slice(&((8 + quoted.len()) as u16).to_be_bytes());
    buffer.extend_from_slice(&[ICMPV6, super::TTL]);
    buffer.extend_from_slice(&gateway.octets());
    buffer.extend_from_slice(&source);
    buffer.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    buffer.extend_from_slice(quoted);
    let checksum = checksum(buffer);
    buffer[HEADER + 2..HEADER + 4].copy_from_slice(&checksum.to_be_bytes());
    Some(buffer)
}

/// The checksum over the pseudo-header and the message (RFC 8200, section 8.1).
fn checksum(packet: &[u8]) -> u16 {
    let message = &packet[HEADER..];
    Sum::of(&packet[8..HEADER])
        .plus(u16::from(ICMPV6))
        .plus(message.len() as u16)
        .plus_sum(Sum::of(message))
        .checksum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_to(destination: Ipv6Addr) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
        packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(destination.octets());
        packet.extend([0; 12]);
        packet
    }

    #[test]
    fn a_packet_is_answered_with_no_route_and_a_right_checksum() {
        let mut buffer = Vec::new();
        let gateway = "fd00::1".parse().unwrap();
        let answer = no_route(
            &mut buffer,
            gateway,
            &udp_to("2001:db8::1".parse().unwrap()),
        )
        .unwrap();
        assert_eq!((answer[HEADER], answer[HEADER + 1]), (1, 0));
        assert_eq!(
            &answer[24..40],
            &"fd00::2".parse::<Ipv6Addr>().unwrap().octets()
        );
        assert_eq!(
            checksum(answer),
            0,
            "a packet with its checksum sums to zero"
        );
    }

    #[test]
    fn errors_multicast_and_stumps_are_not_answered() {
        let mut buffer = Vec::new();
        let gateway = "fd00::1".parse().unwrap();
        assert!(no_route(&mut buffer, gateway, &udp_to("ff02::2".parse().unwrap())).is_none());
        assert!(no_route(&mut buffer, gateway, &[0x60; 39]).is_none());
        let mut error = udp_to("2001:db8::1".parse().unwrap());
        error[6] = ICMPV6;
        error[HEADER] = 3;
        assert!(no_route(&mut buffer, gateway, &error).is_none());
    }
}
