//! Quicker recovery from loss than the TCP library beneath has by itself.
//!
//! Three things keep it waiting where a kernel needs a round trip. It takes an acknowledgement for
//! a duplicate only if its window is the same as before, while Linux moves the window with every
//! segment. It counts duplicates, of which there may be one for a whole flight, since devices join
//! segments that arrive together (GRO), and does not ask what they say has arrived
//! ([`Duplicates`]). And its retransmission time-out is never below the second that RFC 6298 asks
//! for, while everybody else uses 200 ms ([`Stall`]).

use std::time::{Duration, Instant};

use smoltcp::wire::{Ipv4Packet, TcpPacket, TcpSeqNumber};

/// Longest headers of an acknowledgement: IPv4 without options, TCP with all of them.
const MAX_HEADERS: usize = 20 + 60;

/// Duplicates after which the library sends a segment again (`DupThresh` in RFC 6675).
const DUPLICATES: usize = 3;

/// Least time without progress after which data counts as lost (`TCP_RTO_MIN` in Linux).
const LEAST_STALL: Duration = Duration::from_millis(200);

/// Longest pause between attempts (RFC 6298, section 2.5).
const LONGEST_STALL: Duration = Duration::from_secs(60);

/// Recognises acknowledgements that tell of a loss.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    last: Option<(TcpSeqNumber, u16)>,
    /// What the library has been told to send again.
    lost: Option<TcpSeqNumber>,
}

/// What a segment says of the other direction.
struct Acknowledgement {
    number: TcpSeqNumber,
    window: u16,
    /// Bytes that have arrived ahead of a gap, if that is all the segment is about.
    ahead: usize,
}

impl Duplicates {
    /// Gives `packet` to `show` as the library shall see it, as often as it shall see it.
    ///
    /// A duplicate, which acknowledges nothing new and reports data ahead of a gap (RFC 6675,
    /// section 2), is given the window of the one before. When more is ahead of the gap than
    /// would be without a loss (`IsLost` in section 4, for segments of `segment` bytes), it is
    /// shown as often as there must be duplicates. That goes for the next gap, too, once the one
    /// before is filled, so that each costs a round trip.
    pub(super) fn show(&mut self, packet: &[u8], segment: usize, mut show: impl FnMut(&[u8])) {
        let Some(Acknowledgement {
            number,
            window,
            ahead,
        }) = acknowledgement(packet)
        else {
            return show(packet);
        };
        let before = self.last.replace((number, window));
        let repeated = before.filter(|(before, _)| *before == number && ahead > 0);
        let is_lost = ahead > (DUPLICATES - 1) * segment && self.lost != Some(number);
        if is_lost {
            self.lost = Some(number);
        }
        let times = match (repeated, is_lost) {
            (Some(_), true) => DUPLICATES,
            (None, true) => 1 + DUPLICATES,
            (_, false) => 1,
        };
        let mut copy = [0; MAX_HEADERS];
        let packet = match (repeated, copy.get_mut(..packet.len())) {
            (Some((_, window_before)), Some(copy)) => {
                self.last = repeated;
                copy.copy_from_slice(packet);
                set_window(copy, window_before);
                copy
            }
            _ => packet,
        };
        for _ in 0..times {
            show(packet);
        }
    }
}

fn acknowledgement(packet: &[u8]) -> Option<Acknowledgement> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let segment = TcpPacket::new_checked(ip.payload()).ok()?;
    let number = segment.ack_number();
    let plain = segment.ack() && !segment.syn() && !segment.fin() && !segment.rst();
    let ahead = if plain && segment.payload().is_empty() {
        ahead_of(number, segment.selective_ack_ranges().unwrap_or_default())
    } else {
        0
    };
    Some(Acknowledgement {
        number,
        window: segment.window_len(),
        ahead,
    })
}

/// Bytes in the ranges above `number`; those below tell of what has come twice (RFC 2883).
fn ahead_of(number: TcpSeqNumber, ranges: [Option<(u32, u32)>; 3]) -> usize {
    ranges
        .into_iter()
        .flatten()
        .map(|(from, to)| {
            (
                TcpSeqNumber(from.cast_signed()),
                TcpSeqNumber(to.cast_signed()),
            )
        })
        .filter(|(from, to)| *from > number && to > from)
        .map(|(from, to)| to - from)
        .sum()
}

/// Sets the window of a segment, but not its checksum, which has been verified.
fn set_window(packet: &mut [u8], window: u16) {
    let mut ip = Ipv4Packet::new_unchecked(packet);
    TcpPacket::new_unchecked(ip.payload_mut()).set_window_len(window);
}

/// Tells when sent data has gone without acknowledgement for too long.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Since when the oldest data waits, or was last sent again.
    since: Option<Instant>,
    queued: usize,
    attempts: u32,
}

impl Stall {
    /// Notes that `queued` bytes are sent or waiting to be, after an acknowledgement.
    pub(super) fn handle_acknowledgement(&mut self, now: Instant, queued: usize) {
        if queued < self.queued {
            (self.since, self.attempts) = (Some(now), 0);
        }
        self.handle_queued(now, queued);
    }

    /// Notes that `queued` bytes are sent or waiting to be.
    pub(super) fn handle_queued(&mut self, now: Instant, queued: usize) {
        self.queued = queued;
        self.since = if queued == 0 {
            None
        } else {
            self.since.or(Some(now))
        };
    }

