//! TCP through the gateway, on a simulated clock and a link that loses and reorders.

use std::time::Duration;

use crate::support::{Answer, Link, World};
use popup_gateway_core::{DropReason, Limits};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

pub(crate) const SERVER: &str = "203.0.113.10:80";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn open(world: &mut World) -> SocketHandle {
    let handle = world.clients[0].connect(SERVER.parse().unwrap());
    assert!(
        world.run_until(10 * SECOND, |world| world.clients[0].state(handle)
            == State::Established)
    );
    handle
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|n| (n ^ (n >> 8) ^ (n >> 15)) as u8)
        .collect()
}

/// Sends all of `data` from the client and reads whatever comes, until both are done.
pub(crate) fn exchange(
    world: &mut World,
    handle: SocketHandle,
    data: &[u8],
    expected: usize,
    patience: Duration,
) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    world.run_until(patience, |world| {
        let socket = world.clients[0].tcp(handle);
        while socket.can_send() && sent < data.len() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    got.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        sent == data.len()
            && got.len() >= expected
            && world.outside.only().received.len() == data.len()
    });
    got
}

#[test]
fn a_syn_is_answered_only_after_the_outside_has_accepted() {
    let mut world = World::new(1);
    world.outside.answer = Answer::Silence;
    let handle = world.clients[0].connect(SERVER.parse().unwrap());
    world.run_for(4 * SECOND);
    assert_eq!(world.clients[0].state(handle), State::SynSent);
    assert_eq!(
        world.outside.connects.len(),
        1,
        "repeated SYNs must not connect again"
    );
    let flow = *world.outside.connections.keys().next().unwrap();
    let now = world.now;
    world.outside.accept(&mut world.gateway, now, flow);
    assert!(
        world.run_until(10 * SECOND, |world| world.clients[0].state(handle)
            == State::Established)
    );
}

#[test]
fn a_refused_connect_is_a_reset_at_once() {
    let mut world = World::new(1);
    world.outside.answer = Answer::Refuse;
    let handle = world.clients[0].connect(SERVER.parse().unwrap());
    assert!(
        world.run_until(SECOND / 2, |world| world.clients[0].state(handle)
            == State::Closed)
    );
    assert_eq!(world.gateway.flow_counts().tcp, 0);
}

#[test]
fn an_unreachable_outside_is_host_unreachable() {
    let mut world = World::new(1);
    world.outside.answer = Answer::Unreachable;
    world.clients[0].connect(SERVER.parse().unwrap());
    assert!(world.run_until(SECOND / 2, |world| !world.clients[0].heard.is_empty()));
    let icmp = &world.clients[0].heard[0];
    assert_eq!((icmp[9], icmp[20], icmp[21]), (1, 3, 1));
}

#[test]
fn data_crosses_both_ways_intact_over_a_link_that_loses_and_reorders() {
    for seed in 0..6 {
        let mut world = World::new(1);
        world.seed(seed);
        world.link = Link {
            loss: 0.02,
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(3),
        };
        world.outside.greeting = pattern(300_000);
        let handle = open(&mut world);
        let upload = pattern(200_000);
        let got = exchange(&mut world, handle, &upload, 300_000, 600 * SECOND);
        assert!(
            got == world.outside.greeting,
            "seed {seed}: download of {} bytes differs",
            got.len()
        );
        assert!(
            world.outside.only().received == upload,
            "seed {seed}: upload differs"
        );
    }
}

/// How long a download takes, in simulated time, when the datagrams of these numbers are lost.
fn download_time(len: usize, lost: &[u64]) -> Duration {
    download_time_in(len, lost, World::new(1))
}

fn download_time_in(len: usize, lost: &[u64], mut world: World) -> Duration {
    world.windows_move = true;
    world.link.delay = Duration::from_millis(10);
    let handle = open(&mut world);
    let flow = *world.outside.connections.keys().next().unwrap();
    world.lost_to_clients = lost
        .iter()
        .map(|number| world.posted_to_clients + number)
        .collect();
    world.outside.only().to_send = pattern(len);
    let (began, now) = (world.now, world.now);
    world.outside.pump(&mut world.gateway, now, flow);
    let got = exchange(&mut world, handle, &[], len, 60 * SECOND);
    assert!(got == pattern(len), "{} of {len} bytes", got.len());
    world.now - began
}

#[test]
fn a_lost_segment_costs_round_trips_even_when_duplicates_move_the_window() {
    let unharmed = download_time(300_000, &[]);
    let harmed = download_time(300_000, &[60]);
    let cost = harmed.saturating_sub(unharmed);
    assert!(
        cost <= Duration::from_millis(60),
        "one loss at 20 ms cost {cost:?} of {harmed:?}"
    );
}

