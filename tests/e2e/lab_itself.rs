//! The lab keeps its promises without the product: a failure here is not the product's.

use std::time::Duration;

use popup_model::PrivateKey;

use crate::lab::{
    Client, Internet, Lab, OUTER, Settings, UDP_PORT, Userspace, eventually, pattern, sha256,
};

/// A server of the ordinary kind on the host, and the file for its only client.
fn ordinary_server(lab: &Lab) -> String {
    let (server, client) = (PrivateKey::generate(), PrivateKey::generate());
    let file = lab.host.directory().join("server.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {UDP_PORT}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.8.0.2/32\n",
        *server.to_base64(),
        client.public_key(),
    );
    std::fs::write(&file, text).unwrap();
    lab.host.namespace.shell(&format!(
        "umount /dev/net
         mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard
         wireguard-go wgs >/dev/null 2>&1
         wg setconf wgs '{}'
         ip address add 10.8.0.1/24 dev wgs && ip link set wgs mtu 1420 up
         echo 1 >/proc/sys/net/ipv4/ip_forward",
        file.display()
    ));
    lab.internet
        .namespace()
        .shell("ip route add 10.8.0.0/24 via 203.0.113.1");
    format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.8.0.2/32\nDNS = {}\nMTU = 1420\n\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {OUTER}:{UDP_PORT}\nPersistentKeepalive = 25\n",
        *client.to_base64(),
        Internet::DNS,
        server.public_key(),
    )
}

fn browses(client: &Client) {
    eventually(Duration::from_secs(10), "a ping through the tunnel", || {
        client
            .run(3, &["ping", "-c1", "-W1", Internet::ADDRESS])
            .succeeded()
            .then_some(())
    });
    let url = format!("http://{}/bytes/1000000", Internet::NAME);
    let page = client.curl(20, &[&url]).expect("HTTP by name");
    assert_eq!(sha256(&page.output.stdout), sha256(&pattern(1_000_000)));
}

#[test]
fn an_ordinary_server_carries_wireguard_go() {
    let lab = Lab::new(Settings::default());
    let conf = ordinary_server(&lab);
    let client = lab.client();
    client.up(&conf, Userspace::WireguardGo);
    browses(&client);
    let refused = client.curl(5, &["http://203.0.113.10:81/"]);
    assert!(
        refused.text().contains("refused") || refused.text().contains("connect"),
        "{}",
        refused.text()
    );
    client.down();
    assert!(
        !client
            .run(3, &["ping", "-c1", "-W1", Internet::ADDRESS])
            .succeeded()
    );
}

#[test]
fn an_ordinary_server_carries_boringtun() {
    let lab = Lab::new(Settings::default());
    let conf = ordinary_server(&lab);
    let client = lab.client();
    client.up(&conf, Userspace::Boringtun);
    browses(&client);
}

#[test]
fn nothing_leaves_the_host_by_itself() {
    let lab = Lab::new(Settings::default());
    let client = lab.client();
    client
        .namespace
        .shell(&format!("ip route add default via {OUTER}"));
    assert!(client.run(2, &["ping", "-c1", "-W1", OUTER]).succeeded());
    assert!(
        !client
            .run(3, &["ping", "-c1", "-W1", Internet::ADDRESS])
            .succeeded()
    );
    let reachable = lab.host.namespace.run(
        Duration::from_secs(3),
        &["ping", "-c1", "-W1", Internet::ADDRESS],
    );
    reachable.expect("the host reaches the internet");
}
