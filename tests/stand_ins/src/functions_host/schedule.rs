//! Schedules of timers: six fields, seconds first (NCRONTAB).

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A schedule: `*`, `*/n`, `a`, `a-b`, `a-b/n` and lists of these in each field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule([Vec<i8>; 6]);

/// Seconds, minutes, hours, days, months, days of the week (0 is Sunday).
const RANGES: [(i8, i8); 6] = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];

/// A schedule that never comes is given up after this long.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 366);

impl Schedule {
    /// Reads a schedule. `None` when it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let fields: [&str; 6] = fields.try_into().ok()?;
        let mut values: [Vec<i8>; 6] = Default::default();
        for ((field, range), values) in fields.iter().zip(RANGES).zip(&mut values) {
            for item in field.split(',') {
                values.extend(parse_item(item, range)?);
            }
        }
        Some(Self(values))
    }

    /// The next time after `now`, in UTC.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let mut at = Timestamp::from_second(now.as_second() + 1).ok()?;
        let end = now.checked_add(HORIZON).ok()?;
        while at < end {
            let step = self.step(at);
            if step.is_zero() {
                return Some(at);
            }
            at = at.checked_add(step).ok()?;
        }
        None
    }

    /// How far on to look, when the schedule does not name `at`.
    fn step(&self, at: Timestamp) -> SignedDuration {
        let time = at.to_zoned(TimeZone::UTC);
        let has =
            |field: usize, value: i8| self.0.get(field).is_some_and(|own| own.contains(&value));
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let into_hour = i64::from(minute) * 60 + i64::from(second);
        let weekday = time.weekday().to_sunday_zero_offset();
        if !(has(3, time.day()) && has(4, time.month()) && has(5, weekday)) {
            return SignedDuration::from_secs(86_400 - i64::from(hour) * 3600 - into_hour);
        }
        if !has(2, hour) {
            return SignedDuration::from_secs(3600 - into_hour);
        }
        if !has(1, minute) {
            return SignedDuration::from_secs(60 - i64::from(second));
        }
        SignedDuration::from_secs(i64::from(!has(0, second)))
    }
}

fn parse_item(item: &str, (low, high): (i8, i8)) -> Option<Vec<i8>> {
    let (range, step) = item.split_once('/').unwrap_or((item, "1"));
    let step: usize = step.parse().ok().filter(|step| *step > 0)?;
    let (from, to) = match range.split_once('-') {
        _ if range == "*" => (low, high),
        Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        None => (range.parse().ok()?, range.parse().ok()?),
    };
    (low <= from && from <= to && to <= high).then(|| (from..=to).step_by(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, now: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        schedule.next(now.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_the_schedules() {
        let now = "2026-02-28T23:57:30.5Z";
        assert_eq!(next("0 */5 * * * *", now), "2026-03-01T00:00:00Z");
        assert_eq!(next("*/20 * * * * *", now), "2026-02-28T23:57:40Z");
        assert_eq!(next("30 10 9-17/4 * * 1", now), "2026-03-02T09:10:30Z");
        assert_eq!(next("0 0 0 1 1 *", now), "2027-01-01T00:00:00Z");
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "*/5 * * * *",
            "0 60 * * * *",
            "0 */0 * * * *",
            "00:05:00",
            "0 0 0 * * MON",
        ] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
    }
}
