//! Quicker recovery from loss than the TCP library beneath has by itself.
//!
//! Two things keep it waiting for a second where a kernel needs a round trip. It takes an
//! acknowledgement for a duplicate only if its window is the same as before, while Linux moves
//! the window with every segment ([`Duplicates`]). And its retransmission time-out is never below
//! the second that RFC 6298 asks for, while everybody else uses 200 ms ([`Stall`]).

use std::time::{Duration, Instant};

use smoltcp::wire::{Ipv4Packet, TcpPacket, TcpSeqNumber};

/// Longest headers of an acknowledgement: IPv4 without options, TCP with all of them.
const MAX_HEADERS: usize = 20 + 60;

/// Least time without progress after which data counts as lost (`TCP_RTO_MIN` in Linux).
const LEAST_STALL: Duration = Duration::from_millis(200);

/// Longest pause between attempts (RFC 6298, section 2.5).
const LONGEST_STALL: Duration = Duration::from_secs(60);

/// Recognises duplicate acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    last: Option<(TcpSeqNumber, u16)>,
}

impl Duplicates {
    /// A copy of `packet` with the window of the acknowledgement before, if it is a duplicate of
    /// that (it acknowledges nothing new and reports out-of-order data: RFC 6675, section 2).
    pub(super) fn normalise(&mut self, packet: &[u8]) -> Option<([u8; MAX_HEADERS], usize)> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let (source, destination, header) =
            (ip.src_addr(), ip.dst_addr(), usize::from(ip.header_len()));
        let segment =
            TcpPacket::new_checked(packet.get(header..usize::from(ip.total_len()))?).ok()?;
        let plain = segment.ack() && !segment.syn() && !segment.fin() && !segment.rst();
        let sacks = segment
            .selective_ack_ranges()
            .is_ok_and(|ranges| ranges[0].is_some());
        let (number, window) = (segment.ack_number(), segment.window_len());
        let before = self.last.replace((number, window));
        let (number_before, window_before) = before?;
        if !plain
            || !sacks
            || number != number_before
            || window == window_before
            || !segment.payload().is_empty()
        {
            return None;
        }
        // Only a segment that is intact may be given a new checksum.
        if !segment.verify_checksum(&source.into(), &destination.into()) {
            return None;
        }
        self.last = before;
        let mut copy = [0; MAX_HEADERS];
        let len = usize::from(ip.total_len());
        copy.get_mut(..len)?.copy_from_slice(&packet[..len]);
        let mut segment = TcpPacket::new_unchecked(&mut copy[header..len]);
        segment.set_window_len(window_before);
        segment.fill_checksum(&source.into(), &destination.into());
        Some((copy, len))
    }
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
    use smoltcp::phy::ChecksumCapabilities;
    use std::net::Ipv4Addr;

    use smoltcp::wire::{IpProtocol, Ipv4Repr, TcpControl, TcpRepr};

    fn acknowledgement(number: i32, window_len: u16, sack: bool) -> Vec<u8> {
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
            sack_ranges: [sack.then_some((900, 1000)), None, None],
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

    #[test]
    fn a_duplicate_that_moves_the_window_is_given_the_window_before() {
        let mut duplicates = Duplicates::default();
        assert!(
            duplicates
                .normalise(&acknowledgement(100, 500, false))
                .is_none()
        );
        for window in [501, 502, 503] {
            let (copy, len) = duplicates
                .normalise(&acknowledgement(100, window, true))
                .expect("a duplicate");
            let segment = TcpPacket::new_checked(&copy[20..len]).unwrap();
            assert_eq!(segment.window_len(), 500);
            let (peer, outside): (Ipv4Addr, Ipv4Addr) =
                ([10, 8, 0, 2].into(), [203, 0, 113, 1].into());
            assert!(segment.verify_checksum(&peer.into(), &outside.into()));
        }
    }

    #[test]
    fn window_updates_and_new_acknowledgements_pass_unchanged() {
        let mut duplicates = Duplicates::default();
        duplicates.normalise(&acknowledgement(100, 500, false));
        assert!(
            duplicates
                .normalise(&acknowledgement(100, 600, false))
                .is_none(),
            "a window update"
        );
        assert!(
            duplicates
                .normalise(&acknowledgement(200, 700, true))
                .is_none(),
            "new data acknowledged"
        );
        let mut damaged = acknowledgement(200, 701, true);
        damaged[21] ^= 1;
        assert!(
            duplicates.normalise(&damaged).is_none(),
            "a wrong checksum must stay wrong"
        );
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
