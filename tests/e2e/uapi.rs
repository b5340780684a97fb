//! `wg show` on the gateway's socket, which tells no secrets.

use std::time::Duration;

use serde_json::json;

use crate::lab::{Conf, Handler, Internet, Lab, Settings, Userspace};

#[test]
fn wg_show_lists_the_peers_and_no_secret() {
    let lab = Lab::new(Settings::default());
    lab.host.namespace.shell(
        "mkdir -p /run/wireguard && mount -t tmpfs -o mode=700,uid=65534,gid=65534 tmpfs /run/wireguard",
    );
    let handler = Handler::start_with(&lab.host, &[("WG_UAPI_DIR", "/run/wireguard")]);
    let body = json!({"peer": {"name": "phone", "presharedKey": true}, "dns": [Internet::DNS]});
    let conf = Conf(
        handler.start_vpn(&body)["clientConfig"]
            .as_str()
            .unwrap()
            .to_owned(),
    );
    let preshared = conf.value("PresharedKey").to_owned();
    let client = lab.client();
    client.up(&conf.0, Userspace::WireguardGo);
    crate::carries(&client, Duration::from_secs(10));

    let dump = lab.host.namespace.shell("wg show all dump");
    let lines: Vec<Vec<&str>> = dump
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let [interface, peer] = lines.as_slice() else {
        panic!("one interface and one peer:\n{dump}")
    };
    // `wg` computes the public key from the private one, so it has neither.
    assert_eq!(interface[1..3], ["(none)", "(none)"], "the keys");
    assert_eq!(interface[3], conf.endpoint().port().to_string());
    assert_eq!(peer[1], conf.private_key().public_key().to_string());
    assert!(!dump.contains(&preshared));
    assert!(
        peer[3].starts_with(&client.address),
        "its endpoint:\n{dump}"
    );
    assert!(
        peer[4].contains(&format!("{}/32", conf.address())),
        "its allowed IPs:\n{dump}"
    );
    assert_ne!(peer[5], "0", "the latest handshake");
    assert!(
        peer[6].parse::<u64>().unwrap() > 0 && peer[7].parse::<u64>().unwrap() > 0,
        "bytes:\n{dump}"
    );

    let set = lab.host.namespace.run(
        Duration::from_secs(5),
        &["wg", "set", interface[0], "peer", peer[1], "remove"],
    );
    assert!(!set.succeeded(), "the socket is read-only");
    assert!(crate::pings(&client));
}
