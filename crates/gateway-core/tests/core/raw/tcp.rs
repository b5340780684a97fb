//! Connections from end to end through the translation, with the offloads of a real network.

use std::time::Duration;

use popup_gateway_core::{DropReason, PortRefusal, Received};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::network::{coalesce, on_the_wire};
use super::{OUTSIDE, REMOTE, ends, inside, raw_world};
use crate::support::counting::allocations;
use crate::support::packets::ipv4;
use crate::support::{Client, World};

const SECOND: Duration = Duration::from_secs(1);

/// A server on the network, with a TCP/IP of its own.
struct Server {
    host: Client,
    largest: usize,
    arrived: Vec<Vec<u8>>,
}

impl Server {
    fn new() -> Self {
        Self {
            host: Client::new(*REMOTE.ip()),
            largest: 0,
            arrived: Vec::new(),
        }
    }

    /// Carries packets between the gateway and the server until neither has more for now.
    fn exchange(&mut self, world: &mut World) {
        loop {
            let frames = std::mem::take(&mut world.frames);
            let time = smoltcp::time::Instant::from_micros(
                world.now.duration_since(world.start).as_micros() as i64,
            );
            for frame in &frames {
                self.largest = self.largest.max(frame.packet.len());
                for packet in on_the_wire(frame) {
                    let (source, _) = ends(&packet);
                    assert_eq!(*source.ip(), OUTSIDE, "the gateway's own address");
                    assert!(packet.len() <= 1420);
                    self.arrived.push(packet.clone());
                    self.host.hear(packet);
                }
            }
            self.host.poll(time);
            let answers: Vec<_> = self.host.wire.outgoing.drain(..).collect();
            if frames.is_empty() && answers.is_empty() {
                return;
            }
            for (packet, received) in coalesce(answers) {
                world.network(&packet, received);
            }
        }
    }
}

fn connect(world: &mut World, server: &mut Server, client: usize) -> (SocketHandle, SocketHandle) {
    let listening = server.host.listen(REMOTE.port());
    let connecting = world.clients[client].connect(REMOTE);
    let up = world.run_until(SECOND, |world| {
        server.exchange(world);
        server.host.state(listening) == State::Established
    });
    assert!(up, "{:?}", world.clients[client].state(connecting));
    (connecting, listening)
}

/// Sends what fits of `data` beyond the `sent` bytes.
fn send_more(socket: &mut Socket<'_>, data: &[u8], sent: &mut usize) {
    while socket.can_send() && *sent < data.len() {
        *sent += socket.send_slice(&data[*sent..]).unwrap();
    }
}

/// Adds what has arrived to `got`.
fn take_all(socket: &mut Socket<'_>, got: &mut Vec<u8>) {
    while socket.can_recv() {
        socket
            .recv(|bytes| {
                got.extend_from_slice(bytes);
                (bytes.len(), ())
            })
            .unwrap();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 1000) as u8).collect()
}

#[test]
fn an_upload_arrives_as_it_was_sent_and_leaves_in_large_packets() {
    let mut world = raw_world(1);
    let mut server = Server::new();
    let (client, accepted) = connect(&mut world, &mut server, 0);
    let data = pattern(3_000_000);
    let (mut sent, mut got) = (0, Vec::new());
    let done = world.run_until(60 * SECOND, |world| {
        let socket = world.clients[0].tcp(client);
        send_more(socket, &data, &mut sent);
        server.exchange(world);
        let socket = server.host.tcp(accepted);
        take_all(socket, &mut got);
        got.len() == data.len()
    });
    assert!(done && got == data, "{} bytes came", got.len());
}

