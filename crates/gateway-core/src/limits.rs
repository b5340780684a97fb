//! How much peers may use.

/// Bounds on flows and memory. At a bound new flows are refused and counted; old ones live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flows in all: TCP connections, UDP mappings and echo mappings.
    pub flows: usize,
    /// Flows of one peer.
    pub flows_per_peer: usize,
    /// Connects of one peer that are not finished.
    pub half_open_per_peer: usize,
    /// Bytes of memory that TCP buffers may touch in all.
    pub tcp_buffer_bytes: usize,
}

/// Descriptors kept back for documents, the WireGuard socket, status and logs.
const RESERVED_DESCRIPTORS: usize = 64;

/// Memory that TCP buffers may touch: every connection gets a little of it, and what is left goes
/// to those that are busy.
const TCP_BUFFER_BYTES: usize = 256 * 1024 * 1024;

impl Limits {
    /// The share of each of `count` gateways beside each other.
    pub fn shared_by(self, count: usize) -> Self {
        let flows = (self.flows / count).max(16);
        Self {
            flows,
            flows_per_peer: self.flows_per_peer.min(flows),
            half_open_per_peer: self.half_open_per_peer.min(flows),
            tcp_buffer_bytes: self.tcp_buffer_bytes / count,
        }
    }

    /// The limits that follow from the number of file descriptors the process may open.
    pub fn for_descriptors(descriptors: usize) -> Self {
        let flows = descriptors
            .saturating_sub(RESERVED_DESCRIPTORS)
            .clamp(16, 65_536);
        // One alone may use most of it, and never leaves the others without.
        let flows_per_peer = (flows - flows / 4).max(16);
        Self {
            flows,
            flows_per_peer,
            half_open_per_peer: (flows_per_peer / 2).min(512),
            tcp_buffer_bytes: TCP_BUFFER_BYTES,
        }
    }
}
