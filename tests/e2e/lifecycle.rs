//! Stopping, starting, dying and being replaced.

use std::time::{Duration, Instant};

use popup_model::{LeaseId, StatusDocument};
use serde_json::json;

use crate::lab::{
    Gateway, Handler, Internet, Lab, RawPeer, Settings, Userspace, eventually, packet,
};
use crate::{NEW_SESSION, carries, pings, with_client};

/// The status of a gateway process other than `before`.
fn after(handler: &Handler<'_>, before: &StatusDocument) -> StatusDocument {
    eventually(Duration::from_secs(30), "another gateway is ready", || {
        handler
            .documents()
            .status()
            .filter(|status| status.ready && status.boot_id != before.boot_id)
    })
}

#[test]
fn a_stopped_vpn_carries_nothing_and_the_same_file_works_after_the_next_start() {
    with_client(|lab, handler, client| {
        let key = handler.status()["serverPublicKey"].clone();
        assert_eq!(handler.stop_vpn()["status"], "VPN stopped");
        assert!(lab.host.namespace.processes("popup-gateway").is_empty());
        assert!(!pings(client));
        assert!(
            !client
                .curl(4, &[&format!("http://{}/", Internet::ADDRESS)])
                .succeeded()
        );
        assert_eq!(
            handler.stop_vpn()["status"],
            "VPN stopped",
            "stopping twice is fine"
        );

        let answer = handler.start_vpn(&json!({"peer": null}));
        assert_eq!(answer["status"], "VPN started");
        assert_eq!(answer["serverPublicKey"], key);
        carries(client, NEW_SESSION);
    });
}

#[test]
fn a_killed_gateway_comes_back_and_its_client_goes_on() {
    with_client(|_, handler, client| {
        let before = handler.documents().status().unwrap();
        let traffic = before.peers[0].rx_bytes;
        handler.kill_gateway();
        let status = after(handler, &before);
        assert_eq!(status.lease_id, before.lease_id);
        assert_eq!(status.public_key, before.public_key);
        carries(client, NEW_SESSION);
        let now = eventually(Duration::from_secs(10), "a status with traffic", || {
            handler
                .documents()
                .status()
                .filter(|status| status.peers[0].rx_bytes > traffic)
        });
        assert_eq!(now.boot_id, status.boot_id, "it was started once");
    });
}

#[test]
fn a_gateway_outlives_its_killed_handler_and_is_adopted_by_the_next() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let client = lab.client();
    client.up(&handler.add_peer("phone").0, Userspace::WireguardGo);
    carries(&client, Duration::from_secs(10));
    let before = handler.documents().status().unwrap();
    handler.kill();
    assert!(pings(&client), "the gateway lives on");

    let handler = Handler::start(&lab.host);
    let status = handler.status();
    assert_eq!(status["state"], "running", "{status:#}");
    assert_eq!(status["leaseId"], before.lease_id.as_str());
    assert_eq!(
        handler.start_vpn(&json!({"peer": null}))["status"],
        "VPN already running"
    );
    assert!(pings(&client));
    assert_eq!(
        handler.documents().status().unwrap().boot_id,
        before.boot_id,
        "the same process"
    );

    handler.stop_vpn();
    assert!(
        lab.host.namespace.processes("popup-gateway").is_empty(),
        "an adopted gateway can be stopped"
    );
}

#[test]
fn a_handler_that_ends_in_peace_takes_its_gateway_with_it() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    handler.add_peer("phone");
    handler.terminate();
    assert!(lab.host.namespace.processes("popup-gateway").is_empty());
}

#[test]
fn a_gateway_whose_lease_is_replaced_exits_with_0_and_stays_down() {
    let lab = Lab::new(Settings::default());
    let mut gateway = Gateway::start(&lab.host, Duration::from_secs(600));
    let conf = gateway.add_peer("phone");
    let client = lab.client();
    assert!(RawPeer::new(&client, &conf).shakes_hands(Duration::from_secs(5)));
    gateway
        .documents
        .change_lease(|document| document.lease.as_mut().unwrap().id = LeaseId::generate());
    let status = gateway.ended(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(gateway.log().contains("fenced"), "{}", gateway.log());
    let last = gateway.documents.status().unwrap();
    assert_eq!(
        last.ended, None,
        "the status document belongs to the next lease"
    );
    assert!(!RawPeer::new(&client, &conf).shakes_hands(Duration::from_secs(2)));
}

#[test]
fn a_gateway_cut_off_from_its_documents_serves_until_its_lease_ends_and_no_longer() {
    const LIFETIME: Duration = Duration::from_secs(14);
    let lab = Lab::new(Settings::default());
    let begun = Instant::now();
    let mut gateway = Gateway::start(&lab.host, LIFETIME);
    let conf = gateway.add_peer("phone");
    std::fs::rename(
        lab.host.state().join("control"),
        lab.host.state().join("gone"),
    )
    .unwrap();
    std::fs::rename(
        lab.host.state().join("status"),
        lab.host.state().join("gone-too"),
    )
    .unwrap();
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &conf);
    let (from, to) = (peer.address(), Internet::ADDRESS.parse().unwrap());
    while begun.elapsed() < LIFETIME - Duration::from_secs(2) {
        let reply = peer.ask(&packet::ping(from, to, 1), to, Duration::from_secs(3));
        assert_eq!(
            reply,
            Some(packet::Reply::Echo),
            "at {:?}: {}",
            begun.elapsed(),
            gateway.log()
        );
        assert!(gateway.runs());
    }
    let status = gateway.ended(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    let lived = begun.elapsed();
    assert!(
        lived > LIFETIME - Duration::from_secs(1) && lived < LIFETIME + Duration::from_secs(4),
        "{lived:?}"
    );
}

#[test]
fn a_lease_that_is_over_stops_the_vpn_and_says_why() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    handler.add_peer("phone");
    handler.documents().change_lease(|document| {
        let lease = document.lease.as_mut().unwrap();
        lease.expires_at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    });
    let status = eventually(Duration::from_secs(30), "the VPN stops", || {
        Some(handler.status()).filter(|status| status["state"] == "stopped")
    });
    assert!(
        status["lastStop"]
            .to_string()
            .to_lowercase()
            .contains("lifetime"),
        "{status:#}"
    );
    assert!(lab.host.namespace.processes("popup-gateway").is_empty());
}

#[test]
fn an_idle_vpn_stops_although_its_client_is_connected_and_one_in_use_does_not() {
    const IDLE: Duration = Duration::from_secs(25);
    with_client(|lab, handler, client| {
        handler.documents().change_lease(|document| {
            document.lease.as_mut().unwrap().idle_timeout_s = Some(IDLE.as_secs());
        });
        let begun = Instant::now();
        while begun.elapsed() < IDLE + Duration::from_secs(10) {
            assert!(pings(client), "in use since {:?}", begun.elapsed());
            client.run(5, &["sleep", "1"]);
        }
        let status = eventually(IDLE + Duration::from_secs(40), "the VPN stops", || {
            Some(handler.status()).filter(|status| status["state"] == "stopped")
        });
        let reason = status["lastStop"].to_string().to_lowercase();
        assert!(reason.contains("idle"), "{status:#}");
        assert!(lab.host.namespace.processes("popup-gateway").is_empty());
    });
}

#[test]
fn parallel_starts_leave_one_gateway_and_give_every_peer_an_address_of_its_own() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let mut addresses: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|number| {
                let handler = &handler;
                scope.spawn(move || handler.add_peer(&format!("peer{number}")).address())
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 8);
    assert_eq!(lab.host.namespace.processes("popup-gateway").len(), 1);
}