#[test]
fn a_download_arrives_as_it_was_sent_even_when_packets_are_lost() {
    for loss in [0.0, 0.01] {
        let mut world = raw_world(1);
        let mut server = Server::new();
        let (client, accepted) = connect(&mut world, &mut server, 0);
        world.link.loss = loss;
        let data = pattern(2_000_000);
        let (mut sent, mut got) = (0, Vec::new());
        let done = world.run_until(600 * SECOND, |world| {
            let socket = server.host.tcp(accepted);
            send_more(socket, &data, &mut sent);
            server.exchange(world);
            let socket = world.clients[0].tcp(client);
            take_all(socket, &mut got);
            got.len() == data.len()
        });
        assert!(done && got == data, "{} bytes came", got.len());
    }
}

/// Segments of one connection, as a client with a fast disk sends them.
fn segments(count: usize, size: usize) -> Vec<Vec<u8>> {
    let data = pattern(count * size);
    data.chunks(size)
        .enumerate()
        .map(|(n, piece)| segment(TcpControl::None, (n * size) as i32 + 1, Some(1), piece))
        .collect()
}

fn segment(control: TcpControl, sequence: i32, ack: Option<i32>, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (inside(0, 40_000), REMOTE);
    tcp(source, destination, control, sequence, ack, payload)
}

pub(super) fn tcp(
    source: std::net::SocketAddrV4,
    destination: std::net::SocketAddrV4,
    control: TcpControl,
    sequence: i32,
    ack: Option<i32>,
    payload: &[u8],
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: source.port(),
        dst_port: destination.port(),
        control,
        seq_number: TcpSeqNumber(sequence),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 1000,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut bytes),
        &(*source.ip()).into(),
        &(*destination.ip()).into(),
        &smoltcp::phy::ChecksumCapabilities::default(),
    );
    ipv4(*source.ip(), *destination.ip(), IpProtocol::Tcp, &bytes)
}

fn open(world: &mut World) {
    world.inject(0, &segment(TcpControl::Syn, 0, None, &[]));
    world.frames.clear();
}

#[test]
fn segments_that_follow_each_other_leave_in_one_packet() {
    let mut world = raw_world(1);
    open(&mut world);
    let sent = segments(40, 1380);
    world.inject_batch(0, &sent);
    assert_eq!(world.frames.len(), 1);
    let offload = world.frames[0].offload.unwrap();
    assert_eq!((offload.segment_size, offload.header_len), (1380, 40));
    let wire = on_the_wire(&world.frames[0]);
    assert_eq!(wire.len(), 40);
    for (sent, wire) in sent.iter().zip(&wire) {
        ends(wire);
        assert_eq!(sent[40..], wire[40..]);
        assert_eq!(sent[24..32], wire[24..32], "sequence and acknowledgement");
        assert_eq!(wire[8], 63, "one hop less");
    }
}

#[test]
fn a_large_packet_ends_with_a_short_segment_a_push_or_a_gap() {
    let mut world = raw_world(1);
    open(&mut world);
    let mut sent = segments(8, 1000);
    sent[2] = segment(TcpControl::None, 2001, Some(1), &[7; 500]); // Short.
    sent[3] = segment(TcpControl::None, 2501, Some(1), &[7; 1000]);
    sent[4] = segment(TcpControl::Psh, 3501, Some(1), &[7; 1000]);
    sent[5] = segment(TcpControl::None, 4501, Some(1), &[7; 1000]);
    sent[6] = segment(TcpControl::None, 9999, Some(1), &[7; 1000]); // A gap.
    sent[7] = segment(TcpControl::None, 10_999, Some(2), &[7; 1000]); // Another acknowledgement.
    world.inject_batch(0, &sent);
    let lengths: Vec<usize> = world
        .frames
        .iter()
        .map(|frame| frame.packet.len() - 40)
        .collect();
    assert_eq!(lengths, [2500, 2000, 1000, 1000, 1000]);
    let wire: Vec<Vec<u8>> = world.frames.iter().flat_map(on_the_wire).collect();
    assert_eq!(wire.len(), sent.len());
    for (sent, wire) in sent.iter().zip(&wire) {
        ends(wire);
        assert_eq!(sent[24..34], wire[24..34]);
        assert_eq!(sent[40..], wire[40..]);
    }
}

