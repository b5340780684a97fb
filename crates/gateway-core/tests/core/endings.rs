//! How connections end, and what the next ones find of them.

use std::time::Duration;

use crate::support::{Arrival, World, peer_spec};
use crate::tcp::{SECOND, SERVER, exchange, open, pattern};
use popup_gateway_core::session::OVERHEAD;
use popup_gateway_core::{DropReason, Limits};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

/// A connection that the outside ends first, and then the client.
fn short_connection(world: &mut World) -> SocketHandle {
    world.outside.greeting = b"hello".to_vec();
    world.outside.greeting_ends = true;
    let handle = open(world);
    assert!(world.run_until(5 * SECOND, |world| {
        let socket = world.clients[0].tcp(handle);
        socket.recv_queue() == 5 && socket.state() == State::CloseWait
    }));
    world.run_for(SECOND / 10); // Until the client has acknowledged that.
    world.clients[0].tcp(handle).close();
    handle
}

#[test]
fn a_finished_connection_is_no_flow_and_its_end_is_still_acknowledged() {
    let mut world = World::new(1);
    let handle = short_connection(&mut world);
    world.lost_to_clients.push(world.posted_to_clients);
    assert!(world.run_until(SECOND / 2, |world| world.gateway.flow_counts().tcp == 0));
    assert!(world.outside.only().closed && !world.outside.only().reset);
    assert_eq!(world.clients[0].state(handle), State::LastAck);
    assert!(
        world.run_until(5 * SECOND, |world| world.clients[0].state(handle)
            == State::Closed)
    );
    assert_eq!(world.drops(DropReason::UnknownFlow), 0, "not by a reset");
}

#[test]
fn any_number_of_short_connections_fits_below_the_limit() {
    let limits = Limits {
        flows: 2,
        flows_per_peer: 2,
        ..Limits::for_descriptors(1024, 1)
    };
    let mut world = World::with(1, |settings| settings.limits = limits);
    for _ in 0..20 {
        let handle = short_connection(&mut world);
        assert!(
            world.run_until(SECOND, |world| world.clients[0].state(handle)
                == State::Closed)
        );
    }
    assert!(world.now - world.start < 10 * SECOND);
    assert_eq!(world.drops(DropReason::FlowLimit), 0);
}

#[test]
fn a_connection_finds_nothing_of_those_before_it_however_they_ended() {
    let mut world = World::new(1);
    for round in 0..9 {
        let greeting = pattern(3000 + 500 * round);
        world.outside.connections.clear();
        world.outside.greeting = greeting.clone();
        let handle = open(&mut world);
        let sent = pattern(1000 + 300 * round);
        let got = exchange(&mut world, handle, &sent, greeting.len(), 5 * SECOND);
        assert_eq!(got, greeting, "round {round}");
        assert_eq!(world.outside.only().received, sent, "round {round}");
        // With something still under way.
        world.clients[0].tcp(handle).send_slice(b"more").unwrap();
        match round % 3 {
            0 => world.clients[0].tcp(handle).abort(),
            1 => world.clients[0].tcp(handle).close(),
            _ => {
                let flow = *world.outside.connections.keys().next().unwrap();
                world.gateway.handle_tcp_reset(flow);
            }
        }
        if round % 3 == 1 {
            let flow = *world.outside.connections.keys().next().unwrap();
            world.gateway.handle_tcp_finished(flow);
        }
        assert!(world.run_until(5 * SECOND, |world| world.gateway.flow_counts().tcp == 0));
    }
}

#[test]
fn a_port_may_be_used_again_at_once() {
    let mut world = World::new(1);
    for _ in 0..3 {
        let handle = short_connection(&mut world);
        assert!(
            world.run_until(SECOND, |world| world.clients[0].state(handle)
                == State::Closed)
        );
        world.clients[0].use_port_again();
    }
    assert_eq!(world.outside.connects.len(), 3);
}

