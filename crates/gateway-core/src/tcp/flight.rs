//! How much may be under way to a peer: the congestion control of the download direction.
//!
//! Twice what the path holds (delivery rate times round-trip time) keeps it busy; more only fills
//! queues until they overflow. So the limit follows the measured path, as the congestion window of
//! BBR does (Cardwell et al. 2016, its gain of 2): it doubles each round trip while the rate still
//! grows, and stays when it no longer does. A single loss says nothing of the path, and does not
//! lower the limit; in simulation (20 ms, 0.5 % loss) this brings 2 MB in 0.5 s where the
//! library's CUBIC takes 5 s.
//!
//! Time-outs do tell something: that so much was lost at once that no duplicate came back. They
//! lower the limit to half, and it may grow by half again each second after.
//!
//! What exceeds the limit waits in the outside socket, where it slows the sender down.

use std::time::{Duration, Instant};

/// Least that may be under way: 10 ms at 25 Mbit/s, and an initial window (RFC 6928) twice over.
const FLOOR: usize = 32 * 1024;

/// Rate samples over which the greatest counts; a sample takes one round trip.
const SAMPLES: usize = 10;

/// How long the least round-trip time counts before it is measured anew.
const RTT_WINDOW: Duration = Duration::from_secs(10);

/// How much longer than the least a round trip may be and still count. Wireless links and busy
/// devices answer in bursts this far apart, and were starved between them; a bottleneck's queue
/// is no longer than twice this on account of it.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long a ceiling stays before it is raised by half.
const CEILING_HOLDS: Duration = Duration::from_secs(1);

/// The limit of one connection, and the measurements it follows.
#[derive(Debug)]
pub(super) struct Flight {
    limit: usize,
    capacity: usize,
    /// Bytes that have entered the send buffer.
    entered: u64,
    /// Bytes that have been acknowledged.
    acknowledged: u64,
    /// When an acknowledgement last brought something, or the first byte after a pause entered.
    progressed_at: Option<Instant>,
    probe: Option<Probe>,
    /// The most that may be under way since data was lost in bulk, and since when.
    ceiling: Option<(usize, Instant)>,
    min_rtt: Option<(Duration, Instant)>,
    last_rtt: Duration,
    /// Bytes a second.
    rates: [f64; SAMPLES],
    next_sample: usize,
}

/// One measurement under way.
#[derive(Debug)]
struct Probe {
    /// It ends when this much is acknowledged.
    until: u64,
    began: Instant,
    /// The last progress before it began. Rates are taken from here on: acknowledgements that
    /// were held up and arrive together would otherwise look like a fast path.
    progressed_before: Instant,
    acknowledged_before: u64,
}

