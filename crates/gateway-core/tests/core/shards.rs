//! Gateways beside each other: what arrives at the wrong one reaches the right one.

use std::time::Instant;

use popup_gateway_core::session::OVERHEAD;
use popup_gateway_core::{
    DropReason, EgressPolicy, Gateway, Handover, Limits, Settings, Shard, WayOut,
};

use crate::support::packets::udp;
use crate::support::{Plain, endpoint, initiation, message, peer_spec};

/// Two gateways with four peers: of tunnel addresses .2 to .5, the even ones belong to the first.
struct Pair {
    gateways: Vec<Gateway<Plain>>,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let networks = popup_model::TunnelNetworks::new(
            "10.8.0.0/24".parse().unwrap(),
            "fd00:1:2:3::/64".parse().unwrap(),
        );
        let networks = networks.unwrap();
        let gateways = Shard::all(2).map(|shard| {
            let mut gateway = Gateway::new(
                Plain,
                Settings {
                    networks,
                    policy: EgressPolicy::default(),
                    limits: Limits::for_descriptors(1024, 2).shared_by(2),
                    peer_to_peer: true,
                    way_out: WayOut::Sockets { echo: false },
                    shard,
                    seed: [7; 32],
                },
            );
            gateway.set_peers(now, (0..4).map(peer_spec).collect());
            gateway
        });
        Self {
            gateways: gateways.collect(),
            now,
        }
    }

    fn receive(&mut self, gateway: usize, client: usize, datagram: &[u8]) {
        self.gateways[gateway].handle_datagram(self.now, endpoint(client), datagram);
    }

    /// Carries over what waits; how much that was.
    fn hand_over(&mut self) -> usize {
        let mut count = 0;
        for from in 0..2 {
            while let Some((to, what)) = self.gateways[from].poll_handover() {
                assert_ne!(to, from);
                self.gateways[to].handle_handover(self.now, what);
                count += 1;
            }
        }
        count
    }

    /// The datagrams that a gateway sends.
    fn sent(&mut self, gateway: usize) -> Vec<(u16, Vec<u8>)> {
        self.gateways[gateway].flush(self.now);
        let mut sent = Vec::new();
        while let Some(transmit) = self.gateways[gateway].poll_transmit() {
            let port = transmit.destination.address.port();
            let pieces = transmit.contents.chunks(transmit.segment_size);
            sent.extend(pieces.map(|piece| (port, piece.to_vec())));
        }
        sent
    }
}

/// The session index of a client's peer: half of the peers are on each side.
fn session(client: usize) -> u32 {
    ((client % 2) << 20 | (client / 2)) as u32
}

#[test]
fn each_gateway_serves_its_share() {
    let pair = Pair::new();
    for (index, gateway) in pair.gateways.iter().enumerate() {
        let peers = gateway.peers();
        assert_eq!(peers.len(), 2);
        assert!(
            peers
                .iter()
                .all(|peer| usize::from(peer.ipv4.octets()[3]) % 2 == index)
        );
    }
}

#[test]
fn a_handshake_and_data_at_the_wrong_gateway_are_handed_over() {
    let mut pair = Pair::new();
    for client in 0..4 {
        let wrong = 1 - client % 2;
        pair.receive(wrong, client, &initiation(&peer_spec(client).public_key));
        assert_eq!(pair.hand_over(), 1);
        assert_eq!(pair.sent(client % 2).len(), 1, "the answer");
        let packet = udp(
            std::net::SocketAddrV4::new(peer_spec(client).ipv4, 9),
            "10.8.0.1:9".parse().unwrap(),
            b"for the gateway",
        );
        pair.receive(wrong, client, &message(session(client), &packet));
        assert_eq!(pair.hand_over(), 1);
        let refused = pair.gateways[client % 2].drops().of(DropReason::NoService);
        assert_eq!(refused as usize, client / 2 + 1);
        assert_eq!(pair.sent(client % 2).len(), 1, "the refusal");
    }
}

#[test]
fn what_is_for_nobody_is_not_handed_over() {
    let mut pair = Pair::new();
    pair.receive(
        0,
        0,
        &initiation(&popup_model::PublicKey::from_bytes([77; 32])),
    );
    pair.receive(0, 0, &message(2 << 20, b"a third gateway"));
    assert_eq!(pair.hand_over(), 0);
    assert_eq!(pair.gateways[0].drops().of(DropReason::UnknownPeer), 1);
    assert_eq!(pair.gateways[0].drops().of(DropReason::UnknownSession), 1);
}

#[test]
fn peers_of_different_gateways_reach_each_other() {
    let mut pair = Pair::new();
    for client in [0, 1] {
        pair.receive(client, client, &initiation(&peer_spec(client).public_key));
        pair.sent(client);
    }
    let from = std::net::SocketAddrV4::new(peer_spec(0).ipv4, 5000);
    let to = std::net::SocketAddrV4::new(peer_spec(1).ipv4, 6000);
    pair.receive(0, 0, &message(session(0), &udp(from, to, b"hello")));
    assert_eq!(pair.hand_over(), 1);
    let sent = pair.sent(1);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, endpoint(1).address.port());
    assert!(sent[0].1[OVERHEAD..].ends_with(b"hello"));
}

#[test]
fn what_waits_to_be_handed_over_is_bounded() {
    let mut pair = Pair::new();
    for _ in 0..5000 {
        pair.receive(0, 1, &message(session(1), &[7; 100]));
    }
    assert!(pair.gateways[0].drops().of(DropReason::TransmitOverflow) > 3000);
    assert!(pair.hand_over() <= 1024);
    let nothing: Option<(usize, Handover)> = pair.gateways[0].poll_handover();
    assert_eq!(nothing, None);
}
