//! Datagrams that leave several in one packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use popup_gateway_core::{RawSettings, WayOut};
use smoltcp::wire::Ipv4Packet;

use super::network::on_the_wire;
use super::{REMOTE, ends, inside, settings};
use crate::support::World;
use crate::support::packets::udp;

const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 443);

fn datagram(to: SocketAddrV4, len: usize, mark: u8) -> Vec<u8> {
    udp(inside(0, 5000), to, &vec![mark; len])
}

/// A world whose client has spoken already, so that its port is open.
fn world(trains: bool) -> World {
    let mut world = World::with(1, |world| {
        let settings = RawSettings {
            trains,
            ..settings()
        };
        world.way_out = WayOut::Raw(settings);
    });
    world.inject(0, &datagram(REMOTE, 1, 0));
    world.frames.clear();
    world
}

/// How many datagrams each frame stands for, and each datagram on the wire: where it goes, its
/// length and its mark.
fn sent(world: &mut World, packets: &[Vec<u8>]) -> (Vec<usize>, Vec<(SocketAddrV4, usize, u8)>) {
    world.inject_batch(0, packets);
    let frames: Vec<_> = world
        .frames
        .drain(..)
        .map(|frame| on_the_wire(&frame))
        .collect();
    let counts = frames.iter().map(Vec::len).collect();
    let datagrams = frames.iter().flatten().map(|packet| {
        let data = &packet[28..];
        assert!(data.iter().all(|byte| *byte == data[0]));
        (ends(packet).1, data.len(), data[0])
    });
    (counts, datagrams.collect())
}

#[test]
fn datagrams_of_one_size_to_one_remote_leave_in_one_packet() {
    let mut world = world(true);
    let packets: Vec<_> = (0..20).map(|mark| datagram(REMOTE, 1200, mark)).collect();
    let (counts, datagrams) = sent(&mut world, &packets);
    assert_eq!(counts, [20]);
    let expected: Vec<_> = (0..20).map(|mark| (REMOTE, 1200, mark)).collect();
    assert_eq!(datagrams, expected);
}

#[test]
fn they_leave_one_by_one_where_the_kernel_knows_no_such_packets() {
    let mut world = world(false);
    let packets: Vec<_> = (0..5).map(|mark| datagram(REMOTE, 1200, mark)).collect();
    assert_eq!(sent(&mut world, &packets).0, [1; 5]);
}

#[test]
fn a_shorter_one_ends_a_packet_and_a_longer_one_begins_another() {
    let mut world = world(true);
    let lens = [1200, 1200, 700, 700, 1300, 1300, 1200];
    let packets = lens.map(|len| datagram(REMOTE, len, len as u8));
    let (counts, datagrams) = sent(&mut world, &packets);
    assert_eq!(counts, [3, 1, 3]);
    let arrived: Vec<usize> = datagrams.iter().map(|datagram| datagram.1).collect();
    assert_eq!(arrived, lens);
}

#[test]
fn one_packet_has_no_more_of_them_or_bytes_than_the_kernel_takes() {
    let mut world = world(true);
    let short: Vec<_> = (0..130).map(|mark| datagram(REMOTE, 40, mark)).collect();
    assert_eq!(sent(&mut world, &short).0, [64, 64, 2]);
    let long: Vec<_> = (0..50).map(|mark| datagram(REMOTE, 1372, mark)).collect();
    assert_eq!(sent(&mut world, &long).0, [47, 3]);
}

#[test]
fn remotes_are_not_mixed_and_each_gets_its_own_in_order() {
    let mut world = world(true);
    let packets: Vec<_> = (0..12)
        .map(|mark| datagram([REMOTE, OTHER][usize::from(mark) % 2], 1200, mark))
        .collect();
    let (counts, datagrams) = sent(&mut world, &packets);
    assert_eq!(counts, [6, 6]);
    for (n, remote) in [REMOTE, OTHER].into_iter().enumerate() {
        let to_it = datagrams.iter().filter(|datagram| datagram.0 == remote);
        let marks: Vec<u8> = to_it.map(|datagram| datagram.2).collect();
        let expected: Vec<u8> = (0..6).map(|k| 2 * k + n as u8).collect();
        assert_eq!(marks, expected);
    }
    let same_host = SocketAddrV4::new(*REMOTE.ip(), 8443);
    let packets = [REMOTE, same_host, REMOTE].map(|to| datagram(to, 1200, 1));
    assert_eq!(sent(&mut world, &packets).0, [2, 1]);
}

#[test]
fn nothing_overtakes_what_leaves_in_fragments() {
    let mut world = world(true);
    let mut long = datagram(REMOTE, 1600, 1);
    long[6] &= !0x40;
    Ipv4Packet::new_unchecked(&mut long[..]).fill_checksum();
    let packets = [
        datagram(REMOTE, 1200, 0),
        long,
        datagram(REMOTE, 1200, 2),
        datagram(REMOTE, 1200, 3),
    ];
    world.inject_batch(0, &packets);
    let marks: Vec<u8> = world
        .frames
        .iter()
        .map(|frame| *frame.packet.last().unwrap())
        .collect();
    assert_eq!(marks, [0, 1, 1, 3], "the long one in two pieces");
}

#[test]
fn what_cannot_be_rebuilt_from_the_first_stands_alone() {
    let plain = || datagram(REMOTE, 1200, 1);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut packet = plain();
        change(&mut packet);
        Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        packet
    };
    let class_of_service = with(|packet| packet[1] = 0xb8);
    let may_be_cut = with(|packet| packet[6] ^= 0x40);
    let one_hop_less = with(|packet| packet[8] -= 1);
    let without_checksum = with(|packet| packet[26..28].fill(0));
    let shorter_than_its_packet = with(|packet| {
        // With a checksum that would be right if the length were.
        packet[24..26].copy_from_slice(&100_u16.to_be_bytes());
        let checksum = u32::from(u16::from_be_bytes([packet[26], packet[27]])) + 1208 - 100;
        let checksum = (checksum & 0xffff) + (checksum >> 16);
        packet[26..28].copy_from_slice(&(checksum as u16).to_be_bytes());
    });
    let damaged = with(|packet| packet[500] ^= 1);
    for (name, odd) in [
        ("class of service", class_of_service),
        ("may be cut", may_be_cut),
        ("one hop less", one_hop_less),
        ("without checksum", without_checksum),
        ("shorter than its packet", shorter_than_its_packet),
        ("damaged", damaged),
    ] {
        let mut world = world(true);
        world.inject_batch(0, &[plain(), plain(), odd.clone(), plain(), plain()]);
        let frames: Vec<_> = world.frames.drain(..).collect();
        let joined: Vec<bool> = frames.iter().map(|frame| frame.offload.is_some()).collect();
        assert_eq!(joined, [true, false, true], "{name}");
        assert_eq!(frames[1].packet[28..], odd[28..], "{name}: as it was");
    }
}
