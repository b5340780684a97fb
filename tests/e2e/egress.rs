//! What no client may reach, tried through the tunnel class by class.
//!
//! The internet of the lab answers on every one of these addresses, and the host listens on all
//! of its own, so that only the gateway's policy can be what stops a packet.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use crate::lab::packet::{PROHIBITED, Reply, ping, syn, udp};
use crate::lab::{
    Conf, Documents, FORBIDDEN, Handler, Internet, Lab, OUTER, RawPeer, Settings, Userspace,
    eventually,
};

/// Addresses of the host itself, under every name it has.
const THE_HOST: [&str; 6] = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "0.1.2.3",
    OUTER,
    "203.0.113.1",
];

/// Many receivers at once. No error message is due for these (RFC 1122, section 3.2.2).
const MANY: [&str; 3] = ["224.0.0.1", "239.255.255.250", "255.255.255.255"];

/// A port on which the host listens under all its addresses.
const CANARY: u16 = 8088;

fn is_prohibited(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Unreachable(code)) if PROHIBITED.contains(&code))
}

#[test]
fn every_refused_class_is_refused_for_every_protocol_and_counted() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    every_class_is_refused(&lab, &handler.documents(), &conf);
}

/// Tries every class for every protocol, through a gateway that has this peer.
pub(crate) fn every_class_is_refused(lab: &Lab, documents: &Documents, conf: &Conf) {
    let canaries = lab.host.namespace.enter(|| {
        (
            TcpListener::bind(("0.0.0.0", CANARY)).unwrap(),
            UdpSocket::bind(("0.0.0.0", CANARY)).unwrap(),
        )
    });
    canaries.0.set_nonblocking(true).unwrap();
    canaries.1.set_nonblocking(true).unwrap();

    let client = lab.client();
    let mut peer = RawPeer::new(&client, conf);
    let from = peer.address();
    let patience = Duration::from_secs(2);
    let open: Ipv4Addr = Internet::ADDRESS.parse().unwrap();
    assert_eq!(
        peer.ask(&syn((from, 5000), (open, 80)), open, patience),
        Some(Reply::Accepted),
        "the lab works"
    );

    let mut source_port = 5001;
    let mut refused = 0;
    for text in FORBIDDEN.iter().chain(&THE_HOST) {
        let to: Ipv4Addr = text.parse().unwrap();
        for port in [7, 80, CANARY, Handler::PORT] {
            let reply = peer.ask(&syn((from, source_port), (to, port)), to, patience);
            assert!(is_prohibited(reply), "TCP to {to}:{port}: {reply:?}");
            let reply = peer.ask(
                &udp((from, source_port), (to, port), b"hello"),
                to,
                patience,
            );
            assert!(is_prohibited(reply), "UDP to {to}:{port}: {reply:?}");
            source_port += 1;
            refused += 2;
        }
        let reply = peer.ask(&ping(from, to, 1), to, patience);
        assert!(is_prohibited(reply), "ping to {to}: {reply:?}");
        refused += 1;
    }
    for text in MANY {
        let to: Ipv4Addr = text.parse().unwrap();
        for packet in [
            udp((from, source_port), (to, CANARY), b"hello"),
            ping(from, to, 1),
            syn((from, source_port), (to, 80)),
        ] {
            let reply = peer.ask(&packet, to, Duration::from_millis(200));
            assert!(reply.is_none() || is_prohibited(reply), "{to}: {reply:?}");
        }
    }

    assert!(canaries.0.accept().is_err(), "nothing has come to the host");
    assert!(
        canaries.1.recv_from(&mut [0; 100]).is_err(),
        "nothing has come to the host"
    );
    let arrivals = lab.internet.arrivals();
    assert!(
        arrivals.iter().all(|arrival| arrival.to.ip() == open),
        "{arrivals:?}"
    );
    eventually(crate::REPORTED, "the refusals are counted", || {
        (documents.drops("egress_refused") >= refused && documents.drops("multicast") > 0)
            .then_some(())
    });
}

#[test]
fn the_handlers_port_is_not_reached_by_way_of_address_zero() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &conf);
    let from = peer.address();
    let connections = || {
        let script = format!(
            "ss --no-header --all --tcp --numeric 'sport = :{}' | grep -vc LISTEN || true",
            Handler::PORT
        );
        lab.host.namespace.shell(&script)
    };
    let before = connections();
    for text in ["0.0.0.0", "127.0.0.1"] {
        let to: Ipv4Addr = text.parse().unwrap();
        let reply = peer.ask(
            &syn((from, 6000), (to, Handler::PORT)),
            to,
            Duration::from_secs(2),
        );
        assert!(is_prohibited(reply), "{to}: {reply:?}");
    }
    assert_eq!(connections(), before, "the handler has had no connection");
}

#[test]
fn a_real_client_learns_at_once_that_metadata_is_closed() {
    crate::with_client(|_, _, client| {
        for address in [
            "169.254.169.254",
            "168.63.129.16",
            "10.77.0.1",
            "100.64.5.5",
        ] {
            let fetch = client.curl(10, &[&format!("http://{address}/")]);
            assert!(
                !fetch.succeeded() && fetch.took < Duration::from_secs(2),
                "{address}: {fetch:?}"
            );
            let ping = client.run(10, &["ping", "-c1", "-W5", address]);
            assert!(
                !ping.succeeded() && ping.took < Duration::from_secs(3),
                "{address}: {ping:?}"
            );
        }
    });
}

#[test]
fn egress_allow_opens_a_private_range_and_never_the_platform() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start_with(&lab.host, &[("EGRESS_ALLOW", "10.77.0.0/16")]);
    let client = lab.client();
    client.up(&handler.add_peer("phone").0, Userspace::WireguardGo);
    client
        .curl(15, &["http://10.77.0.1/"])
        .expect("an allowed private address");
    for closed in ["192.168.5.5", "169.254.169.254"] {
        let fetch = client.curl(10, &[&format!("http://{closed}/")]);
        assert!(
            !fetch.succeeded() && fetch.took < Duration::from_secs(3),
            "{closed} is refused at once: {fetch:?}"
        );
    }
    eventually(crate::REPORTED, "the refusals are counted", || {
        (handler.documents().drops("egress_refused") >= 2).then_some(())
    });
}

#[test]
fn the_gateways_tunnel_address_answers_ping_and_nothing_else() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &conf);
    let (from, to) = (peer.address(), Ipv4Addr::new(10, 8, 0, 1));
    let patience = Duration::from_secs(2);
    assert_eq!(
        peer.ask(&ping(from, to, 1), to, patience),
        Some(Reply::Echo)
    );
    for packet in [
        syn((from, 5000), (to, Handler::PORT)),
        udp((from, 5000), (to, 53), b"hello"),
    ] {
        let reply = peer.ask(&packet, to, patience);
        assert!(
            matches!(reply, Some(Reply::Reset | Reply::Unreachable(_))),
            "{reply:?}"
        );
    }
}
