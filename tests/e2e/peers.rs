//! Peers come and go while others work.

use std::time::Duration;

use serde_json::json;

use crate::lab::{
    Conf, Handler, Internet, Lab, RawPeer, Request, Settings, Transfer, Userspace, eventually,
    packet,
};
use crate::{carries, with_client};

/// The longest a neighbour's exchange may take. Two cores run the whole lab, so this is not a
/// measure of speed: a lost session would cost 15 s and more.
const UNDISTURBED: Duration = Duration::from_secs(3);

#[test]
fn a_peer_added_live_works_and_disturbs_nobody() {
    with_client(|lab, handler, client| {
        let transfer = Transfer::begin(client);
        let second = lab.client();
        second.up(&handler.add_peer("laptop").0, Userspace::WireguardGo);
        carries(&second, Duration::from_secs(10));
        let so_far = transfer.exchanges();
        eventually(
            Duration::from_secs(5),
            "the first peer's transfer goes on",
            || (transfer.exchanges() > so_far + 5).then_some(()),
        );
        transfer.end_undisturbed(UNDISTURBED);
        let peers = handler
            .call(Request::get("/api/vpn-peers"))
            .expect(200)
            .json();
        assert!(
            peers.to_string().contains("laptop") && peers.to_string().contains("phone"),
            "{peers:#}"
        );
    });
}

#[test]
fn a_deleted_peer_is_gone_within_ten_seconds_with_its_flows_and_nobody_else_notices() {
    with_client(|lab, handler, client| {
        let staying = Transfer::begin(client);
        let conf = handler.add_peer("laptop");
        let second = lab.client();
        second.up(&conf.0, Userspace::WireguardGo);
        carries(&second, Duration::from_secs(10));
        let leaving = Transfer::begin(&second);
        assert_eq!(lab.host.outside_connections(), 2);

        let deleted = handler.call(Request::delete("/api/vpn-peers/laptop"));
        assert!((200..300).contains(&deleted.status), "{deleted:#?}");
        eventually(Duration::from_secs(10), "the peer's flows are gone", || {
            (lab.host.outside_connections() == 1).then_some(())
        });
        assert!(
            !RawPeer::new(&second, &conf).shakes_hands(Duration::from_secs(2)),
            "its key is dead"
        );
        let silent = leaving.exchanges();
        assert!(!crate::pings(&second));
        assert_eq!(leaving.exchanges(), silent);
        staying.end_undisturbed(UNDISTURBED);
        drop(leaving);
    });
}

#[test]
fn a_replaced_peer_keeps_its_address_and_its_old_key_is_dead_at_once() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let old = handler.add_peer("phone");
    let client = lab.client();
    assert!(RawPeer::new(&client, &old).shakes_hands(Duration::from_secs(5)));

    let again = handler.start_vpn(&json!({"peer": {"name": "phone"}}));
    assert!(
        again["clientConfig"].is_null(),
        "a name that exists gives no configuration: {again:#}"
    );
    let answer = handler
        .start_vpn(&json!({"peer": {"name": "phone", "replace": true}, "dns": [Internet::DNS]}));
    let new = Conf(answer["clientConfig"].as_str().unwrap().to_owned());
    assert_eq!(new.address(), old.address());
    assert!(!RawPeer::new(&client, &old).shakes_hands(Duration::from_secs(2)));
    client.up(&new.0, Userspace::WireguardGo);
    carries(&client, Duration::from_secs(10));
}

#[test]
fn a_peer_with_its_own_key_gets_a_file_without_one_and_connects() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let key = popup_model::PrivateKey::generate();
    let body =
        json!({"peer": {"name": "phone", "publicKey": key.public_key()}, "dns": [Internet::DNS]});
    let answer = handler.start_vpn(&body);
    let conf = Conf(answer["clientConfig"].as_str().unwrap().to_owned());
    assert_eq!(conf.optional("PrivateKey"), None);
    let text = conf.0.replacen(
        "[Interface]",
        &format!("[Interface]\nPrivateKey = {}", *key.to_base64()),
        1,
    );
    let client = lab.client();
    client.up(&text, Userspace::WireguardGo);
    carries(&client, Duration::from_secs(10));
}

#[test]
fn peers_do_not_reach_each_other_unless_told_to() {
    for (setting, expected) in [("false", false), ("true", true)] {
        let lab = Lab::new(Settings::default());
        let handler = Handler::start_with(&lab.host, &[("PEER_TO_PEER", setting)]);
        let (one, two) = (handler.add_peer("one"), handler.add_peer("two"));
        let (first, second) = (lab.client(), lab.client());
        let mut sender = RawPeer::new(&first, &one);
        let mut receiver = RawPeer::new(&second, &two);
        assert!(receiver.shakes_hands(Duration::from_secs(5)));
        // What makes its session the current one.
        receiver.send(&packet::ping(two.address(), "10.8.0.1".parse().unwrap(), 1));
        assert!(sender.shakes_hands(Duration::from_secs(5)));
        let ping = packet::ping(one.address(), two.address(), 1);
        if expected {
            sender.send(&ping);
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            let arrived = std::iter::from_fn(|| receiver.receive(deadline))
                .any(|inner| inner[12..16] == one.address().octets());
            assert!(arrived, "PEER_TO_PEER=true lets a ping through");
        } else {
            let reply = sender.ask(&ping, two.address(), Duration::from_secs(3));
            assert!(
                matches!(reply, Some(packet::Reply::Unreachable(code)) if packet::PROHIBITED.contains(&code)),
                "{reply:?}"
            );
            eventually(crate::REPORTED, "it is counted", || {
                (handler.documents().drops("peer_to_peer_refused") > 0).then_some(())
            });
        }
    }
}

#[test]
fn a_roaming_peer_goes_on_with_the_same_session() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let (here, there) = (lab.client(), lab.client());
    let mut peer = RawPeer::new(&here, &conf);
    let (from, to) = (peer.address(), Internet::ADDRESS.parse().unwrap());
    for machine in [&here, &there, &here] {
        peer.roam(machine);
        let reply = peer.ask(&packet::ping(from, to, 1), to, Duration::from_secs(5));
        assert_eq!(reply, Some(packet::Reply::Echo), "from {}", machine.address);
        eventually(crate::REPORTED, "the status knows the endpoint", || {
            let endpoint = handler.documents().status()?.peers[0].endpoint?;
            (endpoint.ip().to_string() == machine.address).then_some(())
        });
    }
}
