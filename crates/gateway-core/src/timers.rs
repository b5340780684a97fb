//! Deadlines of many things, the earliest first.
//!
//! A deadline that moves later is not moved here: the thing is asked when the old one passes, and
//! arms itself again. So a flow that is busy costs nothing per packet.

use std::collections::BTreeSet;
use std::time::Instant;

/// Deadlines by key.
#[derive(Debug)]
pub(crate) struct Timers<K>(BTreeSet<(Instant, K)>);

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

/// What a thing remembers of its place among the [`Timers`].
pub(crate) type Armed = Option<Instant>;

impl<K: Copy + Ord> Timers<K> {
    /// Makes sure that `key` is asked at `deadline` or before.
    pub(crate) fn arm(&mut self, armed: &mut Armed, key: K, deadline: Instant) {
        if armed.is_some_and(|at| at <= deadline) {
            return;
        }
        self.disarm(armed, key);
        self.0.insert((deadline, key));
        *armed = Some(deadline);
    }

    /// Forgets `key`.
    pub(crate) fn disarm(&mut self, armed: &mut Armed, key: K) {
        if let Some(at) = armed.take() {
            self.0.remove(&(at, key));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline has passed. Its owner must forget that it is armed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let first = *self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.remove(&first);
        Some(first.1)
    }
}
