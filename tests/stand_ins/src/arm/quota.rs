//! How much of everything there is.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Limits of a subscription (quota page of the service).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quotas {
    /// Groups in a region.
    pub groups: usize,
    /// Cores of Standard groups in a region.
    pub cores: f64,
    /// Creations, and as many deletions, in 5 minutes.
    pub per_5_minutes: usize,
    /// Creations, and as many deletions, in an hour.
    pub per_hour: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            groups: 100,
            cores: 100.0,
            per_5_minutes: 100,
            per_hour: 300,
        }
    }
}

const FIVE_MINUTES: SignedDuration = SignedDuration::from_mins(5);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Counts creations and deletions.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<(String, &'static str), Vec<Timestamp>>);

/// What is left, for the rate limit headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) per_hour: usize,
    pub(super) per_5_minutes: usize,
}

impl Rates {
    /// Counts one request, or says after how long there may be another.
    pub(super) fn count(
        &mut self,
        subscription: &str,
        kind: &'static str,
        quotas: &Quotas,
        now: Timestamp,
    ) -> Result<Remaining, Duration> {
        let times = self
            .0
            .entry((subscription.to_ascii_lowercase(), kind))
            .or_default();
        times.retain(|time| now.duration_since(*time) < HOUR);
        let recent = |time: &&Timestamp| now.duration_since(**time) < FIVE_MINUTES;
        let in_5_minutes = times.iter().filter(recent).count();
        for (limit, used, window) in [
            (quotas.per_5_minutes, in_5_minutes, FIVE_MINUTES),
            (quotas.per_hour, times.len(), HOUR),
        ] {
            if used >= limit {
                let oldest = times.get(times.len() - used).copied().unwrap_or(now);
                let wait = window - now.duration_since(oldest);
                return Err(Duration::try_from(wait).unwrap_or(Duration::ZERO));
            }
        }
        times.push(now);
        Ok(Remaining {
            per_hour: quotas.per_hour - times.len(),
            per_5_minutes: quotas.per_5_minutes - in_5_minutes - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_recovers_when_the_window_has_passed() {
        let quotas = Quotas {
            per_5_minutes: 2,
            ..Quotas::default()
        };
        let mut rates = Rates::default();
        let begun = Timestamp::UNIX_EPOCH;
        let first = rates.count("s", "create", &quotas, begun).unwrap();
        assert_eq!((first.per_hour, first.per_5_minutes), (299, 1));
        let later = begun + SignedDuration::from_secs(60);
        rates.count("s", "create", &quotas, later).unwrap();
        let wait = rates.count("s", "create", &quotas, later).unwrap_err();
        assert_eq!(wait, Duration::from_secs(240));
        assert!(rates.count("s", "delete", &quotas, later).is_ok());
        let enough = begun + FIVE_MINUTES;
        assert!(rates.count("s", "create", &quotas, enough).is_ok());
    }
}
