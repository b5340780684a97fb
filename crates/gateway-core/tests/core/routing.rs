//! Cryptokey routing, policy, UDP, ping and the gateway's own answers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::support::packets::{SOURCE_ROUTES, ping, udp, with_options};
use crate::support::{World, message, peer_spec};
use popup_gateway_core::{DropReason, Endpoint};
use smoltcp::wire::Ipv4Packet;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

pub(crate) fn client(number: usize) -> Ipv4Addr {
    peer_spec(number).ipv4
}

/// What arrives at a client after everything under way has.
fn heard(world: &mut World, number: usize) -> Vec<Vec<u8>> {
    world.run_for(Duration::from_millis(50));
    std::mem::take(&mut world.clients[number].heard)
}

fn icmp_kind(packet: &[u8]) -> (u8, u8) {
    assert_eq!(packet[9], 1, "an ICMP packet");
    (packet[20], packet[21])
}

#[test]
fn a_source_that_is_not_the_peers_own_is_dropped() {
    let mut world = World::new(2);
    for source in [client(1), SERVER, Ipv4Addr::new(127, 0, 0, 1)] {
        world.inject(
            0,
            &udp(
                SocketAddrV4::new(source, 5),
                SocketAddrV4::new(SERVER, 53),
                b"x",
            ),
        );
    }
    assert_eq!(world.drops(DropReason::SpoofedSource), 3);
    assert!(world.outside.datagrams.is_empty());
    assert!(heard(&mut world, 1).is_empty());
}

#[test]
fn a_mapping_is_the_same_for_every_destination_and_answers_go_back() {
    let mut world = World::new(2);
    let inside = SocketAddrV4::new(client(0), 7000);
    let (a, b) = (
        SocketAddrV4::new(SERVER, 1111),
        SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 2222),
    );
    world.inject(0, &udp(inside, a, b"one"));
    world.inject(0, &udp(inside, b, b"two"));
    world.inject(1, &udp(SocketAddrV4::new(client(1), 7000), a, b"other"));
    let mappings: Vec<_> = world
        .outside
        .datagrams
        .iter()
        .map(|(mapping, ..)| *mapping)
        .collect();
    assert_eq!(mappings[0], mappings[1]);
    assert_ne!(mappings[0], mappings[2]);
    let stranger = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 99), 9);
    world
        .gateway
        .handle_udp(world.now, mappings[0], stranger, b"hello");
    world.drain();
    let packets = heard(&mut world, 0);
    assert_eq!(
        packets,
        [udp_with_id(stranger, inside, b"hello", &packets[0])]
    );
    assert!(heard(&mut world, 1).is_empty());
}

/// The expected packet, with the identification that was chosen.
fn udp_with_id(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    data: &[u8],
    like: &[u8],
) -> Vec<u8> {
    let mut packet = udp(source, destination, data);
    packet[4..6].copy_from_slice(&like[4..6]);
    packet[6..8].copy_from_slice(&[0, 0]);
    Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    packet
}

#[test]
fn a_mapping_lives_five_minutes_and_one_for_dns_thirty_seconds() {
    let mut world = World::new(1);
    world.inject(
        0,
        &udp(
            SocketAddrV4::new(client(0), 1),
            SocketAddrV4::new(SERVER, 53),
            b"q",
        ),
    );
    world.inject(
        0,
        &udp(
            SocketAddrV4::new(client(0), 2),
            SocketAddrV4::new(SERVER, 443),
            b"q",
        ),
    );
    world.run_for(Duration::from_secs(29));
    assert_eq!(world.gateway.flow_counts().udp, 2);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.gateway.flow_counts().udp, 1);
    world.run_for(Duration::from_secs(265));
    world.inject(
        0,
        &udp(
            SocketAddrV4::new(client(0), 2),
            SocketAddrV4::new(SERVER, 443),
            b"q",
        ),
    );
    world.run_for(Duration::from_secs(299));
    assert_eq!(
        world.gateway.flow_counts().udp,
        1,
        "a datagram from inside keeps it alive"
    );
    let mapping = world.outside.mappings_opened[1];
    world.gateway.handle_udp(
        world.now,
        mapping,
        SocketAddrV4::new(SERVER, 443),
        b"from outside",
    );
    world.drain();
    world.run_for(Duration::from_secs(2));
    assert_eq!(
        world.gateway.flow_counts().udp,
        0,
        "nobody outside can keep it alive"
    );
    assert_eq!(world.outside.mappings_closed.len(), 2);
}