#[test]
fn a_damaged_segment_is_never_made_right() {
    let mut world = raw_world(1);
    open(&mut world);
    let mut sent = segments(3, 1000);
    sent[1][500] ^= 1;
    world.inject_batch(0, &sent);
    let wire: Vec<Vec<u8>> = world.frames.iter().flat_map(on_the_wire).collect();
    assert_eq!(wire.len(), 3);
    for (n, packet) in wire.iter().enumerate() {
        let segment = TcpPacket::new_checked(&packet[20..]).unwrap();
        let right = segment.verify_checksum(&OUTSIDE.into(), &(*REMOTE.ip()).into());
        assert_eq!(right, n != 1, "segment {n}");
    }
}

#[test]
fn two_connections_at_once_are_not_mixed() {
    let mut world = raw_world(1);
    let ports = [40_000, 40_001].map(|port| inside(0, port));
    for port in ports {
        world.inject(0, &tcp(port, REMOTE, TcpControl::Syn, 0, None, &[]));
    }
    world.frames.clear();
    let mixed: Vec<Vec<u8>> = (0..20)
        .map(|n| {
            let from = ports[n % 2];
            let sequence = (n / 2 * 1000) as i32 + 1;
            tcp(
                from,
                REMOTE,
                TcpControl::None,
                sequence,
                Some(1),
                &[n as u8; 1000],
            )
        })
        .collect();
    world.inject_batch(0, &mixed);
    assert_eq!(world.frames.len(), 2);
    for frame in &world.frames {
        assert_eq!(frame.packet.len(), 40 + 10_000);
    }
}

#[test]
fn the_largest_segment_is_fitted_to_the_tunnel_both_ways() {
    let mut world = raw_world(1);
    world.inject(0, &segment(TcpControl::Syn, 0, None, &[]));
    let syn = world.frames.remove(0).packet;
    let (outside, _) = ends(&syn);
    assert_eq!(syn[42..44], 1380u16.to_be_bytes());
    let mut answer = tcp(REMOTE, outside, TcpControl::Syn, 5, Some(1), &[]);
    super::network::leave_unfinished(&mut answer);
    let received = Received {
        partial_checksum: true,
        segment_size: None,
    };
    world.gateway.handle_frame(world.now, &mut answer, received);
    let sealed = world.gateway.poll_transmit().unwrap().contents.to_vec();
    let packet = &sealed[popup_gateway_core::session::OVERHEAD..];
    assert_eq!(ends(packet), (REMOTE, inside(0, 40_000)));
    assert_eq!(packet[42..44], 1380u16.to_be_bytes());
}

#[test]
fn a_segment_of_no_connection_is_refused_at_once() {
    let mut world = raw_world(1);
    world.inject(0, &segment(TcpControl::None, 77, Some(99), b"late"));
    assert_eq!(world.drops(DropReason::UnknownFlow), 1);
    assert!(world.frames.is_empty());
    assert_eq!(world.posted_to_clients, 1, "a reset");
}

#[test]
fn what_nobody_asked_for_goes_to_nobody() {
    let mut world = raw_world(1);
    open(&mut world);
    let port = *world.outside.ports.iter().next().unwrap();
    let stranger = "203.0.113.99:443".parse().unwrap();
    let outside = std::net::SocketAddrV4::new(OUTSIDE, port.1);
    let packet = tcp(stranger, outside, TcpControl::Syn, 5, None, &[]);
    world.network(&packet, Received::default());
    assert_eq!(world.drops(DropReason::Unsolicited), 1);
    assert_eq!(world.posted_to_clients, 0);
}

