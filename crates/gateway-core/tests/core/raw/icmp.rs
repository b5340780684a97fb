//! Pings, errors both ways, and the errors the gateway makes itself.

use std::net::Ipv4Addr;

use popup_gateway_core::{DropReason, Received};
use smoltcp::wire::{Icmpv4Packet, IpProtocol, Ipv4Packet};

use super::{OUTSIDE, REMOTE, ends, heard, inside, raw_world};
use crate::support::World;
use crate::support::packets::{ipv4, udp};

const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn message(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(data);
    Icmpv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    bytes
}

fn icmp(source: Ipv4Addr, destination: Ipv4Addr, bytes: &[u8]) -> Vec<u8> {
    ipv4(source, destination, IpProtocol::Icmp, bytes)
}

/// The ICMP message in a packet whose checksums must be right.
fn read(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    assert!(ip.verify_checksum());
    let message = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert!(message.verify_checksum());
    (ip.src_addr(), ip.dst_addr(), ip.payload().to_vec())
}

fn only_frame(world: &mut World) -> Vec<u8> {
    assert_eq!(world.frames.len(), 1);
    world.frames.remove(0).packet
}

#[test]
fn pings_cross_with_an_identifier_of_their_own() {
    let mut world = raw_world(2);
    let mut idents = Vec::new();
    for client in 0..2 {
        let request = message(8, 0, [0, 9, 0, client as u8], b"abc");
        let from = *inside(client, 0).ip();
        world.inject(client, &icmp(from, *REMOTE.ip(), &request));
        let (source, destination, sent) = read(&only_frame(&mut world));
        assert_eq!((source, destination), (OUTSIDE, *REMOTE.ip()));
        assert_eq!(
            (sent[0], &sent[6..]),
            (8, &[0, client as u8, b'a', b'b', b'c'][..])
        );
        idents.push([sent[4], sent[5]]);
    }
    assert_ne!(idents[0], idents[1]);
    for (client, ident) in idents.iter().enumerate() {
        let reply = message(0, 0, [ident[0], ident[1], 0, client as u8], b"abc");
        world.network(&icmp(*REMOTE.ip(), OUTSIDE, &reply), Received::default());
        let (source, destination, back) = read(&heard(&mut world, client)[0]);
        assert_eq!(
            (source, destination),
            (*REMOTE.ip(), *inside(client, 0).ip())
        );
        assert_eq!(back[4..6], [0, 9], "the client's own identifier");
    }
}

#[test]
fn an_error_from_a_router_reaches_who_sent_the_packet() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"a probe"));
    let probe = only_frame(&mut world);
    for (kind, code, quoted) in [(11, 0, 28), (3, 3, probe.len())] {
        let error = message(kind, code, [0; 4], &probe[..quoted]);
        world.network(&icmp(ROUTER, OUTSIDE, &error), Received::default());
        let (source, destination, error) = read(&heard(&mut world, 0)[0]);
        assert_eq!((source, destination), (ROUTER, *inside(0, 0).ip()));
        assert_eq!((error[0], error[1]), (kind, code));
        let mut quote = error[8..].to_vec();
        if quote.len() > 28 {
            assert_eq!(ends(&quote), (inside(0, 5000), REMOTE));
        }
        quote.truncate(28);
        assert_eq!(quote[12..16], inside(0, 0).ip().octets());
        assert_eq!(quote[20..22], 5000u16.to_be_bytes());
    }
}

#[test]
fn an_error_about_a_ping_is_found_by_its_identifier() {
    let mut world = raw_world(1);
    let request = message(8, 0, [0, 9, 0, 1], b"abc");
    world.inject(0, &icmp(*inside(0, 0).ip(), *REMOTE.ip(), &request));
    let probe = only_frame(&mut world);
    let error = message(11, 0, [0; 4], &probe);
    world.network(&icmp(ROUTER, OUTSIDE, &error), Received::default());
    let (_, _, error) = read(&heard(&mut world, 0)[0]);
    assert_eq!(error[8 + 24..8 + 26], [0, 9]);
    let quoted = Icmpv4Packet::new_checked(&error[28..]).unwrap();
    assert!(quoted.verify_checksum());
}

#[test]
fn an_error_of_a_peer_leaves_as_if_it_were_the_gateways() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"hello"));
    let (outside, _) = ends(&only_frame(&mut world));
    world.network(&udp(REMOTE, outside, b"answer"), Received::default());
    let answer = heard(&mut world, 0).remove(0);
    let error = message(3, 3, [0; 4], &answer);
    world.inject(0, &icmp(*inside(0, 0).ip(), *REMOTE.ip(), &error));
    let (source, destination, error) = read(&only_frame(&mut world));
    assert_eq!((source, destination), (OUTSIDE, *REMOTE.ip()));
    assert_eq!(ends(&error[8..]), (REMOTE, outside));
    // To somebody else than the packet came from, or about another peer's flow: not believed.
    let error = message(3, 3, [0; 4], &answer);
    world.inject(0, &icmp(*inside(0, 0).ip(), ROUTER, &error));
    assert!(world.frames.is_empty());
}

#[test]
fn an_error_about_what_nobody_sent_goes_to_nobody() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"hello"));
    let mut probe = only_frame(&mut world);
    probe[21] ^= 1; // Another port.
    let error = message(3, 3, [0; 4], &probe);
    world.network(&icmp(ROUTER, OUTSIDE, &error), Received::default());
    assert!(heard(&mut world, 0).is_empty());
    assert_eq!(world.drops(DropReason::Unsolicited), 1);
}

