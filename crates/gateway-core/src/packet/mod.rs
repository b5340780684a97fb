//! Inner packets: what can be read from them, and the few that the gateway makes itself.
//!
//! Invariant: a [`Parsed`] has headers that lie inside the packet. Nothing here panics or
//! allocates on account of what a peer sends.

mod checksum;
mod cut;
mod icmp;
mod icmpv6;
mod ipv4;
mod layout;
mod segment;

pub(crate) use checksum::Sum;
pub(crate) use cut::cut;
pub(crate) use icmp::{
    EchoRequest, Unreachable, echo_reply, echo_request, time_exceeded, too_big, unreachable,
};
pub(crate) use icmpv6::no_route;
pub(crate) use ipv4::{
    Fragment, Parsed, Version, fragments, take_hop, udp_datagram, udp_payload, version,
};
pub(crate) use layout::{
    Layout, Protocol, TCP_HEADER, TcpFlags, checksum_is_right, checksum_offset, fill_checksum,
    finish_checksum, sequence, set_word, udp_nonzero, word,
};
pub(crate) use segment::{acknowledgement_of_end, ports_and_flags, reset_for, verify_segment};

/// Length of an IPv4 header without options (RFC 791, section 3.1).
pub(crate) const IPV4_HEADER: usize = 20;

/// Length of a UDP header (RFC 768).
pub(crate) const UDP_HEADER: usize = 8;

/// Length of an ICMP echo header (RFC 792).
pub(crate) const ICMP_HEADER: usize = 8;

/// Hop limit of packets that begin here.
pub(crate) const TTL: u8 = 64;
