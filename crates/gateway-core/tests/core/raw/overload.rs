//! More arrives than can be sent on.

use std::net::SocketAddrV4;

use popup_gateway_core::{DropReason, Received};

use super::{REMOTE, ends, heard, inside, raw_world};
use crate::support::World;
use crate::support::packets::udp;

const JOINED: usize = 40;
const DATA: usize = 1200;

/// The port outside of a client's port 5000.
fn bind(world: &mut World, client: usize) -> SocketAddrV4 {
    world.inject(client, &udp(inside(client, 5000), REMOTE, b"hello"));
    ends(&world.frames.pop().expect("it leaves").packet).0
}

/// Datagrams joined by a network card, each marked.
fn joined(to: SocketAddrV4, mark: u8) -> Vec<u8> {
    let mut packet = udp(REMOTE, to, &[mark; JOINED * DATA]);
    super::network::leave_unfinished(&mut packet);
    packet
}

const RECEIVED: Received = Received {
    partial_checksum: true,
    segment_size: Some(DATA as u16),
};

#[test]
fn a_peer_that_is_flooded_neither_delays_nor_costs_another() {
    let mut world = raw_world(2);
    let (flooded, other) = (bind(&mut world, 0), bind(&mut world, 1));
    for mark in 0..100 {
        world.network(&joined(flooded, mark), RECEIVED);
    }
    assert!(world.drops(DropReason::Overload) > 0);
    let dropped = world.drops(DropReason::Overload);
    for mark in 0..2 {
        world.network(&joined(other, mark), RECEIVED);
    }
    assert_eq!(world.drops(DropReason::Overload), dropped);
    // Three rounds, of which the flood has taken one already.
    for _ in 0..2 {
        world.now += std::time::Duration::from_micros(100);
        world.gateway.handle_timeout(world.now);
        world.drain();
    }
    let to_other = world.sent_to_ports.iter().filter(|port| **port == 1001);
    assert!(to_other.count() >= 2 * JOINED);
}

#[test]
fn what_has_waited_arrives_in_order() {
    let mut world = raw_world(1);
    let outside = bind(&mut world, 0);
    for mark in 0..30 {
        world.network(&joined(outside, mark), RECEIVED);
    }
    let marks: Vec<u8> = heard(&mut world, 0)
        .iter()
        .map(|packet| packet[28])
        .collect();
    assert_eq!(marks.len(), 30 * JOINED);
    assert!(marks.is_sorted());
    assert_eq!(world.drops(DropReason::Overload), 0);
}

#[test]
fn what_waits_for_a_peer_that_is_removed_goes_nowhere() {
    let mut world = raw_world(2);
    let outside = bind(&mut world, 0);
    for mark in 0..30 {
        world.network(&joined(outside, mark), RECEIVED);
    }
    world
        .gateway
        .set_peers(world.now, vec![crate::support::peer_spec(1)]);
    world.sent_to_ports.clear();
    world.run_for(std::time::Duration::from_millis(20));
    assert!(world.sent_to_ports.is_empty());
    assert!(world.drops(DropReason::Unsolicited) > 0);
}
