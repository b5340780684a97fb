//! Which ports the NAT may use: a block that the system gives to nobody by itself.

use std::ops::RangeInclusive;

/// Where the block is looked for: above the registered services' densest part, below what Linux
/// hands out by default.
const WANTED: RangeInclusive<u16> = 10_000..=31_999;

/// Where it is looked for when little of that is free.
const ANYWHERE: RangeInclusive<u16> = 1_024..=65_535;

/// Fewest ports that are worth having.
const FEWEST: usize = 4_096;

/// The largest run of free ports; `None` when there is none of a useful length.
///
/// `taken` are ranges that others are given ports from, in any order.
pub(super) fn choose(taken: &[RangeInclusive<u16>]) -> Option<RangeInclusive<u16>> {
    [WANTED, ANYWHERE]
        .into_iter()
        .filter_map(|within| largest_free(within, taken))
        .find(|block| block.len() >= FEWEST)
}

/// One of `count` equal parts of a block.
pub(super) fn share(
    block: &RangeInclusive<u16>,
    index: usize,
    count: usize,
) -> RangeInclusive<u16> {
    let each = (block.len() / count) as u16;
    let first = block.start() + each * index as u16;
    first..=first + each - 1
}

fn largest_free(
    within: RangeInclusive<u16>,
    taken: &[RangeInclusive<u16>],
) -> Option<RangeInclusive<u16>> {
    let mut taken: Vec<_> = taken.iter().filter(|range| !range.is_empty()).collect();
    taken.sort_by_key(|range| *range.start());
    let mut best: Option<RangeInclusive<u16>> = None;
    let mut consider = |from: u32, to: u32| {
        let (from, to) = (from as u16, to as u16);
        if best
            .as_ref()
            .is_none_or(|best| (from..=to).len() > best.len())
        {
            best = Some(from..=to);
        }
    };
    let (mut from, end) = (u32::from(*within.start()), u32::from(*within.end()));
    for range in taken {
        let (start, stop) = (u32::from(*range.start()), u32::from(*range.end()));
        if start > end {
            break;
        }
        if start > from {
            consider(from, start - 1);
        }
        from = from.max(stop + 1);
    }
    if from <= end {
        consider(from, end);
    }
    best
}

/// What the system says of its own ports: `ip_local_port_range`, as two numbers, and
/// `ip_local_reserved_ports`, as a list of ports and ranges. The first is what it gives to
/// sockets that ask for any port; the second are kept for programs that will ask for one by name.
pub(super) fn parse_taken(local_range: &str, reserved: &str) -> Vec<RangeInclusive<u16>> {
    let mut numbers = local_range.split_whitespace().map(str::parse);
    let local = match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let reserved = reserved.trim().split(',').filter_map(range);
    local.into_iter().chain(reserved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_share_a_block_evenly_and_without_overlap() {
        let shares: Vec<_> = (0..3)
            .map(|index| share(&(10_000..=10_999), index, 3))
            .collect();
        assert_eq!(shares, [10_000..=10_332, 10_333..=10_665, 10_666..=10_998]);
    }

    #[test]
    fn linux_and_its_defaults_leave_the_whole_block() {
        let taken = parse_taken("32768\t60999\n", "\n");
        assert_eq!(taken, [32_768..=60_999]);
        assert_eq!(choose(&taken), Some(WANTED));
    }

    #[test]
    fn ports_of_others_are_left_out() {
        assert_eq!(choose(&[20_000..=20_000]), Some(20_001..=31_999));
        assert_eq!(
            choose(&parse_taken("15000 64000", "443,10100-10200")),
            Some(10_201..=14_999)
        );
        assert_eq!(
            choose(&[25_000..=30_000, 51_820..=51_820]),
            Some(10_000..=24_999)
        );
    }

    #[test]
    fn a_wide_range_of_the_system_moves_the_block_elsewhere() {
        assert_eq!(choose(&[9_000..=61_000]), Some(1_024..=8_999));
        assert_eq!(choose(&[2_048..=32_767]), Some(32_768..=65_535));
    }

    #[test]
    fn where_nothing_is_free_there_is_no_block() {
        assert_eq!(choose(&[1_024..=65_535]), None);
        assert_eq!(choose(&[4_000..=65_535]), None);
        assert_eq!(choose(&[0..=65_535]), None);
    }

    #[test]
    fn nonsense_is_nothing() {
        assert_eq!(parse_taken("", ",x,-,1-,70000"), []);
    }
}