#[test]
fn an_end_is_acknowledged_at_once_or_with_the_acknowledgement_that_was_put_off() {
    let millis = Duration::from_millis;
    // What the client says before its end, and how long before.
    for (last, before, put_off) in [("", 0, 0), ("x", 0, 0), ("x", 2, 10)] {
        let mut world = World::new(1);
        world.outside.greeting = b"hello".to_vec();
        world.outside.greeting_ends = true;
        let handle = open(&mut world);
        world.run_for(SECOND / 10);
        assert_eq!(world.clients[0].state(handle), State::CloseWait);
        let socket = world.clients[0].tcp(handle);
        socket.send_slice(last.as_bytes()).unwrap();
        if before > 0 {
            world.run_for(millis(before));
        }
        world.clients[0].tcp(handle).close();
        let patience = 2 * world.link.delay + millis(put_off + 1);
        assert!(
            world.run_until(patience, |world| world.clients[0].state(handle)
                == State::Closed),
            "{last:?} {before} ms before"
        );
        assert_eq!(world.gateway.flow_counts().tcp, 0);
    }
}

/// What the client would send now, past the link.
fn next_segment(world: &mut World) -> Vec<u8> {
    let time = smoltcp::time::Instant::from_micros(
        world.now.duration_since(world.start).as_micros() as i64,
    );
    world.clients[0].poll(time);
    world.clients[0].wire.outgoing.pop_back().unwrap()
}

#[test]
fn after_the_end_only_what_is_intact_is_answered() {
    let mut world = World::new(1);
    let handle = short_connection(&mut world);
    let end = next_segment(&mut world);
    world.inject(0, &end);
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    assert!(matches!(
        world.clients[0].state(handle),
        State::LastAck | State::Closed
    ));
    let answers = world.posted_to_clients;
    let mut damaged = end.clone();
    damaged[39] ^= 1;
    world.inject(0, &damaged);
    assert_eq!(world.posted_to_clients, answers);
    assert_eq!(world.drops(DropReason::InvalidChecksum), 1);
    world.inject(0, &end);
    assert_eq!(world.posted_to_clients, answers + 1);
}

#[test]
fn a_damaged_syn_opens_nothing() {
    let mut world = World::new(1);
    world.clients[0].connect(SERVER.parse().unwrap());
    let mut syn = next_segment(&mut world);
    *syn.last_mut().unwrap() ^= 1;
    world.inject(0, &syn);
    assert_eq!(world.drops(DropReason::InvalidChecksum), 1);
    assert!(world.outside.connects.is_empty());
}

#[test]
fn what_a_port_was_used_for_before_is_forgotten_when_it_is_used_again() {
    let mut world = World::new(1);
    let first = short_connection(&mut world);
    assert!(
        world.run_until(SECOND, |world| world.clients[0].state(first)
            == State::Closed)
    );
    world.clients[0].use_port_again();
    let second = short_connection(&mut world);
    let end = next_segment(&mut world);
    world.clients[0].tcp(second).abort();
    let reset = next_segment(&mut world);
    world.inject(0, &reset);
    assert_eq!(world.gateway.flow_counts().tcp, 0);
    world.inject(0, &end);
    assert_eq!(world.drops(DropReason::UnknownFlow), 1);
}

/// Segments that a connection sends of so many bytes before it has heard of any of them.
fn first_burst(world: &mut World, bytes: usize) -> u64 {
    world.outside.connections.clear();
    open(world);
    world.run_for(world.link.delay); // Until the gateway knows, too.
    let flow = *world.outside.connections.keys().next().unwrap();
    world.outside.only().to_send = pattern(bytes);
    let (before, now) = (world.posted_to_clients, world.now);
    world.outside.pump(&mut world.gateway, now, flow);
    world.run_for(world.link.delay / 2);
    let sent = world.posted_to_clients - before;
    assert!(sent > 0);
    sent
}

