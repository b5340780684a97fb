//! Whether connections by frames survive here: one is opened, and looked at.
//!
//! # Theory of operation
//!
//! A SYN leaves as a frame, from a port that is held. The answer reaches us and the system alike.
//! If the system knew better than to keep quiet, it has answered with a reset by now, and the
//! remote has forgotten the connection. So we acknowledge, and send a keepalive probe (a segment
//! with a number that is acknowledged already): a remote that remembers the connection answers
//! with an acknowledgement, one that does not with a reset. No byte of data is sent.
//!
//! A remote that does not answer at all proves nothing by itself. If the system connects to it,
//! frames are what does not get through.

use std::net::{SocketAddrV4, TcpStream};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use popup_gateway_core::{Frame, Transport};
use rand::Rng as _;

use super::held_ports::HeldPorts;
use super::{RawPath, Unavailable};

/// How long each repetition of the SYN and of the probe is waited for.
const SYN_PATIENCE: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(400),
    Duration::from_millis(600),
];
/// A remote answers at most two such segments a second (Linux 4.1,
/// `tcp_invalid_ratelimit`).
const PROBE_PATIENCE: [Duration; 2] = [Duration::from_millis(600); 2];
/// How long the system may take to connect, for comparison.
const CONNECT_PATIENCE: Duration = Duration::from_millis(700);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How much is known of the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A connection has survived.
    Passed,
    /// Nothing could be found out, and why.
    Untested(&'static str),
}

/// Sees whether ports can be held, opens a connection to `target`, and looks whether it lives.
pub(super) fn run(path: &mut RawPath, target: Option<SocketAddrV4>) -> Result<Proof, Unavailable> {
    let ports = path.settings.ports.clone();
    let udp = hold_any(&mut path.held, Transport::Udp, &ports)?;
    path.release(Transport::Udp, udp);
    let port = hold_any(&mut path.held, Transport::Tcp, &ports)?;
    let outcome = match target {
        None => Ok(Proof::Untested("there is nothing to test against")),
        Some(target) => Attempt {
            own: SocketAddrV4::new(path.settings.address, port),
            target,
            path,
            sequence: rand::rng().random(),
            acknowledged: 0,
        }
        .run(),
    };
    path.release(Transport::Tcp, port);
    outcome
}

fn hold_any(
    held: &mut HeldPorts,
    transport: Transport,
    ports: &RangeInclusive<u16>,
) -> Result<u16, Unavailable> {
    let mut tries = 8;
    loop {
        let port = rand::rng().random_range(ports.clone());
        match held.hold(transport, port) {
            Ok(()) => return Ok(port),
            Err(_) if tries > 0 => tries -= 1,
            Err(error) => return Err(Unavailable::system("hold a port", error)),
        }
    }
}

/// What has come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
}

struct Attempt<'a> {
    path: &'a mut RawPath,
    own: SocketAddrV4,
    target: SocketAddrV4,
    sequence: u32,
    acknowledged: u32,
}

impl Attempt<'_> {
    fn run(&mut self) -> Result<Proof, Unavailable> {
        let Some(answer) = self.repeat(&SYN_PATIENCE, &[(SYN, 0)], |segment| {
            segment.flags & (RST | SYN | ACK) != ACK
        })?
        else {
            return match TcpStream::connect_timeout(&self.target.into(), CONNECT_PATIENCE) {
                Ok(_) => Err(Unavailable::SelfTest(
                    "nobody answers frames, though the system can connect",
                )),
                Err(_) => Ok(Proof::Untested("the target cannot be reached")),
            };
        };
        if answer.flags & RST != 0 {
            return Ok(Proof::Untested("the target refuses connections"));
        }
        self.acknowledged = answer.sequence.wrapping_add(1);
        let probe = [(ACK, 1), (ACK, 0)];
        let alive = self.repeat(&PROBE_PATIENCE, &probe, |segment| segment.flags & SYN == 0)?;
        match alive {
            Some(answer) if answer.flags & RST != 0 => Err(Unavailable::SelfTest(
                "the system resets connections that it has not made",
            )),
            Some(_) => {
                self.send(RST, 1)?;
                Ok(Proof::Passed)
            }
            None => {
                self.send(RST, 1)?;
                Ok(Proof::Untested("the target says nothing once connected"))
            }
        }
    }

    /// Sends segments, given as flags and distance from the first sequence number, until an
    /// answer satisfies `wanted`.
    fn repeat(
        &mut self,
        patience: &[Duration],
        segments: &[(u8, u32)],
        wanted: impl Fn(Segment) -> bool,
    ) -> Result<Option<Segment>, Unavailable> {
        for patience in patience {
            for (flags, distance) in segments {
                self.send(*flags, *distance)?;
            }
            let deadline = Instant::now() + *patience;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !self.path.frames.queues.wait(left) {
                    break;
                }
                let (own, target) = (self.own, self.target);
                let mut answer = None;
                self.path
                    .receive(|packet, _| answer = segment_of(packet, target, own));
                if let Some(answer) = answer.filter(|answer| wanted(*answer)) {
                    return Ok(Some(answer));
                }
            }
        }
        Ok(None)
    }

    fn send(&mut self, flags: u8, distance: u32) -> Result<(), Unavailable> {
        let sequence = self.sequence.wrapping_add(distance);
        let packet = packet(
            self.own,
            self.target,
            flags,
            sequence,
            if flags & ACK == 0 {
                0
            } else {
                self.acknowledged
            },
        );
        let frame = Frame {
            packet: &packet,
            offload: None,
        };
        self.path
            .send(Instant::now(), &frame)
            .map_err(|error| Unavailable::system("send a frame", error))
    }
}