#[test]
fn a_packet_too_long_for_the_tunnel_is_reported_to_who_sent_it() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"hello"));
    let (outside, _) = ends(&only_frame(&mut world));
    let mut long = udp(REMOTE, outside, &[7; 1450]);
    let mut header = Ipv4Packet::new_unchecked(&mut long[..]);
    header.set_dont_frag(true);
    header.fill_checksum();
    world.network(&long, Received::default());
    let (source, destination, error) = read(&only_frame(&mut world));
    assert_eq!((source, destination), (OUTSIDE, *REMOTE.ip()));
    assert_eq!(
        (error[0], error[1], &error[6..8]),
        (3, 4, &1420u16.to_be_bytes()[..])
    );
    assert_eq!(error[8..28], long[..20], "what it sent, as it sent it");
    assert!(heard(&mut world, 0).is_empty());
    // One that may be cut is cut.
    let mut header = Ipv4Packet::new_unchecked(&mut long[..]);
    header.set_dont_frag(false);
    header.fill_checksum();
    world.network(&long, Received::default());
    assert_eq!(heard(&mut world, 0).len(), 2);
}

#[test]
fn a_packet_too_long_for_the_network_is_reported_to_its_peer() {
    let mut narrow = super::settings();
    narrow.mtu = 1300;
    let mut world = World::with(1, |settings| {
        settings.way_out = popup_gateway_core::WayOut::Raw(narrow)
    });
    let mut long = udp(inside(0, 5000), REMOTE, &[7; 1350]);
    let mut header = Ipv4Packet::new_unchecked(&mut long[..]);
    header.set_dont_frag(true);
    header.fill_checksum();
    world.inject(0, &long);
    let (_, _, error) = read(&heard(&mut world, 0)[0]);
    assert_eq!(
        (error[0], error[1], &error[6..8]),
        (3, 4, &1300u16.to_be_bytes()[..])
    );
    assert!(world.frames.is_empty());
    assert_eq!(world.drops(DropReason::PacketTooBig), 1);
}

#[test]
fn a_hop_limit_that_ends_here_is_answered_here() {
    let mut world = raw_world(1);
    let mut probe = udp(inside(0, 5000), REMOTE, b"probe");
    let mut header = Ipv4Packet::new_unchecked(&mut probe[..]);
    header.set_hop_limit(1);
    header.fill_checksum();
    world.inject(0, &probe);
    let (source, _, error) = read(&heard(&mut world, 0)[0]);
    assert_eq!((source, error[0]), (Ipv4Addr::new(10, 8, 0, 1), 11));
    let mut header = Ipv4Packet::new_unchecked(&mut probe[..]);
    header.set_hop_limit(2);
    header.fill_checksum();
    world.inject(0, &probe);
    assert_eq!(only_frame(&mut world)[8], 1);
}

#[test]
fn the_systems_own_pings_are_left_to_it() {
    let mut world = raw_world(1);
    let request = message(8, 0, [0, 9, 0, 1], b"who is there");
    world.network(&icmp(ROUTER, OUTSIDE, &request), Received::default());
    assert!(world.frames.is_empty() && heard(&mut world, 0).is_empty());
}

#[test]
fn an_error_about_a_packet_that_the_gateway_has_not_sent_reaches_nobody() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"a probe"));
    let (outside, _) = ends(&only_frame(&mut world));
    // The same ports, and another host's address.
    let elsewhere = std::net::SocketAddrV4::new("192.0.2.99".parse().unwrap(), outside.port());
    let error = message(3, 3, [0; 4], &udp(elsewhere, REMOTE, b"a probe"));
    world.network(&icmp(ROUTER, OUTSIDE, &error), Received::default());
    assert!(heard(&mut world, 0).is_empty());
    assert_eq!(world.drops(DropReason::Unsolicited), 1);
}

#[test]
fn a_peer_cannot_speak_of_what_another_has_received() {
    let mut world = raw_world(2);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"hello"));
    let (outside, _) = ends(&only_frame(&mut world));
    world.network(&udp(REMOTE, outside, b"answer"), Received::default());
    let answer = heard(&mut world, 0).remove(0);
    let error = message(3, 3, [0; 4], &answer);
    let from_other = icmp(*inside(1, 0).ip(), *REMOTE.ip(), &error);
    world.inject(1, &from_other);
    assert!(world.frames.is_empty());
    assert_eq!(world.drops(DropReason::UnknownFlow), 1);
}

#[test]
fn what_has_no_hop_left_ends_here() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"hello"));
    let probe = only_frame(&mut world);
    let (outside, _) = ends(&probe);
    let answer = udp(REMOTE, outside, b"answer");
    let error = icmp(ROUTER, OUTSIDE, &message(11, 0, [0; 4], &probe));
    for packet in [answer, error] {
        for hops in [0, 1, 2] {
            let mut packet = packet.clone();
            let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
            header.set_hop_limit(hops);
            header.fill_checksum();
            world.network(&packet, Received::default());
            let heard = heard(&mut world, 0);
            assert_eq!(heard.len(), usize::from(hops == 2), "{hops} left");
            assert!(heard.iter().all(|packet| packet[8] == 1));
        }
    }
    assert_eq!(world.drops(DropReason::TtlExceeded), 4);
}

#[test]
fn an_error_about_a_later_fragment_tells_of_no_port() {
    let mut world = raw_world(1);
    world.inject(0, &udp(inside(0, 5000), REMOTE, b"hello"));
    let mut probe = only_frame(&mut world);
    // What would be ports are any eight bytes of the datagram.
    let mut header = Ipv4Packet::new_unchecked(&mut probe[..]);
    header.set_frag_offset(1480);
    header.fill_checksum();
    let error = message(11, 1, [0; 4], &probe);
    world.network(&icmp(ROUTER, OUTSIDE, &error), Received::default());
    assert!(heard(&mut world, 0).is_empty());
}
