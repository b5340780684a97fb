//! Which frames reach the gateway: a classic BPF program in the kernel (bpf(4), Linux 2.2).
//!
//! What is not for the NAT never wakes the process: other addresses, other protocols, and ports
//! outside the block. Fragments but the first carry no port, so all of them pass; the core knows
//! which belong to a datagram of its own.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use socket2::SockFilter;

use crate::io::bpf::{
    IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, IF_GREATER, LOAD_BYTE, LOAD_HALF, LOAD_HALF_AT_X,
    LOAD_HEADER_LEN_TO_X, LOAD_WORD, RETURN,
};

// Offsets from the Ethernet header.
const ETHERTYPE: u32 = 12;
const IP: u32 = 14;
const IP_FRAGMENT: u32 = IP + 6;
const IP_PROTOCOL: u32 = IP + 9;
const IP_DESTINATION: u32 = IP + 16;
const DESTINATION_PORT: u32 = IP + 2;

const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const FRAGMENT_OFFSET: u32 = 0x1fff;

/// More than any frame has.
const WHOLE_FRAME: u32 = 0x0004_0000;

/// Where a test leads.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// Past so many of the instructions that follow.
    Skip(u8),
    Accept,
    Drop,
}

/// One instruction; loads go on with the next.
type Step = (u16, u32, To, To);

/// The frames of a NAT with this address and these ports.
pub(super) fn frames_for(address: Ipv4Addr, ports: &RangeInclusive<u16>) -> Vec<SockFilter> {
    let load = |code, k| (code, k, To::Next, To::Next);
    let steps = [
        load(LOAD_HALF, ETHERTYPE),
        (IF_EQUAL, libc::ETH_P_IP as u32, To::Next, To::Drop),
        load(LOAD_WORD, IP_DESTINATION),
        (IF_EQUAL, address.to_bits(), To::Next, To::Drop),
        load(LOAD_BYTE, IP_PROTOCOL),
        (IF_EQUAL, ICMP, To::Accept, To::Next),
        (IF_EQUAL, TCP, To::Skip(1), To::Next),
        (IF_EQUAL, UDP, To::Next, To::Drop),
        load(LOAD_HALF, IP_FRAGMENT),
        (IF_ANY_BIT, FRAGMENT_OFFSET, To::Accept, To::Next),
        load(LOAD_HEADER_LEN_TO_X, IP),
        load(LOAD_HALF_AT_X, DESTINATION_PORT),
        (IF_AT_LEAST, (*ports.start()).into(), To::Next, To::Drop),
        (IF_GREATER, (*ports.end()).into(), To::Drop, To::Accept),
    ];
    assemble(&steps)
}

/// Nothing passes.
pub(super) fn nothing() -> [SockFilter; 1] {
    [SockFilter::new(RETURN, 0, 0, 0)]
}

/// Resolves the targets; the program ends with the two returns they lead to.
fn assemble(steps: &[Step]) -> Vec<SockFilter> {
    let last = steps.len();
    let offset = |at: usize, to: To| match to {
        To::Next => 0,
        To::Skip(count) => count,
        To::Accept => (last - at - 1) as u8,
        To::Drop => (last - at) as u8,
    };
    let program = steps
        .iter()
        .enumerate()
        .map(|(at, &(code, k, yes, no))| SockFilter::new(code, offset(at, yes), offset(at, no), k));
    let returns = [WHOLE_FRAME, 0].map(|len| SockFilter::new(RETURN, 0, 0, len));
    program.chain(returns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const PORTS: RangeInclusive<u16> = 10_000..=31_999;

    /// Runs the program in the kernel, on a socket that this frame is sent to.
    fn passes(frame: &[u8]) -> bool {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let socket = socket2::SockRef::from(&ours);
        socket.attach_filter(&frames_for(ADDRESS, &PORTS)).unwrap();
        ours.set_nonblocking(true).unwrap();
        // A frame that the filter refuses is dropped, or the send is refused.
        let _ = theirs.send(frame);
        ours.recv(&mut [0; 70_000]).is_ok()
    }

    fn frame(protocol: u8, destination: Ipv4Addr, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 20];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = protocol;
        frame[30..34].copy_from_slice(&destination.octets());
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn the_blocks_ports_pass_and_the_ones_beside_it_do_not() {
        for protocol in [6, 17] {
            for port in [10_000, 20_000, 31_999] {
                assert!(passes(&frame(protocol, ADDRESS, port)), "{protocol} {port}");
            }
            for port in [0, 9_999, 32_000, 65_535] {
                assert!(
                    !passes(&frame(protocol, ADDRESS, port)),
                    "{protocol} {port}"
                );
            }
        }
    }

    #[test]
    fn the_port_is_found_behind_ip_options() {
        let mut with_options = frame(6, ADDRESS, 443);
        with_options[14] = 0x46;
        assert!(!passes(&with_options));
        with_options[40..42].copy_from_slice(&10_001_u16.to_be_bytes());
        assert!(passes(&with_options));
    }

    #[test]
    fn icmp_and_later_fragments_pass_whatever_is_where_the_port_would_be() {
        assert!(passes(&frame(1, ADDRESS, 1)));
        let mut fragment = frame(17, ADDRESS, 1);
        fragment[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
        assert!(!passes(&fragment), "a first fragment has a port");
        fragment[20..22].copy_from_slice(&0x00b9_u16.to_be_bytes());
        assert!(passes(&fragment));
    }

    #[test]
    fn other_addresses_protocols_and_ethertypes_are_dropped() {
        assert!(!passes(&frame(6, Ipv4Addr::new(203, 0, 113, 2), 10_000)));
        for protocol in [0, 2, 41, 47, 50, 132] {
            assert!(!passes(&frame(protocol, ADDRESS, 10_000)), "{protocol}");
        }
        let mut ipv6 = frame(6, ADDRESS, 10_000);
        ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert!(!passes(&ipv6));
        assert!(!passes(&frame(6, ADDRESS, 10_000)[..30]), "a stump");
    }
}