#[test]
fn long_datagrams_cross_in_fragments_both_ways() {
    let mut world = World::new(1);
    let (inside, outside) = (
        SocketAddrV4::new(client(0), 7000),
        SocketAddrV4::new(SERVER, 9),
    );
    let data: Vec<u8> = (0..4000_u32).map(|n| n as u8).collect();
    let whole = udp(inside, outside, &data);
    let pieces = cut(&whole, 1400);
    assert!(pieces.len() > 2);
    for piece in pieces.iter().rev() {
        world.inject(0, piece);
    }
    assert_eq!(world.outside.datagrams.len(), 1);
    assert_eq!(world.outside.datagrams[0].2, data);
    let mapping = world.outside.datagrams[0].0;
    world.gateway.handle_udp(world.now, mapping, outside, &data);
    world.drain();
    let packets = heard(&mut world, 0);
    assert!(packets.len() > 2 && packets.iter().all(|packet| packet.len() <= 1420));
    let joined: Vec<u8> = packets
        .iter()
        .flat_map(|packet| packet[20..].to_vec())
        .collect();
    assert_eq!(&joined[8..], &data[..]);
}

fn cut(packet: &[u8], step: usize) -> Vec<Vec<u8>> {
    let payload = &packet[20..];
    let pieces = payload.chunks(step).count();
    payload
        .chunks(step)
        .enumerate()
        .map(|(number, chunk)| {
            let mut piece = packet[..20].to_vec();
            piece.extend(chunk);
            let mut header = Ipv4Packet::new_unchecked(&mut piece[..]);
            header.set_total_len(20 + chunk.len() as u16);
            header.set_dont_frag(false);
            header.set_ident(77);
            header.set_more_frags(number + 1 < pieces);
            header.set_frag_offset((number * step) as u16);
            header.fill_checksum();
            piece
        })
        .collect()
}

#[test]
fn every_refused_class_is_answered_as_prohibited_and_reaches_nothing() {
    let mut world = World::new(1);
    let refused = [
        "0.0.0.0",
        "10.1.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "192.0.0.1",
        "240.0.0.1",
        "192.0.2.1",
    ];
    for text in refused {
        let destination = text.parse().unwrap();
        world.inject(
            0,
            &udp(
                SocketAddrV4::new(client(0), 5),
                SocketAddrV4::new(destination, 80),
                b"x",
            ),
        );
        let answers = heard(&mut world, 0);
        assert_eq!(answers.len(), 1, "{text}");
        assert_eq!(icmp_kind(&answers[0]), (3, 13), "{text}");
        assert_eq!(
            &answers[0][12..16],
            &GATEWAY.octets(),
            "{text}: the gateway says so"
        );
    }
    assert_eq!(world.drops(DropReason::EgressRefused), refused.len() as u64);
    for text in ["224.0.0.251", "255.255.255.255"] {
        world.inject(
            0,
            &udp(
                SocketAddrV4::new(client(0), 5),
                SocketAddrV4::new(text.parse().unwrap(), 80),
                b"x",
            ),
        );
    }
    assert_eq!(world.drops(DropReason::Multicast), 2);
    assert!(
        heard(&mut world, 0).is_empty(),
        "packets to many are not answered"
    );
    assert!(world.outside.datagrams.is_empty());
}

#[test]
fn a_way_of_the_peers_own_is_refused_wherever_it_leads() {
    let mut world = World::with(2, |settings| settings.peer_to_peer = true);
    let from = SocketAddrV4::new(client(0), 5);
    for destination in [SERVER, GATEWAY, client(1)] {
        let plain = udp(from, SocketAddrV4::new(destination, 80), b"x");
        for route in SOURCE_ROUTES {
            let before = world.drops(DropReason::EgressRefused);
            world.inject(0, &with_options(&plain, &route));
            assert_eq!(world.drops(DropReason::EgressRefused), before + 1);
            let answers = heard(&mut world, 0);
            assert_eq!(answers.len(), 1, "{destination} {route:?}");
            assert_eq!(icmp_kind(&answers[0]), (3, 13), "{destination} {route:?}");
        }
    }
    assert!(world.outside.datagrams.is_empty());
    assert!(heard(&mut world, 1).is_empty());
    // Options that ask for no way are no obstacle, and those that make no sense are one.
    let plain = udp(from, SocketAddrV4::new(SERVER, 80), b"x");
    world.inject(0, &with_options(&plain, &[148, 4, 0, 0]));
    assert_eq!(world.outside.datagrams.len(), 1);
    world.inject(0, &with_options(&plain, &[148, 9, 0, 0]));
    assert_eq!(world.outside.datagrams.len(), 1);
    assert_eq!(world.drops(DropReason::MalformedPacket), 1);
}