#[test]
fn each_lost_segment_costs_round_trips_even_when_there_is_one_duplicate_for_many_segments() {
    let world = || {
        let mut world = World::new(1);
        world.answers_join = true;
        world
    };
    let unharmed = download_time_in(300_000, &[], world());
    for lost in [&[40][..], &[40, 44, 48]] {
        let harmed = download_time_in(300_000, lost, world());
        let cost = harmed.saturating_sub(unharmed);
        assert!(
            cost <= Duration::from_millis(60) * lost.len() as u32,
            "losing {lost:?} at 20 ms cost {cost:?} of {harmed:?}"
        );
    }
}

#[test]
fn a_lost_last_segment_is_missed_after_200_ms_not_after_a_second() {
    let segments = 20_000_u64.div_ceil(1380);
    let harmed = download_time(20_000, &[segments - 1]);
    assert!(
        harmed >= Duration::from_millis(200),
        "{harmed:?}: was anything lost?"
    );
    assert!(
        harmed < Duration::from_millis(400),
        "the last segment was missed only after {harmed:?}"
    );
}

#[test]
fn the_client_may_finish_first_and_still_receive() {
    let mut world = World::new(1);
    let handle = open(&mut world);
    world.clients[0]
        .tcp(handle)
        .send_slice(b"question")
        .unwrap();
    world.clients[0].tcp(handle).close();
    assert!(world.run_until(5 * SECOND, |world| world.outside.only().peer_finished));
    assert_eq!(world.outside.only().received, b"question");
    assert!(
        !world.outside.only().closed,
        "the other direction is still open"
    );
    let flow = *world.outside.connections.keys().next().unwrap();
    world.outside.only().to_send = pattern(50_000);
    world.outside.only().ends = true;
    let now = world.now;
    world.outside.pump(&mut world.gateway, now, flow);
    let mut got = 0;
    assert!(world.run_until(10 * SECOND, |world| {
        let socket = world.clients[0].tcp(handle);
        while socket.can_recv() {
            got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        got == 50_000 && world.outside.only().closed
    }));
    assert!(!world.outside.only().reset);
}

#[test]
fn the_outside_may_finish_first_and_still_receive() {
    let mut world = World::new(1);
    world.outside.greeting = b"hello".to_vec();
    world.outside.greeting_ends = true;
    let handle = open(&mut world);
    assert!(world.run_until(5 * SECOND, |world| {
        let socket = world.clients[0].tcp(handle);
        socket.recv_queue() == 5 && socket.state() == State::CloseWait
    }));
    world.clients[0].tcp(handle).send_slice(b"thanks").unwrap();
    world.clients[0].tcp(handle).close();
    assert!(world.run_until(5 * SECOND, |world| world.outside.only().closed));
    assert_eq!(world.outside.only().received, b"thanks");
    assert!(!world.outside.only().reset);
    assert!(world.run_until(60 * SECOND, |world| world.gateway.flow_counts().tcp == 0));
}

#[test]
fn a_damaged_segment_is_dropped_and_nothing_of_it_goes_out() {
    let mut world = World::new(1);
    let handle = open(&mut world);
    world.clients[0].tcp(handle).send_slice(b"intact").unwrap();
    let time = smoltcp::time::Instant::from_micros(
        world.now.duration_since(world.start).as_micros() as i64,
    );
    world.clients[0].poll(time);
    let segment = world.clients[0].wire.outgoing.pop_back().unwrap();
    let mut damaged = segment.clone();
    *damaged.last_mut().unwrap() ^= 1;
    world.inject(0, &damaged);
    assert_eq!(world.drops(DropReason::InvalidChecksum), 1);
    assert!(world.outside.only().received.is_empty());
    world.inject(0, &segment);
    assert_eq!(world.outside.only().received, b"intact");
}

#[test]
fn a_reset_crosses_in_both_directions() {
    let mut world = World::new(1);
    let handle = open(&mut world);
    world.clients[0].tcp(handle).abort();
    assert!(world.run_until(SECOND, |world| world.outside.only().reset));
    assert_eq!(world.gateway.flow_counts().tcp, 0);

    let mut world = World::new(1);
    let handle = open(&mut world);
    let flow = *world.outside.connections.keys().next().unwrap();
    world.gateway.handle_tcp_reset(flow);
    world.drain();
    assert!(
        world.run_until(SECOND, |world| world.clients[0].state(handle)
            == State::Closed)
    );
    assert_eq!(world.gateway.flow_counts().tcp, 0);
}

#[test]
fn a_client_that_gives_up_while_connecting_ends_the_connect() {
    let mut world = World::new(1);
    world.outside.answer = Answer::Silence;
    let server: std::net::SocketAddrV4 = SERVER.parse().unwrap();
    world.clients[0].connect(server);
    world.run_for(SECOND / 2);
    assert_eq!(world.gateway.flow_counts().tcp, 1);
    let reset = TcpRepr {
        src_port: 40_001,
        dst_port: server.port(),
        control: TcpControl::Rst,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let source = crate::support::peer_spec(0).ipv4;
    let mut segment = vec![0; reset.buffer_len()];
    reset.emit(
        &mut TcpPacket::new_unchecked(&mut segment),
        &source.into(),
        &(*server.ip()).into(),
        &smoltcp::phy::ChecksumCapabilities::default(),
    );
    world.inject(
        0,
        &crate::support::packets::ipv4(source, *server.ip(), IpProtocol::Tcp, &segment),
    );
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    assert!(world.outside.only().reset);
}

#[test]
fn an_outside_that_does_not_read_stops_the_client_and_loses_nothing() {
    let mut world = World::new(1);
    world.outside.reads_at_most = Some(10_000);
    let handle = open(&mut world);
    let upload = pattern(10_000_000);
    let mut sent = 0;
    let fill = |world: &mut World, sent: &mut usize| {
        let socket = world.clients[0].tcp(handle);
        while socket.can_send() && *sent < upload.len() {
            *sent += socket.send_slice(&upload[*sent..]).unwrap();
        }
    };
    world.run_until(20 * SECOND, |world| {
        fill(world, &mut sent);
        false
    });
    assert_eq!(world.outside.only().received.len(), 10_000);
    assert!(
        sent < 5_000_000,
        "the client was let send {sent} bytes that nobody reads"
    );
    world.outside.only().reads_at_most = None;
    let flow = *world.outside.connections.keys().next().unwrap();
    let now = world.now;
    world.outside.pump(&mut world.gateway, now, flow);
    assert!(world.run_until(120 * SECOND, |world| {
        fill(world, &mut sent);
        world.outside.only().received.len() == upload.len()
    }));
    assert!(world.outside.only().received == upload);
}

#[test]
fn a_client_that_does_not_read_stops_the_outside() {
    let mut world = World::new(1);
    world.outside.greeting = pattern(8_000_000);
    open(&mut world);
    world.run_for(30 * SECOND);
    let sent = world.outside.only().sent;
    assert!(
        sent < 2_000_000,
        "{sent} bytes were taken from the outside for a client that does not read"
    );
}

#[test]
fn a_silent_connection_is_reaped_after_two_hours_and_not_before() {
    let mut world = World::new(1);
    open(&mut world);
    world.run_for(Duration::from_secs(2 * 3600));
    assert_eq!(world.gateway.flow_counts().tcp, 1);
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    assert!(world.outside.only().reset);
}

#[test]
fn an_unanswered_connect_is_given_up_after_four_minutes() {
    let mut world = World::new(1);
    world.outside.answer = Answer::Silence;
    world.clients[0].connect(SERVER.parse().unwrap());
    world.run_for(SECOND / 2);
    world.link.loss = 1.0; // Repeated SYNs would begin anew.
    world.run_for(Duration::from_secs(230));
    assert_eq!(world.gateway.flow_counts().tcp, 1);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.gateway.flow_counts().tcp, 0);
}

#[test]
fn a_vanished_client_with_unacknowledged_data_is_reaped_within_minutes() {
    let mut world = World::new(1);
    let _ = open(&mut world);
    world.link.loss = 1.0;
    let flow = *world.outside.connections.keys().next().unwrap();
    world.outside.only().to_send = pattern(1000);
    let now = world.now;
    world.outside.pump(&mut world.gateway, now, flow);
    world.run_for(Duration::from_secs(250));
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    assert!(world.outside.only().reset);
}

#[test]
fn at_the_limit_new_connections_are_refused_and_old_ones_live() {
    let limits = Limits {
        flows: 3,
        flows_per_peer: 3,
        half_open_per_peer: 10,
        tcp_buffer_bytes: 1 << 24,
    };
    let mut world = World::with(1, |settings| settings.limits = limits);
    let handles: Vec<_> = (0..5)
        .map(|_| world.clients[0].connect(SERVER.parse().unwrap()))
        .collect();
    world.run_for(SECOND);
    let states: Vec<_> = handles
        .iter()
        .map(|handle| world.clients[0].state(*handle))
        .collect();
    assert_eq!(
        states
            .iter()
            .filter(|state| **state == State::Established)
            .count(),
        3
    );
    assert_eq!(
        states
            .iter()
            .filter(|state| **state == State::Closed)
            .count(),
        2
    );
    assert_eq!(world.drops(DropReason::FlowLimit), 2);
    world.clients[0]
        .tcp(handles[0])
        .send_slice(b"still here")
        .unwrap();
    assert!(world.run_until(SECOND, |world| {
        world
            .outside
            .connections
            .values()
            .any(|connection| connection.received == b"still here")
    }));
}

#[test]
fn unfinished_connects_have_a_limit_of_their_own() {
    let limits = Limits {
        half_open_per_peer: 2,
        ..Limits::for_descriptors(1024, 1)
    };
    let mut world = World::with(1, |settings| settings.limits = limits);
    world.outside.answer = Answer::Silence;
    for _ in 0..4 {
        world.clients[0].connect(SERVER.parse().unwrap());
    }
    world.run_for(SECOND / 2);
    assert_eq!(world.outside.connects.len(), 2);
    assert_eq!(world.drops(DropReason::HalfOpenLimit), 2);
}

#[test]
fn without_memory_for_buffers_a_connect_is_refused() {
    let limits = Limits {
        tcp_buffer_bytes: 0,
        ..Limits::for_descriptors(1024, 1)
    };
    let mut world = World::with(1, |settings| settings.limits = limits);
    let handle = world.clients[0].connect(SERVER.parse().unwrap());
    assert!(
        world.run_until(SECOND, |world| world.clients[0].state(handle)
            == State::Closed)
    );
    assert_eq!(world.drops(DropReason::MemoryLimit), 1);
    assert!(world.outside.only().reset);
}

#[test]
fn with_little_memory_left_connections_go_on_in_small_steps() {
    let limits = Limits {
        tcp_buffer_bytes: 80 * 1024, // Four connections' least is 64 KiB.
        ..Limits::for_descriptors(1024, 1)
    };
    let mut world = World::with(1, |settings| settings.limits = limits);
    world.outside.greeting = pattern(300_000);
    let handles: Vec<_> = (0..4)
        .map(|_| world.clients[0].connect(SERVER.parse().unwrap()))
        .collect();
    world.run_for(SECOND);
    let taken: usize = world
        .outside
        .connections
        .values()
        .map(|connection| connection.sent)
        .sum();
    assert!(
        taken <= 80 * 1024 + 4 * 256 * 1024,
        "{taken} bytes were taken"
    );
    let mut got = [0; 4];
    let done = world.run_until(120 * SECOND, |world| {
        for (handle, got) in handles.iter().zip(&mut got) {
            let socket = world.clients[0].tcp(*handle);
            while socket.can_recv() {
                *got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
            }
        }
        got == [300_000; 4]
    });
    assert!(done, "{got:?}");
}

#[test]
fn a_segment_of_no_connection_is_answered_with_a_reset() {
    let mut world = World::new(1);
    let handle = open(&mut world);
    let flow = *world.outside.connections.keys().next().unwrap();
    world.gateway.set_peers(world.now, Vec::new());
    world
        .gateway
        .set_peers(world.now, vec![crate::support::peer_spec(0)]);
    world.drain();
    world.handshake(0);
    assert!(world.outside.connections[&flow].reset);
    world.clients[0]
        .tcp(handle)
        .send_slice(b"anybody?")
        .unwrap();
    assert!(
        world.run_until(SECOND, |world| world.clients[0].state(handle)
            == State::Closed)
    );
    assert!(world.drops(DropReason::UnknownFlow) > 0);
}

#[test]
fn loss_does_not_halve_the_download_again_and_again() {
    for answers_join in [false, true] {
        let mut world = World::new(1);
        world.windows_move = true;
        world.answers_join = answers_join;
        world.link = Link {
            loss: 0.005,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
        };
        world.outside.greeting = pattern(2_000_000);
        let handle = open(&mut world);
        let began = world.now;
        let got = exchange(&mut world, handle, &[], 2_000_000, 60 * SECOND);
        assert_eq!(got.len(), 2_000_000);
        let took = world.now - began;
        assert!(
            took < 2 * SECOND,
            "2 MB with 0.5 % loss at 20 ms took {took:?} of simulated time ({answers_join})"
        );
    }
}
