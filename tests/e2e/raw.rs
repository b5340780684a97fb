//! The gateway as a NAT over AF_PACKET, with CAP_NET_RAW alone.

use std::time::Duration;

use crate::lab::{
    Client, Documents, Gateway, Internet, Lab, Rights, Settings, Userspace, config_for,
};

const HOUR: Duration = Duration::from_secs(3600);
const RAW: (&str, &str) = ("GATEWAY_MODE", "raw");

/// A lab with a gateway in raw mode and one client that is connected to it.
fn with_raw_client(work: impl FnOnce(&Lab, &Gateway<'_>, &Client)) {
    let lab = Lab::new(Settings::default());
    let gateway = Gateway::start_with(&lab.host, HOUR, Rights::NetRaw, &[RAW]);
    let conf = gateway.add_peer("phone");
    assert_eq!(mode(&gateway).0, "raw", "{}", gateway.log());
    let client = lab.client();
    client.up(&conf.0, Userspace::WireguardGo);
    crate::carries(&client, Duration::from_secs(10));
    work(&lab, &gateway, &client);
}

fn mode(gateway: &Gateway<'_>) -> (String, String) {
    let status = gateway.documents.status().unwrap();
    (status.mode, status.mode_reason)
}

#[test]
fn a_client_browses_by_frames() {
    with_raw_client(|_, _, client| {
        let url = format!("http://{}/", Internet::NAME);
        let answer = client.curl(15, &[&url]).expect("HTTP by name");
        assert_eq!(answer.stdout(), "hello from the internet\n");
        for address in [Internet::ADDRESS, "10.8.0.1"] {
            client
                .run(10, &["ping", "-c3", "-i0.2", "-W2", address])
                .expect("ping");
        }
        crate::browsing::a_large_file_arrives_whole(client);
        // An answer that does not fit is refused by the gateway, as by any router, and the server
        // then cuts the next one.
        crate::browsing::udp_echoes(client, 3);
        crate::browsing::two_hundred_connections_live_at_once(client);
    });
}

#[test]
fn root_becomes_nobody_and_its_port_below_1024_is_open() {
    let lab = Lab::new(Settings::default());
    Documents::of(&lab.host).change_config(|| config_for(443), |_| {});
    let gateway = Gateway::start_with(&lab.host, HOUR, Rights::Container, &[RAW]);
    let conf = gateway.add_peer("phone");
    assert_eq!(mode(&gateway).0, "raw", "{}", gateway.log());
    assert_eq!(conf.endpoint().port(), 443);
    for pid in lab.host.namespace.processes("popup-gateway") {
        crate::browsing::has_no_capability_left(pid);
    }
    let client = lab.client();
    client.up(&conf.0, Userspace::WireguardGo);
    crate::carries(&client, Duration::from_secs(10));
}

#[test]
fn without_the_capability_sockets_are_used_and_it_is_said_why() {
    let lab = Lab::new(Settings::default());
    for environment in [&[][..], &[RAW][..]] {
        let gateway = Gateway::start_with(&lab.host, HOUR, Rights::Nothing, environment);
        let expected = ("socket".to_owned(), "not raw: no CAP_NET_RAW".to_owned());
        assert_eq!(mode(&gateway), expected);
        assert!(
            gateway.log().contains("no CAP_NET_RAW"),
            "{}",
            gateway.log()
        );
    }
}

#[test]
fn with_the_capability_frames_are_preferred_unless_sockets_are_asked_for() {
    let lab = Lab::new(Settings::default());
    let modes = [
        (&[][..], "raw"),
        (&[("GATEWAY_MODE", "socket")][..], "socket"),
    ];
    for (environment, expected) in modes {
        let gateway = Gateway::start_with(&lab.host, HOUR, Rights::NetRaw, environment);
        assert_eq!(mode(&gateway).0, expected);
    }
}

#[test]
fn the_self_test_tells_what_works_from_what_does_not() {
    let lab = Lab::new(Settings::default());
    let service = format!("{}:80", Internet::ADDRESS);
    let nobody = format!("{}:80", Internet::BLACK_HOLE);
    let closed = format!("{}:81", Internet::ADDRESS);
    let tested = |target: &str| {
        let environment = [RAW, ("RAW_PROBE_TARGET", target)];
        let gateway = Gateway::start_with(&lab.host, HOUR, Rights::NetRaw, &environment);
        mode(&gateway)
    };
    let found = |mode: &str, reason: &str| (mode.to_owned(), reason.to_owned());
    assert_eq!(
        tested(&service),
        found("raw", "CAP_NET_RAW, and the self-test has passed")
    );
    let untested = tested(&nobody);
    assert_eq!(
        untested,
        found("raw", "CAP_NET_RAW, untested: the target cannot be reached")
    );
    let untested = tested(&closed);
    assert_eq!(
        untested,
        found(
            "raw",
            "CAP_NET_RAW, untested: the target refuses connections"
        )
    );

    lab.internet.namespace().shell(
        "nft 'table ip raw { chain in { type filter hook input priority 0; tcp sport 10000-31999 drop; }; }'",
    );
    let reason =
        "not raw: the self-test has failed: nobody answers frames, though the system can connect";
    assert_eq!(tested(&service), found("socket", reason));
    lab.internet.namespace().shell("nft flush ruleset");

    // A system that answers for the held ports after all.
    lab.host.namespace.shell(
        "nft 'table ip raw { chain in { type filter hook input priority 0; tcp dport 10000-31999 reject with tcp reset; }; }'",
    );
    let reason =
        "not raw: the self-test has failed: the system resets connections that it has not made";
    assert_eq!(tested(&service), found("socket", reason));
}

#[test]
fn every_refused_class_is_refused_by_frames_too() {
    let lab = Lab::new(Settings::default());
    let gateway = Gateway::start_with(&lab.host, HOUR, Rights::NetRaw, &[RAW]);
    let conf = gateway.add_peer("phone");
    crate::egress::every_class_is_refused(&lab, &gateway.documents, &conf);
}