#[test]
fn a_connection_begins_anew_where_one_before_has_learnt_of_its_path() {
    let fresh = first_burst(&mut World::new(1), 60_000);
    let mut world = World::new(1);
    // Short enough that what it leaves behind is used again.
    first_burst(&mut world, 23_000);
    let handle = world.clients[0].newest();
    let mut got = 0;
    assert!(world.run_until(10 * SECOND, |world| {
        let socket = world.clients[0].tcp(handle);
        while socket.can_recv() {
            got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        got == 23_000
    }));
    let flow = *world.outside.connections.keys().next().unwrap();
    world.gateway.handle_tcp_finished(flow);
    world.clients[0].tcp(handle).close();
    assert!(world.run_until(5 * SECOND, |world| world.gateway.flow_counts().tcp == 0));
    assert_eq!(first_burst(&mut world, 60_000), fresh);
}

#[test]
fn acknowledgements_are_put_off_in_later_connections_too() {
    let mut world = World::new(1);
    let mut answers = Vec::new();
    for _ in 0..2 {
        world.outside.connections.clear();
        let handle = open(&mut world);
        let before = world.posted_to_clients;
        let client = |world: &mut World| {
            world.clients[0].tcp(handle).send_slice(b"x").unwrap();
            world.run_for(Duration::from_millis(2));
        };
        for _ in 0..20 {
            client(&mut world);
        }
        world.run_for(SECOND / 10);
        answers.push(world.posted_to_clients - before);
        world.clients[0].tcp(handle).close();
        let flow = *world.outside.connections.keys().next().unwrap();
        world.run_for(SECOND / 10);
        world.gateway.handle_tcp_finished(flow);
        assert!(world.run_until(5 * SECOND, |world| world.gateway.flow_counts().tcp == 0));
    }
    assert_eq!(answers[1], answers[0]);
}

#[test]
fn a_slow_outside_gets_all_of_an_upload_after_both_have_said_their_last() {
    let mut world = World::new(1);
    world.outside.greeting = b"hello".to_vec();
    world.outside.greeting_ends = true;
    world.outside.reads_at_most = Some(10);
    let handle = open(&mut world);
    world.run_for(SECOND / 10);
    let upload = pattern(100_000);
    assert_eq!(
        world.clients[0].tcp(handle).send_slice(&upload).unwrap(),
        upload.len()
    );
    world.clients[0].tcp(handle).close();
    world.run_for(60 * SECOND);
    assert_eq!(world.clients[0].state(handle), State::Closed);
    assert_eq!(world.outside.only().received.len(), 10);
    let next = world.gateway.poll_timeout().unwrap();
    assert!(next > world.now + SECOND / 100, "nothing is to be done");
    world.outside.only().reads_at_most = None;
    let flow = *world.outside.connections.keys().next().unwrap();
    let now = world.now;
    world.outside.pump(&mut world.gateway, now, flow);
    world.drain();
    assert!(world.outside.only().received == upload);
    assert!(world.outside.only().closed && !world.outside.only().reset);
    assert_eq!(world.gateway.flow_counts().tcp, 0);
}

/// The longest packets of a short exchange, to the client and from it.
fn longest_packets(world: &mut World, client: usize) -> (usize, usize) {
    world.outside.connections.clear();
    world.outside.greeting = pattern(4_000);
    let handle = world.clients[client].connect(SERVER.parse().unwrap());
    let upload = pattern(4_000);
    let (mut down, mut up) = (0, 0);
    let (mut sent, mut got) = (0, 0);
    assert!(world.run_until(5 * SECOND, |world| {
        for arrival in world.arrivals.values() {
            match arrival {
                Arrival::AtClient { datagram, .. } => down = down.max(datagram.len() - OVERHEAD),
                Arrival::AtGateway { datagram, .. } => up = up.max(datagram.len() - OVERHEAD),
            }
        }
        let socket = world.clients[client].tcp(handle);
        if socket.can_send() {
            sent += socket.send_slice(&upload[sent..]).unwrap();
        }
        if socket.can_recv() {
            got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        got == 4_000 && world.outside.only().received.len() == 4_000
    }));
    world.clients[client].tcp(handle).close();
    let flow = *world.outside.connections.keys().next().unwrap();
    world.gateway.handle_tcp_finished(flow);
    assert!(world.run_until(5 * SECOND, |world| world.gateway.flow_counts().tcp == 0));
    (down, up)
}

#[test]
fn segments_fill_the_tunnel_of_each_peer_whatever_there_was_before() {
    let mut world = World::new(2);
    let mut narrow = peer_spec(1);
    narrow.mtu = 1300;
    world
        .gateway
        .set_peers(world.now, vec![peer_spec(0), narrow]);
    world.handshake(1);
    for (client, mtu) in [(0, 1420), (1, 1300), (1, 1300), (0, 1420)] {
        assert_eq!(longest_packets(&mut world, client), (mtu, mtu));
    }
}