    /// When the data counts as lost, on a path with this round-trip time.
    pub(super) fn deadline(&self, rtt: Duration) -> Option<Instant> {
        let patience = (rtt * 2).max(LEAST_STALL) * 2_u32.pow(self.attempts.min(10));
        self.since.map(|since| since + patience.min(LONGEST_STALL))
    }

    /// Notes that data is sent again for want of an acknowledgement.
    pub(super) fn handle_resent(&mut self, now: Instant) {
        self.since = Some(now);
        self.attempts += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpProtocol, Ipv4Repr, TcpControl, TcpRepr};

    fn says(number: i32, window_len: u16, ahead: Option<(u32, u32)>) -> Vec<u8> {
        let (peer, outside): (Ipv4Addr, Ipv4Addr) =
            ("10.8.0.2".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let tcp = TcpRepr {
            src_port: 1000,
            dst_port: 80,
            control: TcpControl::None,
            seq_number: TcpSeqNumber(5),
            ack_number: Some(TcpSeqNumber(number)),
            window_len,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [ahead, None, None],
            timestamp: None,
            payload: &[],
        };
        let ip = Ipv4Repr {
            src_addr: peer,
            dst_addr: outside,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut packet = vec![0; 20 + tcp.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
        tcp.emit(
            &mut TcpPacket::new_unchecked(&mut packet[20..]),
            &peer.into(),
            &outside.into(),
            &checksums,
        );
        packet
    }

    /// Segments of the connection.
    const SEGMENT: usize = 1000;

    /// The windows with which `packet` is shown.
    fn shown(duplicates: &mut Duplicates, packet: &[u8]) -> Vec<u16> {
        let mut windows = Vec::new();
        duplicates.show(packet, SEGMENT, |packet| {
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            windows.push(TcpPacket::new_checked(ip.payload()).unwrap().window_len());
        });
        windows
    }

    #[test]
    fn a_duplicate_that_moves_the_window_is_given_the_window_before() {
        let mut duplicates = Duplicates::default();
        assert_eq!(shown(&mut duplicates, &says(100, 500, None)), [500]);
        for window in [501, 502, 503] {
            let duplicate = says(100, window, Some((1100, 2100)));
            assert_eq!(shown(&mut duplicates, &duplicate), [500]);
        }
    }

    #[test]
    fn window_updates_new_acknowledgements_and_what_came_twice_pass_unchanged() {
        let mut duplicates = Duplicates::default();
        shown(&mut duplicates, &says(100, 500, None));
        assert_eq!(shown(&mut duplicates, &says(100, 600, None)), [600]);
        let twice = says(100, 601, Some((u32::MAX - 5000, 50)));
        assert_eq!(shown(&mut duplicates, &twice), [601]);
        assert_eq!(
            shown(&mut duplicates, &says(200, 700, Some((1200, 2200)))),
            [700]
        );
    }

    #[test]
    fn one_acknowledgement_with_more_than_two_segments_ahead_of_a_gap_is_shown_as_three() {
        let mut duplicates = Duplicates::default();
        shown(&mut duplicates, &says(100, 500, None));
        let two = says(100, 501, Some((1100, 3100)));
        assert_eq!(shown(&mut duplicates, &two), [500]);
        let more = says(100, 502, Some((1100, 3101)));
        assert_eq!(shown(&mut duplicates, &more), [500; 3]);
        let later = says(100, 503, Some((1100, 9100)));
        assert_eq!(shown(&mut duplicates, &later), [500], "sent again once");
    }

    #[test]
    fn what_fills_one_gap_tells_of_the_next() {
        let mut duplicates = Duplicates::default();
        shown(&mut duplicates, &says(100, 500, None));
        shown(&mut duplicates, &says(100, 500, Some((1100, 9100))));
        let next = says(3100, 510, Some((4100, 9100)));
        assert_eq!(
            shown(&mut duplicates, &next),
            [510; 4],
            "new, and three times more"
        );
        let wrapped = says(-1500, 510, Some((u32::MAX - 400, 3000)));
        assert_eq!(shown(&mut Duplicates::default(), &wrapped), [510; 4]);
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_is_shown_at_least_once_and_four_times_at_most(
            packets in proptest::collection::vec(
                (any::<i32>(), any::<u16>(), any::<Option<(u32, u32)>>()), 1..20),
            cut in 0_usize..72,
        ) {
            let mut duplicates = Duplicates::default();
            for (number, window, range) in packets {
                let packet = says(number, window, range);
                for packet in [&packet[..], &packet[..cut.min(packet.len())]] {
                    let mut times = 0;
                    duplicates.show(packet, SEGMENT, |_| times += 1);
                    prop_assert!((1..=1 + DUPLICATES).contains(&times));
                }
            }
        }
    }

    #[test]
    fn a_stall_is_declared_after_two_round_trips_and_ever_later_when_it_repeats() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        assert_eq!(stall.deadline(Duration::ZERO), None);
        stall.handle_queued(start, 1000);
        assert_eq!(
            stall.deadline(Duration::from_millis(3)),
            Some(start + LEAST_STALL)
        );
        assert_eq!(
            stall.deadline(Duration::from_millis(300)),
            Some(start + Duration::from_millis(600))
        );
        stall.handle_resent(start);
        assert_eq!(
            stall.deadline(Duration::ZERO),
            Some(start + 2 * LEAST_STALL)
        );
        stall.handle_acknowledgement(start, 500);
        assert_eq!(stall.deadline(Duration::ZERO), Some(start + LEAST_STALL));
        stall.handle_acknowledgement(start, 0);
        assert_eq!(stall.deadline(Duration::ZERO), None);
    }
}
