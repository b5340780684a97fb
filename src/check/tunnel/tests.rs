use popup_gateway_core::DropReason;
use smoltcp::wire::{Ipv4Address, Ipv4Packet};

use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// A session that seals nothing: a datagram is the packet itself, behind one byte that says what
/// it is.
#[derive(Debug, Default)]
struct Plain {
    established: bool,
    waiting: Vec<Vec<u8>>,
}

const INITIATION: u8 = 1;
const DATA: u8 = 4;

fn put(out: &mut [u8], kind: u8, packet: &[u8]) -> usize {
    out[0] = kind;
    out[1..=packet.len()].copy_from_slice(packet);
    packet.len() + 1
}

impl Session for Plain {
    fn seal(&mut self, _: Instant, packet: &[u8], out: &mut [u8]) -> Sealed {
        if self.established {
            return Sealed::Data(put(out, DATA, packet));
        }
        self.waiting.push(packet.to_vec());
        if self.waiting.len() == 1 {
            Sealed::Handshake(put(out, INITIATION, &[]))
        } else {
            Sealed::Waiting
        }
    }

    fn open<'a>(
        &mut self,
        _: Instant,
        _: IpAddr,
        datagram: &[u8],
        out: &'a mut [u8],
    ) -> Opened<'a> {
        match datagram {
            [HANDSHAKE_RESPONSE] => {
                self.established = true;
                let len = put(out, DATA, &[]);
                Opened::Reply(&out[..len])
            }
            [DATA] => Opened::Keepalive,
            [DATA, packet @ ..] if self.established => {
                out[..packet.len()].copy_from_slice(packet);
                Opened::Packet(&mut out[..packet.len()])
            }
            _ => Opened::Dropped(DropReason::DecryptionFailed),
        }
    }

    fn seal_waiting(&mut self, out: &mut [u8]) -> Option<usize> {
        (!self.waiting.is_empty()).then(|| put(out, DATA, &self.waiting.remove(0)))
    }

    fn handle_tick(&mut self, _: Instant, out: &mut [u8]) -> Option<usize> {
        // The first initiation is lost; one tick is its retransmission timer.
        (!self.established && !self.waiting.is_empty()).then(|| put(out, INITIATION, &[]))
    }

    fn handshake_age(&self) -> Option<Duration> {
        self.established.then_some(Duration::ZERO)
    }
}

fn tunnel(now: Instant) -> Tunnel<Plain> {
    let allowed_ips = vec!["10.8.0.0/24".parse().unwrap()];
    Tunnel::new(
        Plain::default(),
        IpAddr::from([203, 0, 113, 1]),
        allowed_ips,
        Netstack::new(CLIENT, 1420, now),
        now,
    )
}

fn drain(tunnel: &mut Tunnel<Plain>, now: Instant) -> Vec<Vec<u8>> {
    tunnel.handle_timeout(now);
    std::iter::from_fn(|| tunnel.poll_transmit()).collect()
}

fn echo_back(datagram: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    let mut packet = Ipv4Packet::new_checked(&mut datagram[1..]).unwrap();
    let (from, to): (Ipv4Address, Ipv4Address) = (packet.src_addr(), packet.dst_addr());
    packet.set_src_addr(to);
    packet.set_dst_addr(from);
    packet.fill_checksum();
    let mut icmp = smoltcp::wire::Icmpv4Packet::new_checked(packet.payload_mut()).unwrap();
    icmp.set_msg_type(smoltcp::wire::Icmpv4Message::EchoReply);
    icmp.fill_checksum();
    datagram
}

#[test]
fn packets_wait_for_the_handshake() {
    let now = Instant::now();
    let mut tunnel = tunnel(now);
    drain(&mut tunnel, now);
    tunnel.start(now);
    assert_eq!(drain(&mut tunnel, now), [vec![INITIATION]]);
    tunnel.netstack().ping(GATEWAY, 1, 56);
    assert!(drain(&mut tunnel, now).is_empty());
    assert_eq!(tunnel.handshake(), Handshake::Silent);

    tunnel.handle_datagram(now, &[HANDSHAKE_RESPONSE]);
    let sent = drain(&mut tunnel, now);
    assert_eq!(tunnel.handshake(), Handshake::Complete);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 57]);
}

#[test]
fn an_unanswered_handshake_is_repeated() {
    let now = Instant::now();
    let mut tunnel = tunnel(now);
    drain(&mut tunnel, now);
    tunnel.start(now);
    assert_eq!(drain(&mut tunnel, now), [vec![INITIATION]]);
    assert!(drain(&mut tunnel, now + TICK / 2).is_empty());
    assert_eq!(drain(&mut tunnel, now + TICK), [vec![INITIATION]]);
}

#[test]
fn a_ping_is_answered_only_by_its_reply() {
    let now = Instant::now();
    let mut tunnel = tunnel(now);
    tunnel.start(now);
    tunnel.handle_datagram(now, &[HANDSHAKE_RESPONSE]);
    drain(&mut tunnel, now);
    tunnel.netstack().ping(GATEWAY, 7, 1420);
    let sent = drain(&mut tunnel, now);
    assert_eq!(sent[0].len(), 1 + 1420);
    assert!(!tunnel.netstack().ping_answered(7));
    tunnel.handle_datagram(now, &echo_back(&sent[0]));
    drain(&mut tunnel, now);
    assert!(tunnel.netstack().ping_answered(7) && !tunnel.netstack().ping_answered(8));
}

#[test]
fn packets_from_outside_allowed_ips_are_dropped() {
    let now = Instant::now();
    let mut tunnel = tunnel(now);
    tunnel.start(now);
    tunnel.handle_datagram(now, &[HANDSHAKE_RESPONSE]);
    drain(&mut tunnel, now);
    tunnel.netstack().ping(Ipv4Addr::new(203, 0, 113, 9), 1, 56);
    let sent = drain(&mut tunnel, now);
    tunnel.handle_datagram(now, &echo_back(&sent[0]));
    drain(&mut tunnel, now);
    assert!(!tunnel.netstack().ping_answered(1));
}

#[test]
fn an_answer_that_does_not_open_and_a_refusal_are_told_apart() {
    let now = Instant::now();
    let mut tunnel = tunnel(now);
    tunnel.start(now);
    tunnel.handle_datagram(now, &[DATA, 0]);
    assert_eq!(tunnel.handshake(), Handshake::Silent);
    tunnel.handle_datagram(now, &[HANDSHAKE_RESPONSE, 0]);
    assert_eq!(tunnel.handshake(), Handshake::Rejected);
    tunnel.handle_refused();
    assert_eq!(tunnel.handshake(), Handshake::Refused);
}

#[test]
fn the_next_timeout_is_never_later_than_a_tick() {
    let now = Instant::now();
    let mut tunnel = tunnel(now);
    drain(&mut tunnel, now);
    assert_eq!(tunnel.poll_timeout(now), now + TICK);
    assert_eq!(tunnel.poll_timeout(now + TICK), now + TICK);
}
