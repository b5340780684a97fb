//! A clock that stands still when tokio's does.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::vpn::Clock;

/// Follows tokio's clock, which tests may pause and advance.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    base: Timestamp,
    begun: Instant,
}

impl TokioClock {
    /// Begins at a fixed time. Must be called inside a runtime.
    #[expect(clippy::new_without_default, reason = "it begins where it is made")]
    pub fn new() -> Self {
        let base = Timestamp::from_second(1_767_323_045).unwrap_or_default();
        Self {
            base,
            begun: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.begun.elapsed()).unwrap_or(SignedDuration::MAX);
        self.base.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}
