//! Bad input by the million.

use std::net::Ipv4Addr;
use std::time::Duration;

use popup_model::PrivateKey;

use crate::lab::{
    Echo, Handler, Internet, Lab, RawPeer, Settings, Userspace, eventually, packet, pattern,
};

/// How much the gateway's memory may grow: the allocator's slack, not the attack's size.
const SLACK_KIB: u64 = 8 * 1024;

const ROUNDS: usize = 500;
const DATAGRAMS_A_ROUND: usize = 2000;

fn resident_kib(lab: &Lab) -> u64 {
    let gateways = lab.host.namespace.processes("popup-gateway");
    assert_eq!(gateways.len(), 1, "one gateway");
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateways[0])).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Datagrams that are wrong in every way that the protocol has.
fn bad_datagrams(valid: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let noise = pattern(1 << 20);
    let mut all = Vec::new();
    // Noise of every length, with every message type in front, right lengths included.
    for length in (0..200).chain([1000, 1452, 1472]) {
        for kind in 0..=5_u8 {
            let start = length * 37 + usize::from(kind) * 11;
            let mut datagram = noise[start..start + length].to_vec();
            if length >= 4 && kind > 0 {
                datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            all.push(datagram);
        }
    }
    for datagram in valid {
        all.push(datagram.clone()); // Replayed.
        for length in 0..datagram.len() {
            all.push(datagram[..length].to_vec());
        }
        for byte in 0..datagram.len() {
            let mut flipped = datagram.clone();
            flipped[byte] ^= 1 << (byte % 8);
            all.push(flipped);
        }
    }
    all
}

#[test]
fn a_million_bad_datagrams_neither_stop_nor_fill_the_gateway_nor_disturb_a_peer() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let working = lab.client();
    working.up(&handler.add_peer("phone").0, Userspace::WireguardGo);
    crate::carries(&working, Duration::from_secs(10));
    let attacker = lab.client();
    let conf = handler.add_peer("attacker");

    let mut peer = RawPeer::new(&attacker, &conf);
    let initiation = peer.initiation();
    peer.send_datagram(&initiation);
    assert!(peer.shakes_hands(Duration::from_secs(10)));
    let packet = packet::udp(
        (conf.address(), 5000),
        (Internet::ADDRESS.parse().unwrap(), 7),
        &pattern(64),
    );
    let data = peer.seal(&packet).expect("a session");
    peer.send_datagram(&data);
    let wrong_server = conf.with(
        "PublicKey",
        &PrivateKey::generate().public_key().to_string(),
    );
    let wrong_client = conf.with("PrivateKey", &PrivateKey::generate().to_base64());
    let mut valid = vec![initiation, data];
    for wrong in [wrong_server, wrong_client] {
        valid.push(RawPeer::new(&attacker, &wrong).initiation());
    }
    let bad = bad_datagrams(&valid);

    let mut echo = Echo::open(&working).unwrap();
    let payload = pattern(50_000);
    let mut round = |number: usize| {
        let start = number * DATAGRAMS_A_ROUND;
        for index in start..start + DATAGRAMS_A_ROUND {
            peer.send_datagram(&bad[index % bad.len()]);
        }
        echo.exchange(&payload)
            .unwrap_or_else(|error| panic!("the working peer, round {number}: {error}"));
    };
    (0..20).for_each(&mut round); // Every buffer has its size after this.
    let before = (resident_kib(&lab), handler.documents().status().unwrap());
    (20..ROUNDS).for_each(&mut round);
    let after = resident_kib(&lab);
    assert!(
        after < before.0 + SLACK_KIB,
        "{} KiB before, {after} KiB after",
        before.0
    );

    let status = eventually(crate::REPORTED, "the attack is counted", || {
        let status = handler.documents().status()?;
        let count = |reason: &str| status.drops.get(reason).copied().unwrap_or(0);
        let counted = count("malformed_datagram") > 10_000
            && count("invalid_mac") + count("under_load") > 1000;
        // Not every one: a socket's buffer overflows while its reader is not scheduled.
        let most = status.drops.values().sum::<u64>() > (ROUNDS * DATAGRAMS_A_ROUND / 2) as u64;
        (counted && most).then_some(status)
    });
    assert_eq!(status.boot_id, before.1.boot_id, "the same process");
    assert!(crate::pings(&working));
}

#[test]
fn a_replayed_handshake_or_packet_is_counted_and_has_no_effect() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &conf);
    assert!(peer.shakes_hands(Duration::from_secs(5)));
    let to: Ipv4Addr = Internet::ADDRESS.parse().unwrap();
    let data = peer
        .seal(&packet::udp((conf.address(), 5000), (to, 7), b"once"))
        .unwrap();
    for _ in 0..10 {
        peer.send_datagram(&data);
    }
    eventually(crate::REPORTED, "the replays are counted", || {
        (handler.documents().drops("replayed_packet") >= 9).then_some(())
    });
    assert_eq!(
        lab.internet
            .arrivals()
            .iter()
            .filter(|arrival| arrival.protocol == "udp")
            .count(),
        1
    );
}

#[test]
fn a_peer_cannot_speak_with_another_peers_address() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let (honest, liar) = (handler.add_peer("honest"), handler.add_peer("liar"));
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &liar);
    assert!(peer.shakes_hands(Duration::from_secs(5)));
    let to: Ipv4Addr = Internet::ADDRESS.parse().unwrap();
    let claimed = [
        honest.address(),
        Ipv4Addr::new(10, 8, 0, 1),
        Ipv4Addr::new(203, 0, 113, 10),
        Ipv4Addr::new(127, 0, 0, 1),
    ];
    for source in claimed {
        peer.send(&packet::udp((source, 5000), (to, 7), b"not me"));
        peer.send(&packet::syn((source, 5000), (to, 80)));
        peer.send(&packet::ping(source, to, 1));
    }
    eventually(crate::REPORTED, "the lies are counted", || {
        (handler.documents().drops("spoofed_source") >= 3 * claimed.len() as u64).then_some(())
    });
    assert_eq!(lab.internet.arrivals(), []);
    let own = packet::ping(liar.address(), to, 2);
    assert_eq!(
        peer.ask(&own, to, Duration::from_secs(3)),
        Some(packet::Reply::Echo),
        "its own address works"
    );
}

#[test]
fn malformed_inner_packets_are_counted_and_harmless() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &conf);
    assert!(peer.shakes_hands(Duration::from_secs(5)));
    let to: Ipv4Addr = Internet::ADDRESS.parse().unwrap();
    let (from, before) = (conf.address(), handler.documents().status().unwrap());
    let whole = [
        packet::udp((from, 5000), (to, 7), b"hello"),
        packet::syn((from, 5000), (to, 80)),
        packet::ping(from, to, 1),
    ];
    for packet in &whole {
        for length in 1..packet.len() {
            peer.send(&packet[..length]);
        }
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The destination stays inside the lab.
            flipped[16..20].copy_from_slice(&to.octets());
            peer.send(&flipped);
        }
    }
    eventually(crate::REPORTED, "they are counted", || {
        let documents = handler.documents();
        (documents.drops("malformed_packet") + documents.drops("invalid_checksum") > 100)
            .then_some(())
    });
    // Answers to what was half right may still be on their way.
    eventually(Duration::from_secs(10), "an echo", || {
        let reply = peer.ask(&packet::ping(from, to, 2), to, Duration::from_secs(3));
        (reply == Some(packet::Reply::Echo)).then_some(())
    });
    assert_eq!(
        handler.documents().status().unwrap().boot_id,
        before.boot_id
    );
}
