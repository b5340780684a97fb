//! Connections in TIME-WAIT: both sides have said their last.
//!
//! What they still have to do is to acknowledge the peer's FIN again, should the acknowledgement
//! have been lost, and a FIN tells by its own numbers what acknowledges it. So nothing is kept but
//! which connections they were: they hold no buffers, and no place among the flows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::FlowKey;

/// How long a repeated FIN is answered. Linux repeats one after 0.2, 0.4, 0.8 s and so on, so this
/// answers five losses in a row; the peer's own TIME-WAIT is not our concern.
const LINGER: Duration = Duration::from_secs(10);

/// Connections that are remembered at most, the latest.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Lingering {
    until: HashMap<FlowKey, Instant>,
    /// The oldest first; some may have been forgotten, or have come again, since.
    order: VecDeque<(Instant, FlowKey)>,
}

impl Lingering {
    /// Remembers a connection that has ended now.
    pub(super) fn insert(&mut self, now: Instant, key: FlowKey) {
        while let Some((until, oldest)) = self.order.front()
            && (*until <= now || self.order.len() >= MOST)
        {
            if self.until.get(oldest) == Some(until) {
                self.until.remove(oldest);
            }
            self.order.pop_front();
        }
        self.until.insert(key, now + LINGER);
        self.order.push_back((now + LINGER, key));
    }

    /// Whether this connection has ended a short while ago.
    pub(super) fn contains(&self, now: Instant, key: &FlowKey) -> bool {
        self.until.get(key).is_some_and(|until| now < *until)
    }

    /// Forgets a connection: its ports are used for another.
    pub(super) fn remove(&mut self, key: &FlowKey) {
        self.until.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddrV4};

    fn key(number: usize) -> FlowKey {
        let address = Ipv4Addr::from(u32::try_from(number).unwrap());
        FlowKey {
            inside: SocketAddrV4::new(address, 1),
            outside: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2),
        }
    }

    #[test]
    fn a_connection_is_forgotten_after_its_time() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        lingering.insert(start, key(1));
        assert!(lingering.contains(start + LINGER / 2, &key(1)));
        assert!(!lingering.contains(start + LINGER, &key(1)));
        lingering.insert(start + LINGER, key(2));
        assert_eq!((lingering.until.len(), lingering.order.len()), (1, 1));
    }

    #[test]
    fn one_that_ends_again_lingers_from_then_on() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        lingering.insert(start, key(1));
        lingering.remove(&key(1));
        assert!(!lingering.contains(start, &key(1)));
        lingering.insert(start + LINGER / 2, key(1));
        lingering.insert(start + LINGER, key(2));
        assert!(lingering.contains(start + LINGER, &key(1)));
    }

    #[test]
    fn no_more_than_the_most_are_kept_and_the_oldest_go() {
        let (mut lingering, start) = (Lingering::default(), Instant::now());
        for number in 0..MOST + 10 {
            lingering.insert(start, key(number));
        }
        assert_eq!((lingering.until.len(), lingering.order.len()), (MOST, MOST));
        assert!(!lingering.contains(start, &key(9)));
        assert!(lingering.contains(start, &key(10)));
    }
}
