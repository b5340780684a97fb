//! How long things take.

use std::time::Duration;

/// The pace of the service. [`Delays::recorded`] is that of real traffic; tests scale it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delays {
    /// `Pending` before it becomes `Creating` and the image is pulled (recorded: 3 s).
    pub pending: Duration,
    /// Pulling the image (recorded for a tiny one: 1 s).
    pub pulling: Duration,
    /// From the pulled image to the started container (recorded for Confidential: 37 s; a small
    /// Standard group is said to take 20 s altogether).
    pub starting: Duration,
    /// From DELETE until the group is gone; 0 answers 200 at once instead of 202.
    pub deleting: Duration,
    /// From a change of the address to the answer of the resolver.
    pub dns_lag: Duration,
    /// Before a container is started again; doubles with each restart up to 32 times.
    pub restart: Duration,
    /// After which a group whose image cannot be pulled is reported as `Failed`.
    pub give_up: Duration,
    /// The unit of `Retry-After` headers that the simulation chooses itself; at least 1 s.
    pub retry_after: Duration,
}

impl Delays {
    /// As recorded.
    pub fn recorded() -> Self {
        Self {
            pending: Duration::from_secs(3),
            pulling: Duration::from_secs(1),
            starting: Duration::from_secs(16),
            deleting: Duration::from_secs(5),
            dns_lag: Duration::from_secs(10),
            restart: Duration::from_secs(10),
            give_up: Duration::from_secs(120),
            retry_after: Duration::from_secs(10),
        }
    }

    /// All of them multiplied.
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |delay: Duration| delay.mul_f64(factor.max(0.0));
        Self {
            pending: scale(self.pending),
            pulling: scale(self.pulling),
            starting: scale(self.starting),
            deleting: scale(self.deleting),
            dns_lag: scale(self.dns_lag),
            restart: scale(self.restart),
            give_up: scale(self.give_up),
            retry_after: scale(self.retry_after),
        }
    }

    /// The pause before restart number `count` (from 0).
    pub(super) fn restart_pause(&self, count: u32) -> Duration {
        self.restart * (1 << count.min(5))
    }

    pub(super) fn retry_after_s(&self) -> u64 {
        self.retry_after.as_secs().max(1)
    }
}