#[test]
fn peers_reach_each_other_only_when_that_is_allowed() {
    let packet = udp(
        SocketAddrV4::new(client(0), 5),
        SocketAddrV4::new(client(1), 6),
        b"hi",
    );
    let mut world = World::new(2);
    world.inject(0, &packet);
    assert!(heard(&mut world, 1).is_empty());
    assert_eq!(icmp_kind(&heard_or(&mut world, 0)), (3, 13));
    assert_eq!(world.drops(DropReason::PeerToPeerRefused), 1);

    let mut world = World::with(2, |settings| settings.peer_to_peer = true);
    world.inject(0, &packet);
    let arrived = heard(&mut world, 1);
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0][8], 63, "one hop less");
    assert!(
        Ipv4Packet::new_checked(&arrived[0])
            .unwrap()
            .verify_checksum()
    );
}

fn heard_or(world: &mut World, number: usize) -> Vec<u8> {
    let mut packets = heard(world, number);
    assert!(!packets.is_empty(), "client {number} heard nothing");
    packets.remove(0)
}

#[test]
fn pings_go_out_by_identifier_and_come_back() {
    let mut world = World::new(1);
    world.inject(0, &ping(client(0), SERVER, 11, b"abc"));
    world.inject(0, &ping(client(0), SERVER, 12, b"def"));
    let (first, second) = (
        world.outside.pings[0].clone(),
        world.outside.pings[1].clone(),
    );
    assert_eq!(
        (first.1, first.2, first.3.as_slice()),
        (SERVER, 3, b"abc".as_slice())
    );
    assert_ne!(first.0, second.0);
    world
        .gateway
        .handle_echo(world.now, first.0, SERVER, 3, b"abc");
    world.drain();
    let answer = heard_or(&mut world, 0);
    assert_eq!(icmp_kind(&answer), (0, 0));
    assert_eq!(
        &answer[24..26],
        &11_u16.to_be_bytes(),
        "the client's own identifier"
    );
    world.run_for(Duration::from_secs(61));
    assert_eq!(world.gateway.flow_counts().icmp, 0);
}

#[test]
fn without_ping_sockets_a_ping_is_answered_as_unreachable() {
    let mut world = World::with(1, |settings| {
        settings.way_out = popup_gateway_core::WayOut::Sockets { echo: false }
    });
    world.inject(0, &ping(client(0), SERVER, 11, b"abc"));
    assert_eq!(icmp_kind(&heard_or(&mut world, 0)), (3, 2));
    assert_eq!(world.drops(DropReason::EchoUnavailable), 1);
    world.inject(0, &ping(client(0), GATEWAY, 11, b"abc"));
    assert_eq!(
        icmp_kind(&heard_or(&mut world, 0)),
        (0, 0),
        "the gateway itself needs no ping socket"
    );
}

#[test]
fn the_gateways_address_answers_ping_and_refuses_the_rest() {
    let mut world = World::new(1);
    let long = vec![7; 3000];
    for piece in cut(&ping(client(0), GATEWAY, 5, &long), 1400) {
        world.inject(0, &piece);
    }
    let reply = heard(&mut world, 0);
    assert_eq!(
        reply.iter().map(|packet| packet.len() - 20).sum::<usize>(),
        3008
    );
    world.inject(
        0,
        &udp(
            SocketAddrV4::new(client(0), 5),
            SocketAddrV4::new(GATEWAY, 53),
            b"x",
        ),
    );
    assert_eq!(icmp_kind(&heard_or(&mut world, 0)), (3, 3));
    assert_eq!(world.drops(DropReason::NoService), 1);
}

#[test]
fn a_packet_whose_life_ends_here_is_answered_as_time_exceeded() {
    let mut world = World::new(1);
    let mut packet = udp(
        SocketAddrV4::new(client(0), 5),
        SocketAddrV4::new(SERVER, 33434),
        b"x",
    );
    let mut header = Ipv4Packet::new_unchecked(&mut packet);
    header.set_hop_limit(1);
    header.fill_checksum();
    world.inject(0, &packet);
    assert_eq!(icmp_kind(&heard_or(&mut world, 0)), (11, 0));
    assert!(world.outside.datagrams.is_empty());
}

