//! The WireGuard library behind its seam: two interfaces that speak to each other.

use std::net::IpAddr;
use std::time::Instant;

use popup_gateway_core::session::{Interface as _, Opened, Sealed, Sender, Session as _};
use popup_gateway_core::{BoringInterface, BoringSession, DropReason};
use popup_model::{PresharedKey, PrivateKey};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));

struct Pair {
    server: BoringInterface,
    server_session: BoringSession,
    client: BoringInterface,
    client_session: BoringSession,
}

fn pair(server_psk: Option<PresharedKey>, client_psk: Option<PresharedKey>) -> Pair {
    let server = BoringInterface::new(&PrivateKey::generate());
    let client = BoringInterface::new(&PrivateKey::generate());
    Pair {
        server_session: server.session(client.public_key(), server_psk.as_ref(), 5),
        client_session: client.session(server.public_key(), client_psk.as_ref(), 9),
        server,
        client,
    }
}

fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn initiation(session: &mut BoringSession) -> Vec<u8> {
    let mut out = [0; 2048];
    match session.seal(Instant::now(), &packet(40), &mut out) {
        Sealed::Handshake(len) => out[..len].to_vec(),
        other => panic!("expected a handshake, got {other:?}"),
    }
}

fn reply(session: &mut BoringSession, datagram: &[u8]) -> Vec<u8> {
    let mut out = [0; 2048];
    match session.open(Instant::now(), CLIENT, datagram, &mut out) {
        Opened::Reply(reply) => reply.to_vec(),
        other => panic!("expected a reply, got {other:?}"),
    }
}

fn establish(pair: &mut Pair) {
    let initiation = initiation(&mut pair.client_session);
    let response = reply(&mut pair.server_session, &initiation);
    let keepalive = reply(&mut pair.client_session, &response);
    let mut out = [0; 2048];
    assert_eq!(
        pair.server_session
            .open(Instant::now(), CLIENT, &keepalive, &mut out),
        Opened::Keepalive
    );
}

#[test]
fn a_handshake_is_recognised_by_key_and_data_by_index() {
    let mut pair = pair(None, None);
    let first = initiation(&mut pair.client_session);
    let mut cookie = [0; 148];
    assert_eq!(
        pair.server.identify(CLIENT, &first, &mut cookie),
        Ok(Sender::Initiator(pair.client.public_key()))
    );
    let response = reply(&mut pair.server_session, &first);
    assert_eq!(
        pair.client.identify(CLIENT, &response, &mut cookie),
        Ok(Sender::Index(9))
    );
    let keepalive = reply(&mut pair.client_session, &response);
    assert_eq!(
        pair.server.identify(CLIENT, &keepalive, &mut cookie),
        Ok(Sender::Index(5))
    );
    let mut out = [0; 2048];
    let waited = pair
        .client_session
        .seal_waiting(&mut out)
        .expect("the packet that began the handshake");
    let waited = out[..waited].to_vec();
    let mut opened = [0; 2048];
    assert_eq!(
        pair.server_session
            .open(Instant::now(), CLIENT, &waited, &mut opened),
        Opened::Packet(&mut packet(40))
    );
    assert!(pair.server_session.handshake_age().is_some());
}

#[test]
fn a_replayed_handshake_and_replayed_data_are_dropped() {
    let mut pair = pair(None, None);
    let first = initiation(&mut pair.client_session);
    let response = reply(&mut pair.server_session, &first);
    reply(&mut pair.client_session, &response);
    let mut out = [0; 2048];
    let replayed = pair
        .server_session
        .open(Instant::now(), CLIENT, &first, &mut out);
    assert_eq!(replayed, Opened::Dropped(DropReason::HandshakeRejected));

    let mut sealed = [0; 2048];
    let Sealed::Data(len) = pair
        .client_session
        .seal(Instant::now(), &packet(100), &mut sealed)
    else {
        panic!("a session")
    };
    assert!(matches!(
        pair.server_session
            .open(Instant::now(), CLIENT, &sealed[..len], &mut out),
        Opened::Packet(_)
    ));
    let again = pair
        .server_session
        .open(Instant::now(), CLIENT, &sealed[..len], &mut out);
    assert_eq!(again, Opened::Dropped(DropReason::ReplayedPacket));
}