#[test]
fn more_connections_than_ports_share_them_by_remote() {
    let mut few = super::settings();
    few.held_ports = 64;
    let mut world = World::with(1, |settings| {
        settings.way_out = popup_gateway_core::WayOut::Raw(few)
    });
    let mut seen = std::collections::HashSet::new();
    for n in 0..64u16 {
        for host in 0..7 {
            let remote = std::net::SocketAddrV4::new([203, 0, 113, host].into(), 80);
            let from = inside(0, 20_000 + n);
            world.inject(0, &tcp(from, remote, TcpControl::Syn, 0, None, &[]));
            let frame = world.frames.pop().expect("every connect leaves");
            assert!(seen.insert(ends(&frame.packet)), "no pair of ends twice");
        }
    }
    assert_eq!(world.gateway.flow_counts().tcp, 448);
    assert_eq!(world.outside.ports.len(), 64);
    let one_more = tcp(inside(0, 30_000), REMOTE, TcpControl::Syn, 0, None, &[]);
    world.inject(0, &one_more);
    assert_eq!(world.frames.len(), 1, "another remote is still served");
    let full = std::net::SocketAddrV4::new([203, 0, 113, 1].into(), 80);
    world.inject(
        0,
        &tcp(inside(0, 30_001), full, TcpControl::Syn, 0, None, &[]),
    );
    assert_eq!(world.drops(DropReason::PortsExhausted), 1);
}

#[test]
fn a_finished_connection_gives_its_place_back_and_can_begin_again() {
    let mut world = raw_world(1);
    world.inject(0, &segment(TcpControl::Syn, 0, None, &[]));
    let (outside, _) = ends(&world.frames.pop().unwrap().packet);
    let answer = |control, sequence, ack| tcp(REMOTE, outside, control, sequence, Some(ack), &[]);
    world.network(&answer(TcpControl::Syn, 5, 1), Received::default());
    assert_eq!(world.gateway.flow_counts().tcp, 1);
    world.inject(0, &segment(TcpControl::Fin, 1, Some(6), &[]));
    world.network(&answer(TcpControl::Fin, 6, 2), Received::default());
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    world.frames.clear();
    world.inject(0, &segment(TcpControl::None, 2, Some(7), &[]));
    assert_eq!(
        world.frames.len(),
        1,
        "the last acknowledgement still passes"
    );
    world.inject(0, &segment(TcpControl::Syn, 9000, None, &[]));
    assert_eq!(world.gateway.flow_counts().tcp, 1);
    assert_eq!(ends(&world.frames.pop().unwrap().packet).0, outside);
}

#[test]
fn a_connection_that_is_never_answered_ends_after_four_minutes() {
    let mut world = raw_world(1);
    open(&mut world);
    world.run_for(Duration::from_secs(239));
    assert_eq!(world.gateway.flow_counts().tcp, 1);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.gateway.flow_counts().tcp, 0);
}

#[test]
fn a_refused_port_is_not_used_again() {
    let mut world = raw_world(1);
    open(&mut world);
    let (transport, port) = *world.outside.ports.iter().next().unwrap();
    world
        .gateway
        .handle_port_refused(world.now, transport, port, PortRefusal::Taken);
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    world.inject(0, &segment(TcpControl::Syn, 0, None, &[]));
    assert_ne!(ends(&world.frames.pop().unwrap().packet).0.port(), port);
}

#[test]
fn nothing_is_allocated_for_a_packet_either_way() {
    let mut world = raw_world(1);
    open(&mut world);
    let (_, port) = *world.outside.ports.iter().next().unwrap();
    let outside = std::net::SocketAddrV4::new(OUTSIDE, port);
    let mut count = |rounds: i32, first: i32| {
        let before = allocations();
        for round in first..first + rounds {
            let up: Vec<Vec<u8>> = (0..40)
                .map(|n| {
                    segment(
                        TcpControl::None,
                        (round * 40 + n) * 1380 + 1,
                        Some(1),
                        &[5; 1380],
                    )
                })
                .collect();
            world.inject_batch(0, &up);
            let mut down = tcp(
                REMOTE,
                outside,
                TcpControl::None,
                round * 50_000,
                Some(1),
                &[6; 50_000],
            );
            super::network::leave_unfinished(&mut down);
            let received = Received {
                partial_checksum: true,
                segment_size: Some(1380),
            };
            world.network(&down, received);
            world.frames.clear();
        }
        allocations() - before
    };
    count(50, 0);
    assert_eq!(count(50, 50), 0);
}

