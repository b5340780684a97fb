//! UDP, fragments, policy and peers.

use std::net::SocketAddrV4;
use std::time::Duration;

use popup_gateway_core::{DropReason, Received, Transport};
use smoltcp::wire::Ipv4Packet;

use super::{OUTSIDE, REMOTE, ends, heard, inside, raw_world};
use crate::support::packets::{SOURCE_ROUTES, udp, with_options};
use crate::support::{World, peer_spec};

fn send(world: &mut World, port: u16, to: SocketAddrV4, data: &[u8]) -> SocketAddrV4 {
    world.inject(0, &udp(inside(0, port), to, data));
    let packet = world.frames.pop().expect("it leaves").packet;
    let (outside, destination) = ends(&packet);
    assert_eq!((*outside.ip(), destination), (OUTSIDE, to));
    assert_eq!(packet[28..], *data);
    outside
}

#[test]
fn an_inside_port_has_one_port_outside_wherever_it_speaks_to() {
    let mut world = raw_world(1);
    let first = send(&mut world, 5000, REMOTE, b"one");
    let again = send(&mut world, 5000, "198.51.100.7:9".parse().unwrap(), b"two");
    let other = send(&mut world, 5001, REMOTE, b"three");
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(
        world
            .outside
            .ports
            .contains(&(Transport::Udp, first.port()))
    );
}

#[test]
fn anybody_may_answer_a_port_and_nobody_keeps_it_open_from_outside() {
    let mut world = raw_world(1);
    let outside = send(&mut world, 5000, REMOTE, b"hello");
    let stranger = "198.51.100.99:1234".parse().unwrap();
    world.network(&udp(stranger, outside, b"a call"), Received::default());
    let heard = heard(&mut world, 0);
    assert_eq!(ends(&heard[0]), (stranger, inside(0, 5000)));
    assert_eq!(&heard[0][28..], b"a call");
    for _ in 0..10 {
        world.run_for(Duration::from_secs(31));
        world.network(&udp(stranger, outside, b"more"), Received::default());
    }
    assert_eq!(world.gateway.flow_counts().udp, 0);
    assert!(world.outside.ports.is_empty(), "the port was given back");
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut world = raw_world(1);
    let mut packet = udp(inside(0, 5000), REMOTE, b"quick");
    packet[26..28].fill(0);
    world.inject(0, &packet);
    assert_eq!(world.frames.pop().unwrap().packet[26..28], [0, 0]);
}

#[test]
fn joined_datagrams_are_cut_and_unfinished_checksums_finished() {
    let mut world = raw_world(1);
    let outside = send(&mut world, 5000, REMOTE, b"hello");
    let data: Vec<u8> = (0..3500).map(|n| (n / 3) as u8).collect();
    let mut joined = udp(REMOTE, outside, &data);
    super::network::leave_unfinished(&mut joined);
    let received = Received {
        partial_checksum: true,
        segment_size: Some(1200),
    };
    world.network(&joined, received);
    let pieces = heard(&mut world, 0);
    assert_eq!(pieces.len(), 3);
    for piece in &pieces {
        assert_eq!(ends(piece), (REMOTE, inside(0, 5000)));
    }
    let whole: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece[28..].to_vec())
        .collect();
    assert_eq!(whole, data);
}

#[test]
fn fragments_cross_both_ways() {
    let mut world = raw_world(1);
    let data: Vec<u8> = (0..4000).map(|n| (n / 5) as u8).collect();
    for fragment in in_fragments(&udp(inside(0, 5000), REMOTE, &data), 1400) {
        world.inject(0, &fragment);
    }
    let sent: Vec<Vec<u8>> = world.frames.drain(..).map(|frame| frame.packet).collect();
    assert_eq!(sent.len(), 3);
    let joined = join(&sent);
    let (outside, destination) = ends(&joined);
    assert_eq!(destination, REMOTE);
    assert_eq!(joined[28..], data[..]);
    for fragment in in_fragments(&udp(REMOTE, outside, &data), 1500) {
        world.network(&fragment, Received::default());
    }
    let back = join(&heard(&mut world, 0));
    assert_eq!(ends(&back), (REMOTE, inside(0, 5000)));
    assert_eq!(back[28..], data[..]);
}

fn in_fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let step = (mtu - 20) & !7;
    let payload = &packet[20..];
    (0..payload.len())
        .step_by(step)
        .map(|offset| {
            let end = (offset + step).min(payload.len());
            let mut piece = [&packet[..20], &payload[offset..end]].concat();
            let total = piece.len() as u16;
            let mut header = Ipv4Packet::new_unchecked(&mut piece[..]);
            header.set_total_len(total);
            header.set_ident(77);
            header.set_dont_frag(false);
            header.set_more_frags(end < payload.len());
            header.set_frag_offset(offset as u16);
            header.fill_checksum();
            piece
        })
        .collect()
}

fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = pieces[0][..20].to_vec();
    for piece in pieces {
        let header = Ipv4Packet::new_checked(&piece[..]).unwrap();
        assert!(header.verify_checksum());
        assert_eq!(usize::from(header.frag_offset()), whole.len() - 20);
        whole.extend_from_slice(&piece[20..]);
    }
    let total = whole.len() as u16;
    let mut header = Ipv4Packet::new_unchecked(&mut whole[..]);
    header.set_total_len(total);
    header.set_more_frags(false);
    header.set_frag_offset(0);
    header.fill_checksum();
    whole
}

#[test]
fn what_no_client_may_reach_is_refused_here_too() {
    let mut world = raw_world(1);
    for closed in [
        "169.254.169.254:80",
        "192.0.2.1:443",
        "10.0.0.4:22",
        "127.0.0.1:1",
    ] {
        world.inject(0, &udp(inside(0, 5000), closed.parse().unwrap(), b"x"));
    }
    assert_eq!(world.drops(DropReason::EgressRefused), 4);
    assert!(world.frames.is_empty() && world.outside.ports.is_empty());
}

#[test]
fn a_way_of_the_peers_own_is_refused_here_too() {
    let mut world = raw_world(1);
    let plain = udp(inside(0, 5000), REMOTE, b"x");
    for (n, route) in SOURCE_ROUTES.iter().enumerate() {
        world.inject(0, &with_options(&plain, route));
        assert_eq!(world.drops(DropReason::EgressRefused), n as u64 + 1);
        let answers = heard(&mut world, 0);
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0][9], &answers[0][20..22]), (1, &[3, 13][..]));
    }
    assert!(world.frames.is_empty() && world.outside.ports.is_empty());
    let fragments = in_fragments(&udp(inside(0, 5000), REMOTE, &[7; 2000]), 1400);
    for fragment in fragments {
        world.inject(0, &with_options(&fragment, &SOURCE_ROUTES[0]));
    }
    assert!(world.frames.is_empty(), "nor in pieces");
    world.inject(0, &with_options(&plain, &[148, 4, 0, 0]));
    assert_eq!(world.frames.len(), 1, "other options pass");
    world.inject(0, &with_options(&plain, &[148, 9, 0, 0]));
    assert_eq!(world.frames.len(), 1);
    assert_eq!(world.drops(DropReason::MalformedPacket), 1);
}

#[test]
fn a_peer_that_goes_takes_its_bindings_and_leaves_the_others_alone() {
    let mut world = raw_world(2);
    send(&mut world, 5000, REMOTE, b"one");
    world.inject(1, &udp(inside(1, 5000), REMOTE, b"two"));
    world.frames.clear();
    assert_eq!(world.gateway.flow_counts().udp, 2);
    world.gateway.set_peers(world.now, vec![peer_spec(1)]);
    world.drain();
    assert_eq!(world.gateway.flow_counts().udp, 1);
    assert_eq!(world.outside.ports.len(), 1);
}

#[test]
fn one_peer_leaves_udp_ports_to_the_others() {
    let mut world = raw_world(2);
    for port in 0..400 {
        world.inject(0, &udp(inside(0, 5000 + port), REMOTE, b"x"));
    }
    assert_eq!(world.outside.ports.len(), 384, "of 512");
    assert_eq!(world.drops(DropReason::PeerFlowLimit), 16);
    assert_eq!(world.gateway.flow_counts().udp, 384);
    world.frames.clear();
    world.inject(1, &udp(inside(1, 5000), REMOTE, b"y"));
    assert_eq!(world.frames.len(), 1);
    world.run_for(Duration::from_secs(301));
    world.frames.clear();
    send(&mut world, 6000, REMOTE, b"what has ended counts no more");
}

#[test]
fn a_packet_for_another_address_is_not_ours() {
    let mut world = raw_world(1);
    let outside = send(&mut world, 5000, REMOTE, b"hello");
    let elsewhere = SocketAddrV4::new([192, 0, 2, 77].into(), outside.port());
    world.network(&udp(REMOTE, elsewhere, b"x"), Received::default());
    assert!(heard(&mut world, 0).is_empty());
}

proptest::proptest! {
    #[test]
    fn no_bytes_from_the_network_make_it_panic(
        mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        size in 0u16..2000, partial in proptest::prelude::any::<bool>(), protocol in 0u8..4,
    ) {
        let mut world = raw_world(1);
        let outside = send(&mut world, 5000, REMOTE, b"hello");
        if bytes.len() >= 28 {
            let length = bytes.len() as u16;
            let mut header = Ipv4Packet::new_unchecked(&mut bytes[..]);
            header.set_version(4);
            header.set_header_len(20);
            header.set_total_len(length);
            header.set_dst_addr(OUTSIDE);
            header.set_next_header([1, 6, 17, 47][usize::from(protocol)].into());
            header.fill_checksum();
            bytes[22..24].copy_from_slice(&outside.port().to_be_bytes());
        }
        let segment_size = (size % 3 != 0).then_some(size);
        world.network(&bytes, Received { partial_checksum: partial, segment_size });
    }
}