/// A segment without data or options.
fn packet(
    from: SocketAddrV4,
    to: SocketAddrV4,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
) -> [u8; 40] {
    let mut packet = [0; 40];
    // Version 4 with five words of header, 40 bytes in all, not to be cut, 64 hops, TCP.
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum([&packet[..20], &[]]);
    packet[10..12].copy_from_slice(&sum);
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&acknowledgement.to_be_bytes());
    packet[32..36].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    let pseudo_header: Vec<u8> = [&packet[12..20], &[0, 6, 0, 20]].concat();
    let sum = checksum([&pseudo_header, &packet[20..]]);
    packet[36..38].copy_from_slice(&sum);
    packet
}

/// RFC 1071, over parts of even length.
fn checksum(parts: [&[u8]; 2]) -> [u8; 2] {
    let words = parts.into_iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The segment in a packet, if it is one of this connection.
fn segment_of(packet: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Option<Segment> {
    let tcp = packet.get(usize::from(packet.first()? & 15) * 4..)?;
    let ours = packet.get(9)? == &6
        && packet.get(12..16)? == from.ip().octets()
        && tcp.get(..2)? == from.port().to_be_bytes()
        && tcp.get(2..4)? == to.port().to_be_bytes();
    let number = |at: usize| {
        let bytes: [u8; 4] = tcp.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let segment = Segment {
        flags: *tcp.get(13)?,
        sequence: number(4)?,
        acknowledgement: number(8)?,
    };
    ours.then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_port_can_be_held_that_is_said() {
        let ports = 20_000..=20_999;
        for transport in [Transport::Tcp, Transport::Udp] {
            // An address of nobody's here (RFC 5737).
            let mut held = HeldPorts::new([192, 0, 2, 1].into(), false);
            let refused = hold_any(&mut held, transport, &ports);
            assert!(matches!(refused, Err(Unavailable::System { .. })));
            let mut held = HeldPorts::new([127, 0, 0, 1].into(), false);
            let port = hold_any(&mut held, transport, &ports).unwrap();
            assert!(ports.contains(&port));
        }
    }

    #[test]
    fn a_segment_is_read_as_it_was_written_and_only_by_its_connection() {
        let here: SocketAddrV4 = "192.0.2.1:10000".parse().unwrap();
        let there: SocketAddrV4 = "203.0.113.9:443".parse().unwrap();
        let bytes = packet(here, there, ACK, 7, 0xdead_beef);
        let segment = Segment {
            flags: ACK,
            sequence: 7,
            acknowledgement: 0xdead_beef,
        };
        assert_eq!(segment_of(&bytes, here, there), Some(segment));
        assert_eq!(segment_of(&bytes, there, here), None);
        assert_eq!(segment_of(&bytes[..39], here, there), Some(segment));
        assert_eq!(segment_of(&bytes[..30], here, there), None);
        assert_eq!(segment_of(&[], here, there), None);
    }

    #[test]
    fn both_checksums_come_out_even() {
        let bytes = packet(
            "192.0.2.1:10000".parse().unwrap(),
            "203.0.113.9:443".parse().unwrap(),
            SYN,
            1,
            0,
        );
        assert_eq!(checksum([&bytes[..20], &[]]), [0, 0]);
        let pseudo_header = [&bytes[12..20], &[0, 6, 0, 20]].concat();
        assert_eq!(checksum([&pseudo_header, &bytes[20..]]), [0, 0]);
    }
}
