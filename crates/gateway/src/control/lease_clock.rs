//! When the lease is over.
//!
//! A wall-clock deadline is turned into CLOCK_BOOTTIME when it is read: from then on neither a
//! clock that is set nor a machine that sleeps can lengthen the lease.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// Timers do not advance while a machine sleeps: look again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The deadline of the lease, shared between those who set and those who wait.
#[derive(Debug)]
pub(super) struct LeaseClock {
    deadline_ms: AtomicI64,
}

impl LeaseClock {
    pub(super) fn new(expires_at: Timestamp) -> Self {
        let clock = Self {
            deadline_ms: AtomicI64::new(0),
        };
        clock.set(expires_at);
        clock
    }

    /// Takes over a deadline that was just read.
    pub(super) fn set(&self, expires_at: Timestamp) {
        let left = expires_at
            .as_millisecond()
            .saturating_sub(Timestamp::now().as_millisecond());
        self.deadline_ms
            .store(boot_time_ms().saturating_add(left), Ordering::Relaxed);
    }

    /// Time left; zero when the lease is over.
    pub(super) fn left(&self) -> Duration {
        let left = self
            .deadline_ms
            .load(Ordering::Relaxed)
            .saturating_sub(boot_time_ms());
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    /// Waits for the end of the lease.
    pub(super) async fn over(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}

fn boot_time_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;

    #[test]
    fn a_deadline_in_the_past_is_over_and_an_extension_is_taken_over() {
        let clock = LeaseClock::new(Timestamp::now() - 1.second());
        assert!(clock.left().is_zero());
        clock.set(Timestamp::now() + 1.hour());
        let left = clock.left();
        assert!(
            left > Duration::from_secs(3590) && left <= Duration::from_secs(3600),
            "{left:?}"
        );
    }

    #[test]
    fn an_absurd_deadline_does_not_overflow() {
        assert!(LeaseClock::new(Timestamp::MAX).left() > Duration::from_secs(86_400));
        assert!(LeaseClock::new(Timestamp::MIN).left().is_zero());
    }
}
