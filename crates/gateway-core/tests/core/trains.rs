//! Trains of datagrams to the outside.

use std::net::SocketAddrV4;

use crate::routing::{SERVER, client};
use crate::support::World;
use crate::support::packets::udp;

#[test]
fn datagrams_of_one_size_from_one_port_to_one_place_leave_in_one_call() {
    let mut world = World::new(1);
    let from = SocketAddrV4::new(client(0), 5000);
    let (here, there) = (
        SocketAddrV4::new(SERVER, 443),
        SocketAddrV4::new(SERVER, 444),
    );
    let sizes = [
        (here, 1200),
        (here, 1200),
        (here, 700),  // The last of a train may be shorter,
        (here, 1200), // and nothing follows it in the same.
        (there, 1200),
        (here, 0),
        (here, 0),
        (here, 100),
        (here, 200), // Longer than the first.
    ];
    let data = |n: usize, size: usize| vec![n as u8; size];
    let packets: Vec<Vec<u8>> = sizes
        .iter()
        .enumerate()
        .map(|(n, (to, size))| udp(from, *to, &data(n, *size)))
        .collect();
    world.inject_batch(0, &packets);
    let sent = world.outside.datagrams.iter();
    let sent: Vec<_> = sent
        .map(|(_, to, datagram)| (*to, datagram.clone()))
        .collect();
    let expected: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(n, (to, size))| (*to, data(n, *size)))
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(world.outside.sends, 7);
}

#[test]
fn two_ports_send_to_one_place_each_by_itself() {
    let mut world = World::new(1);
    let to = SocketAddrV4::new(SERVER, 443);
    let packets: Vec<Vec<u8>> = [5000, 5001, 5001]
        .map(|port| udp(SocketAddrV4::new(client(0), port), to, &[port as u8; 100]))
        .to_vec();
    world.inject_batch(0, &packets);
    let sent = &world.outside.datagrams;
    assert_eq!(sent.len(), 3);
    assert!(sent[0].0 != sent[1].0 && sent[1].0 == sent[2].0);
    assert_eq!(world.outside.sends, 2);
}

#[test]
fn a_train_is_no_longer_than_one_call_can_send() {
    for (size, count, sends) in [(1300, 50, 1), (1300, 51, 2), (100, 64, 1), (100, 65, 2)] {
        let mut world = World::new(1);
        let (from, to) = (
            SocketAddrV4::new(client(0), 5000),
            SocketAddrV4::new(SERVER, 443),
        );
        let packets: Vec<Vec<u8>> = (0..count)
            .map(|n| udp(from, to, &vec![n as u8; size]))
            .collect();
        world.inject_batch(0, &packets);
        assert_eq!(world.outside.datagrams.len(), count);
        assert_eq!(world.outside.sends, sends, "{count} of {size} bytes");
    }
}