#[test]
fn data_does_not_overtake_what_cannot_be_joined() {
    let mut world = raw_world(1);
    open(&mut world);
    let first = segment(TcpControl::None, 1, Some(1), &pattern(1000));
    let between = segment(TcpControl::None, 1001, Some(2), &[]);
    let last = segment(TcpControl::None, 1001, Some(1), &pattern(1000));
    let sent = [first, between, last];
    world.inject_batch(0, &sent);
    let left: Vec<usize> = world
        .frames
        .iter()
        .map(|frame| frame.packet.len())
        .collect();
    assert_eq!(left, [1040, 40, 1040]);
}

/// What the remote says first on a connection that is opened for it.
fn answer(world: &mut World, control: TcpControl, data: &[u8]) -> Vec<u8> {
    world.inject(0, &segment(TcpControl::Syn, 0, None, &[]));
    let (outside, _) = ends(&world.frames.remove(0).packet);
    tcp(REMOTE, outside, control, 1, Some(1), data)
}

#[test]
fn only_the_first_of_a_joined_packet_says_that_the_window_is_reduced() {
    let mut world = raw_world(1);
    let mut joined = answer(&mut world, TcpControl::None, &pattern(3000));
    joined[33] |= 0x80; // CWR (RFC 3168, section 6.1.2).
    super::network::leave_unfinished(&mut joined);
    world.clients[0].ears_only = true;
    let received = Received {
        partial_checksum: true,
        segment_size: Some(1000),
    };
    world.network(&joined, received);
    let flags: Vec<bool> = super::heard(&mut world, 0)
        .iter()
        .map(|packet| packet[33] & 0x80 != 0)
        .collect();
    assert_eq!(flags, [true, false, false]);
}

#[test]
fn segments_whose_headers_differ_are_not_joined() {
    // Class of service, hops left, window, and a flag.
    for (at, bits) in [(1, 0x02), (8, 0x01), (35, 0x01), (33, 0x20)] {
        let mut world = raw_world(1);
        open(&mut world);
        let mut sent = segments(2, 1000);
        sent[1][at] ^= bits;
        let mut ip = Ipv4Packet::new_unchecked(&mut sent[1][..]);
        ip.fill_checksum();
        let mut tcp = TcpPacket::new_unchecked(&mut sent[1][20..]);
        tcp.fill_checksum(&(*inside(0, 0).ip()).into(), &(*REMOTE.ip()).into());
        world.inject_batch(0, &sent);
        assert_eq!(world.frames.len(), 2, "byte {at}");
        for (sent, frame) in sent.iter().zip(&world.frames) {
            ends(&frame.packet);
            assert_eq!(frame.packet[1], sent[1]);
            assert_eq!(frame.packet[8], sent[8] - 1);
            assert_eq!(frame.packet[32..36], sent[32..36]);
        }
    }
}

#[test]
fn the_parts_of_a_joined_packet_are_numbered_as_the_sender_would() {
    let mut world = raw_world(1);
    let data = pattern(3000);
    let mut joined = answer(&mut world, TcpControl::Psh, &data);
    joined[4..6].copy_from_slice(&0xfffe_u16.to_be_bytes());
    super::network::leave_unfinished(&mut joined);
    world.clients[0].ears_only = true;
    let received = Received {
        partial_checksum: true,
        segment_size: Some(1000),
    };
    world.network(&joined, received);
    let parts = super::heard(&mut world, 0);
    let numbers: Vec<u16> = parts
        .iter()
        .map(|part| u16::from_be_bytes([part[4], part[5]]))
        .collect();
    assert_eq!(numbers, [0xfffe, 0xffff, 0], "RFC 6864 asks for no more");
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(ends(part), (REMOTE, inside(0, 40_000)));
        assert_eq!(part[40..], data[n * 1000..][..1000]);
        assert_eq!(part[33] & 0x08 != 0, n == 2, "only the last is pushed");
    }
}