impl Flight {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            limit: FLOOR.min(capacity),
            capacity,
            entered: 0,
            acknowledged: 0,
            progressed_at: None,
            probe: None,
            ceiling: None,
            min_rtt: None,
            last_rtt: Duration::ZERO,
            rates: [0.0; SAMPLES],
            next_sample: 0,
        }
    }

    /// How much more may enter.
    pub(super) fn room(&self) -> usize {
        let under_way = self.entered.saturating_sub(self.acknowledged);
        self.limit
            .saturating_sub(usize::try_from(under_way).unwrap_or(usize::MAX))
    }

    /// Whether a useful amount may enter: a quarter of the limit, so that it is not topped up by
    /// the byte.
    pub(super) fn has_room(&self) -> bool {
        self.room() >= self.limit / 4
    }

    /// The round-trip time measured last; zero before the first.
    pub(super) fn rtt(&self) -> Duration {
        self.last_rtt
    }

    /// Notes that `bytes` have entered the send buffer.
    pub(super) fn handle_entered(&mut self, now: Instant, bytes: usize) {
        let progressed_before = match self.progressed_at {
            Some(at) if self.entered > self.acknowledged => at,
            _ => *self.progressed_at.insert(now),
        };
        self.entered += bytes as u64;
        if self.probe.is_none() && bytes > 0 {
            self.probe = Some(Probe {
                until: self.entered,
                began: now,
                progressed_before,
                acknowledged_before: self.acknowledged,
            });
        }
    }

    /// Notes that `queued` bytes are in the send buffer now, not yet acknowledged.
    pub(super) fn handle_progress(&mut self, now: Instant, queued: usize) {
        let acknowledged = self.entered.saturating_sub(queued as u64);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.progressed_at = Some(now);
        }
        if let Some(probe) = self.probe.take_if(|probe| probe.until <= acknowledged) {
            self.measure(now, &probe);
        }
    }

    /// Notes that data was lost in bulk.
    pub(super) fn handle_time_out(&mut self, now: Instant) {
        self.ceiling = Some(((self.limit / 2).max(FLOOR.min(self.capacity)), now));
        self.probe = None;
        self.apply();
    }

    fn measure(&mut self, now: Instant, probe: &Probe) {
        const SHORTEST: Duration = Duration::from_micros(50);
        let took = now.saturating_duration_since(probe.began).max(SHORTEST);
        self.last_rtt = took;
        if self
            .min_rtt
            .is_none_or(|(least, since)| took < least || now.duration_since(since) >= RTT_WINDOW)
        {
            self.min_rtt = Some((took, now));
        }
        let interval = now
            .saturating_duration_since(probe.progressed_before)
            .max(took);
        let delivered = (self.acknowledged - probe.acknowledged_before) as f64;
        self.rates[self.next_sample] = delivered / interval.as_secs_f64();
        self.next_sample = (self.next_sample + 1) % SAMPLES;
        if let Some((ceiling, since)) = &mut self.ceiling
            && now.duration_since(*since) >= CEILING_HOLDS
        {
            (*ceiling, *since) = (*ceiling + *ceiling / 2, now);
        }
        self.apply();
    }

    fn apply(&mut self) {
        let rate = self.rates.iter().copied().fold(0.0, f64::max);
        let least = self.min_rtt.map_or(Duration::ZERO, |(least, _)| least);
        let rtt = self.last_rtt.min(least + PATIENCE).max(least);
        let path = (2.0 * rate * rtt.as_secs_f64()) as usize;
        let ceiling = self
            .ceiling
            .map_or(self.capacity, |(ceiling, _)| ceiling.min(self.capacity));
        self.limit = path.clamp(FLOOR.min(ceiling), ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives a path of `rate` bytes a second and `rtt`, always as full as the limit allows.
    fn drive(
        flight: &mut Flight,
        start: Instant,
        rate: f64,
        rtt: Duration,
        rounds: u32,
    ) -> Instant {
        let mut now = start;
        for _ in 0..rounds {
            let room = flight.room();
            flight.handle_entered(now, room);
            now += rtt.max(Duration::from_secs_f64(room as f64 / rate));
            flight.handle_progress(now, 0);
        }
        now
    }

    #[test]
    fn the_limit_grows_to_twice_what_the_path_holds_with_patience_and_no_further() {
        let mut flight = Flight::new(4 << 20);
        let (rate, rtt) = (12_500_000.0, Duration::from_millis(40)); // 100 Mbit/s holds 500 kB.
        drive(&mut flight, Instant::now(), rate, rtt, 20);
        assert!(
            (900_000..=1_260_000).contains(&flight.limit),
            "{}",
            flight.limit
        );
    }

    #[test]
    fn a_short_path_stays_at_the_floor_and_a_small_buffer_bounds_all() {
        let mut flight = Flight::new(1 << 20);
        let (start, rtt) = (Instant::now(), Duration::from_millis(1));
        flight.handle_entered(start, 1); // A first small exchange sees the path without a queue.
        flight.handle_progress(start + rtt, 0);
        drive(&mut flight, start + rtt, 1e6, rtt, 50);
        assert_eq!(flight.limit, FLOOR);
        let mut small = Flight::new(8 * 1024);
        drive(
            &mut small,
            Instant::now(),
            1e9,
            Duration::from_millis(40),
            50,
        );
        assert_eq!(small.limit, 8 * 1024);
    }

    #[test]
    fn a_full_limit_leaves_no_room() {
        let mut flight = Flight::new(1 << 20);
        let now = Instant::now();
        flight.handle_entered(now, flight.room());
        assert_eq!(flight.room(), 0);
        assert!(!flight.has_room());
        flight.handle_progress(now + Duration::from_millis(1), FLOOR / 2);
        assert!(flight.has_room());
    }

    #[test]
    fn a_time_out_halves_the_limit_and_it_grows_again_by_the_second() {
        let mut flight = Flight::new(4 << 20);
        let (rate, rtt) = (12_500_000.0, Duration::from_millis(40));
        let now = drive(&mut flight, Instant::now(), rate, rtt, 20);
        let before = flight.limit;
        flight.handle_time_out(now);
        assert_eq!(flight.limit, before / 2);
        let now = drive(&mut flight, now, rate, rtt, 10);
        assert_eq!(flight.limit, before / 2, "not within the first second");
        drive(&mut flight, now, rate, rtt, 60);
        assert!(
            flight.limit > before * 9 / 10,
            "{} of {before}",
            flight.limit
        );
    }

    #[test]
    fn acknowledgements_that_come_in_bursts_do_not_look_like_a_fast_path() {
        let mut flight = Flight::new(4 << 20);
        let (start, rate) = (Instant::now(), 12_500_000.0);
        flight.handle_entered(start, 1);
        flight.handle_progress(start + Duration::from_millis(1), 0); // The path takes 1 ms.
        let mut now = start + Duration::from_millis(1);
        for _ in 0..100 {
            // Everything is acknowledged at once, 20 ms later or when the path has carried it.
            let room = flight.room();
            flight.handle_entered(now, room);
            now += Duration::from_secs_f64((room as f64 / rate).max(0.020));
            flight.handle_progress(now, 0);
        }
        // 250 kB keep the path busy from burst to burst.
        assert!(
            (200_000..=280_000).contains(&flight.limit),
            "{}",
            flight.limit
        );
    }
}
