//! How much peers may use.

/// Bounds on flows and memory. At a bound new flows are refused and counted; old ones live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flows in all: TCP connections, UDP mappings and echo mappings.
    pub flows: usize,
    /// Flows of one peer; fewer than all, so that one alone leaves some to the others.
    pub flows_per_peer: usize,
    /// Connects of one peer that are not finished.
    pub half_open_per_peer: usize,
    /// Bytes of memory that TCP buffers may touch in all.
    pub tcp_buffer_bytes: usize,
}

/// Descriptors kept back for documents, status, logs and connections to the store.
const RESERVED_DESCRIPTORS: usize = 128;

/// Descriptors that each loop needs besides: the sockets that peers speak to and its queues.
const RESERVED_FOR_LOOP: usize = 32;

/// Memory that TCP buffers may touch: every connection gets a little of it, and what is left goes
/// to those that are busy.
const TCP_BUFFER_BYTES: usize = 256 * 1024 * 1024;

/// Flows that there are however few descriptors there are.
const FEWEST_FLOWS: usize = 16;

/// What one peer may have of something that all share: most of it, and never so much that the
/// others are left without.
pub(crate) fn most_of(shared: usize) -> usize {
    shared - shared / 4
}

impl Limits {
    /// The share of each of `count` gateways beside each other.
    pub fn shared_by(self, count: usize) -> Self {
        let flows = (self.flows / count).max(FEWEST_FLOWS);
        let flows_per_peer = self.flows_per_peer.min(most_of(flows));
        Self {
            flows,
            flows_per_peer,
            half_open_per_peer: self.half_open_per_peer.min(flows_per_peer),
            tcp_buffer_bytes: self.tcp_buffer_bytes / count,
        }
    }

    /// How many of the file descriptors that the process may open are left for flows, when so many
    /// gateways run beside each other.
    pub fn descriptors_for_flows(descriptors: usize, count: usize) -> usize {
        descriptors.saturating_sub(RESERVED_DESCRIPTORS + RESERVED_FOR_LOOP * count)
    }

    /// The limits that follow from the number of file descriptors the process may open, for all of
    /// `count` gateways beside each other.
    pub fn for_descriptors(descriptors: usize, count: usize) -> Self {
        let flows = Self::descriptors_for_flows(descriptors, count).clamp(FEWEST_FLOWS, 65_536);
        let flows_per_peer = most_of(flows);
        Self {
            flows,
            flows_per_peer,
            half_open_per_peer: (flows_per_peer / 2).min(512),
            tcp_buffer_bytes: TCP_BUFFER_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_never_has_all_flows_of_a_loop() {
        for descriptors in [0, 64, 100, 256, 1024, 4096, 1 << 20] {
            for count in [1, 2, 3, 8, 64] {
                let whole = Limits::for_descriptors(descriptors, count);
                let share = whole.shared_by(count);
                let left = share.flows - share.flows_per_peer;
                assert!(
                    left >= share.flows / 4,
                    "{descriptors} / {count}: {share:?}"
                );
                assert!(share.half_open_per_peer <= share.flows_per_peer);
                assert!(share.flows_per_peer <= whole.flows_per_peer);
            }
        }
    }

    #[test]
    fn descriptors_are_kept_back_for_everything_else() {
        assert_eq!(Limits::for_descriptors(1024, 1).flows, 1024 - 128 - 32);
        assert_eq!(Limits::for_descriptors(1024, 8).flows, 1024 - 128 - 8 * 32);
        assert_eq!(Limits::descriptors_for_flows(100, 2), 0);
    }

    #[test]
    fn a_bound_that_is_set_lower_stays() {
        let low = Limits {
            flows_per_peer: 5,
            ..Limits::for_descriptors(4096, 2)
        };
        assert_eq!(low.shared_by(2).flows_per_peer, 5);
    }
}
