//! Once its buffers are there, the core allocates nothing for a packet.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use smoltcp::socket::tcp::State;

use crate::support::counting::allocations;
use crate::support::packets::udp;
use crate::support::{World, peer_spec};

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_download_allocates_nothing_per_packet() {
    let mut world = World::new(1);
    world.outside.greeting = vec![7; 6_000_000];
    let handle = world.clients[0].connect(SocketAddrV4::new(SERVER, 80));
    assert!(
        world.run_until(SECOND, |world| world.clients[0].state(handle)
            == State::Established)
    );
    let mut got = 0;
    let (mut packets, mut counted) = (0, 0);
    let done = world.run_until(60 * SECOND, |world| {
        let socket = world.clients[0].tcp(handle);
        while socket.can_recv() {
            got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        if got < 3_000_000 {
            (packets, counted) = (world.posted_to_clients, allocations());
        }
        got == 6_000_000
    });
    assert!(done, "{got} bytes came");
    let (packets, counted) = (world.posted_to_clients - packets, allocations() - counted);
    assert!(packets > 2000);
    assert!(
        counted * 100 < packets,
        "{counted} allocations for {packets} packets"
    );
}

#[test]
fn an_upload_allocates_nothing_per_packet() {
    let mut world = World::new(1);
    let handle = world.clients[0].connect(SocketAddrV4::new(SERVER, 80));
    assert!(
        world.run_until(SECOND, |world| world.clients[0].state(handle)
            == State::Established)
    );
    let data = vec![7; 6_000_000];
    let (mut sent, mut counted) = (0, 0);
    let done = world.run_until(60 * SECOND, |world| {
        let socket = world.clients[0].tcp(handle);
        while socket.can_send() && sent < data.len() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        if sent < 3_000_000 {
            counted = allocations();
        }
        world.outside.only().received.len() == data.len()
    });
    assert!(done);
    let (packets, counted) = (3_000_000 / 1380, allocations() - counted);
    assert!(
        counted * 100 < packets,
        "{counted} allocations for {packets} packets"
    );
}

#[test]
fn datagrams_allocate_nothing_per_packet() {
    let mut world = World::new(1);
    let inside = SocketAddrV4::new(peer_spec(0).ipv4, 5000);
    let server = SocketAddrV4::new(SERVER, 9);
    let packet = udp(inside, server, &[1; 1200]);
    let mut counted = 0;
    for round in 0..2000 {
        if round == 1000 {
            counted = allocations();
        }
        world.inject_counted(0, &packet);
        let mapping = world.outside.datagrams.pop().expect("it goes out").0;
        world.udp_counted(mapping, server, &[2; 1200]);
        world.run_for(Duration::from_micros(100));
    }
    let counted = allocations() - counted;
    assert!(
        counted * 100 < 2000,
        "{counted} allocations for 2000 packets"
    );
}