#[test]
fn ipv6_is_answered_with_no_route_at_once() {
    let mut world = World::new(1);
    let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
    packet.extend(peer_spec(0).ipv6.octets());
    packet.extend(
        "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    packet.extend([0; 12]);
    world.inject(0, &packet);
    let answer = heard_or(&mut world, 0);
    assert_eq!(
        (answer[0] >> 4, answer[6], answer[40], answer[41]),
        (6, 58, 1, 0)
    );
    packet[23] ^= 1;
    world.inject(0, &packet);
    assert_eq!(world.drops(DropReason::SpoofedSource), 1);
}

#[test]
fn answers_follow_a_peer_that_moves() {
    let mut world = World::new(1);
    let moved = Endpoint {
        address: "192.0.2.55:4444".parse().unwrap(),
        local: None,
        socket: 2,
    };
    let packet = ping(client(0), GATEWAY, 1, b"");
    world
        .gateway
        .handle_datagram(world.now, moved, &message(0, &packet));
    let transmit = world.gateway.poll_transmit().expect("an answer");
    assert_eq!(transmit.destination, moved);
    assert_eq!(world.gateway.peers()[0].endpoint, Some(moved.address));
    // A datagram that is not authentic moves nothing.
    let forger = Endpoint {
        address: "192.0.2.66:5".parse().unwrap(),
        local: None,
        socket: 0,
    };
    world
        .gateway
        .handle_datagram(world.now, forger, &message(99, &packet));
    assert_eq!(world.gateway.peers()[0].endpoint, Some(moved.address));
}

#[test]
fn removing_a_peer_ends_its_flows_and_leaves_the_others() {
    let mut world = World::new(2);
    for number in 0..2 {
        world.inject(
            number,
            &udp(
                SocketAddrV4::new(client(number), 5),
                SocketAddrV4::new(SERVER, 9),
                b"x",
            ),
        );
        world.inject(number, &ping(client(number), SERVER, 1, b"x"));
    }
    let kept = world.outside.datagrams[1].0;
    world.gateway.set_peers(world.now, vec![peer_spec(1)]);
    world.drain();
    assert_eq!(
        world.outside.mappings_closed,
        [world.outside.datagrams[0].0]
    );
    assert_eq!(world.gateway.flow_counts().udp, 1);
    world.inject(
        0,
        &udp(
            SocketAddrV4::new(client(0), 5),
            SocketAddrV4::new(SERVER, 9),
            b"x",
        ),
    );
    assert_eq!(world.drops(DropReason::UnknownSession), 1);
    world
        .gateway
        .handle_udp(world.now, kept, SocketAddrV4::new(SERVER, 9), b"still");
    world.drain();
    assert_eq!(heard(&mut world, 1).len(), 1);
}

#[test]
fn only_inner_payload_counts_as_activity() {
    let mut world = World::new(1);
    world
        .gateway
        .handle_datagram(world.now, support_endpoint(), &message(0, &[]));
    assert_eq!(
        world.gateway.peers()[0].active_at,
        None,
        "a keepalive is no activity"
    );
    assert!(world.gateway.peers()[0].latest_handshake.is_some());
    let many = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
    world.inject(
        0,
        &udp(SocketAddrV4::new(client(0), 5353), many, b"who is there?"),
    );
    assert_eq!(
        world.gateway.peers()[0].active_at,
        None,
        "nor is what goes nowhere"
    );
    world.inject(0, &ping(client(0), GATEWAY, 1, b""));
    assert_eq!(world.gateway.peers()[0].active_at, Some(world.now));
}

fn support_endpoint() -> Endpoint {
    Endpoint {
        address: "198.51.100.2:1000".parse().unwrap(),
        local: None,
        socket: 0,
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_inner_packets_never_panic_and_never_reach_closed_ranges(
        mut packet in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
        fix in proptest::prelude::any::<bool>(), words in 5u8..=15,
    ) {
        let mut world = World::new(1);
        if fix && packet.len() >= 28 {
            let total = packet.len() as u16;
            packet[0] = 0x40 | words.min(packet.len() as u8 / 4);
            packet[12..16].copy_from_slice(&client(0).octets());
            packet[16..20].copy_from_slice(&SERVER.octets());
            let mut header = Ipv4Packet::new_unchecked(&mut packet);
            header.set_total_len(total);
            header.set_hop_limit(64);
            header.fill_checksum();
        }
        world.inject(0, &packet);
        for (_, destination, _) in &world.outside.datagrams {
            proptest::prop_assert_eq!(*destination.ip(), SERVER);
        }
    }
}