#[test]
fn a_handshake_for_another_key_or_with_another_preshared_key_fails() {
    let mut right = pair(None, None);
    let other = BoringInterface::new(&PrivateKey::generate());
    let mut cookie = [0; 148];
    let first = initiation(&mut right.client_session);
    assert_eq!(
        other.identify(CLIENT, &first, &mut cookie),
        Err(DropReason::InvalidMac)
    );

    let mut wrong = pair(
        Some(PresharedKey::generate()),
        Some(PresharedKey::generate()),
    );
    let first = initiation(&mut wrong.client_session);
    let response = reply(&mut wrong.server_session, &first);
    let mut out = [0; 2048];
    assert!(matches!(
        wrong
            .client_session
            .open(Instant::now(), CLIENT, &response, &mut out),
        Opened::Dropped(_)
    ));
}

#[test]
fn under_load_a_handshake_is_answered_with_a_cookie_and_the_next_one_passes() {
    let mut pair = pair(None, None);
    let mut cookie = [0; 148];
    let flood = initiation(&mut pair.client_session);
    let mut unproven = 0;
    for _ in 0..1000 {
        unproven += u32::from(matches!(
            pair.server.identify(CLIENT, &flood, &mut cookie),
            Ok(Sender::Unproven(_))
        ));
    }
    assert!(
        unproven > 500,
        "{unproven} of 1000 handshakes in one instant were asked for a cookie"
    );
    let Ok(Sender::Unproven(reply)) = pair.server.identify(CLIENT, &flood, &mut cookie) else {
        panic!("a cookie")
    };
    let reply = reply.to_vec();
    let mut out = [0; 2048];
    // The client takes the cookie without a word, and repeats it in its next handshake.
    assert!(!matches!(
        pair.client_session
            .open(Instant::now(), CLIENT, &reply, &mut out),
        Opened::Dropped(_)
    ));
}

#[test]
fn damaged_and_truncated_datagrams_are_dropped() {
    let mut pair = pair(None, None);
    establish(&mut pair);
    let mut sealed = [0; 2048];
    let Sealed::Data(len) = pair
        .client_session
        .seal(Instant::now(), &packet(100), &mut sealed)
    else {
        panic!("a session")
    };
    let mut out = [0; 2048];
    for position in 0..len {
        let mut damaged = sealed[..len].to_vec();
        damaged[position] ^= 0x40;
        let opened = pair
            .server_session
            .open(Instant::now(), CLIENT, &damaged, &mut out);
        assert!(
            matches!(opened, Opened::Dropped(_)),
            "byte {position}: {opened:?}"
        );
    }
    for cut in 0..len {
        assert!(
            matches!(
                pair.server_session
                    .open(Instant::now(), CLIENT, &sealed[..cut], &mut out),
                Opened::Dropped(_)
            ),
            "cut {cut}"
        );
    }
    assert!(matches!(
        pair.server_session
            .open(Instant::now(), CLIENT, &sealed[..len], &mut out),
        Opened::Packet(_)
    ));
}

proptest::proptest! {
    #[test]
    fn arbitrary_datagrams_never_panic(
        datagram in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        kind in 0u8..6,
        exact in proptest::sample::select(vec![0usize, 32, 64, 92, 148]),
    ) {
        let mut pair = pair(None, None);
        let mut datagram = datagram;
        if exact > 0 {
            datagram.resize(exact, 7);
        }
        if datagram.len() >= 4 {
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        let (mut cookie, mut out) = ([0; 148], [0; 2048]);
        let _ = pair.server.identify(CLIENT, &datagram, &mut cookie);
        let opened = pair.server_session.open(Instant::now(), CLIENT, &datagram, &mut out);
        proptest::prop_assert!(matches!(opened, Opened::Dropped(_)), "{:?}", opened);
    }
}
