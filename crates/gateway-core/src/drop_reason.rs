//! Why a datagram or a packet goes no further.

use std::collections::BTreeMap;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a datagram or a packet goes no further. Each has a counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in the status document.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// No WireGuard message has this type or length.
    MalformedDatagram => "malformed_datagram",
    /// A handshake not made for this interface's public key.
    InvalidMac => "invalid_mac",
    /// Too many handshakes at the moment, and no cookie.
    UnderLoad => "under_load",
    /// A handshake of somebody who is not a peer.
    UnknownPeer => "unknown_peer",
    /// A handshake that is replayed or does not decrypt.
    HandshakeRejected => "handshake_rejected",
    /// A message for a session that does not exist (any more).
    UnknownSession => "unknown_session",
    /// A data message seen before, or too old for the replay window.
    ReplayedPacket => "replayed_packet",
    /// A data message that is not authentic.
    DecryptionFailed => "decryption_failed",
    /// An inner packet whose headers do not fit its length.
    MalformedPacket => "malformed_packet",
    /// An inner packet whose checksum is wrong.
    InvalidChecksum => "invalid_checksum",
    /// An inner source address that is not in its peer's allowed_ips.
    SpoofedSource => "spoofed_source",
    /// An inner IPv6 packet: there is no way out for it.
    Ipv6Unreachable => "ipv6_unreachable",
    /// A destination that no client may reach, or a way there of the client's own (source route).
    EgressRefused => "egress_refused",
    /// Another peer, while peers may not reach each other.
    PeerToPeerRefused => "peer_to_peer_refused",
    /// Multicast and broadcast, which end at the gateway.
    Multicast => "multicast",
    /// A protocol other than TCP, UDP and ICMP echo.
    UnsupportedProtocol => "unsupported_protocol",
    /// A hop limit that ends here.
    TtlExceeded => "ttl_exceeded",
    /// A fragment that does not fit the others, or too many unfinished datagrams.
    FragmentRejected => "fragment_rejected",
    /// Too many flows in all.
    FlowLimit => "flow_limit",
    /// Too many flows of one peer.
    PeerFlowLimit => "peer_flow_limit",
    /// Too many unfinished connects of one peer.
    HalfOpenLimit => "half_open_limit",
    /// No memory left under the cap for another connection's buffers.
    MemoryLimit => "memory_limit",
    /// A TCP segment of no known flow.
    UnknownFlow => "unknown_flow",
    /// From outside, for nothing that a peer has asked for.
    Unsolicited => "unsolicited",
    /// No port is left from which this remote could be spoken to.
    PortsExhausted => "ports_exhausted",
    /// Longer than the next hop's MTU, and not to be cut.
    PacketTooBig => "packet_too_big",
    /// The system does not let us send pings.
    EchoUnavailable => "echo_unavailable",
    /// Nobody listens on this port of the gateway's tunnel address.
    NoService => "no_service",
    /// The system refused to send a datagram.
    SendFailed => "send_failed",
    /// A packet for a peer that has no session or no endpoint.
    PeerNotConnected => "peer_not_connected",
    /// More arrives for a peer than the processor can send on, and its share of the queue is full.
    Overload => "overload",
    /// The output queue is full.
    TransmitOverflow => "transmit_overflow",
}

/// One counter for each [`DropReason`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Adds what others have counted.
    pub fn add(&mut self, others: &Self) {
        for (count, other) in self.0.iter_mut().zip(others.0) {
            *count += other;
        }
    }

    /// How many have been counted for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The counters that are not zero, by name.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        DropReason::ALL
            .iter()
            .filter(|reason| self.of(**reason) > 0)
            .map(|reason| (reason.name().to_owned(), self.of(*reason)))
            .collect()
    }
}
