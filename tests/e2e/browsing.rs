//! One POST, `wg-quick up` with the file as it came, and the internet is there.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;

use crate::lab::{
    Client, Handler, Internet, Lab, Request, Settings, Userspace, connect, eventually, pattern,
    sha256,
};

const HUNDRED_MB: usize = 100_000_000;

fn browses_with(userspace: Userspace) {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let start = Request::post("/api/start-vpn").header("Accept", "text/plain");
    let answer = handler
        .call(start.json(&json!({"peer": {"name": "popup"}, "dns": [Internet::DNS]})))
        .expect(200);
    assert!(
        answer.headers.contains("popup.conf"),
        "the file has a name: {}",
        answer.headers
    );

    let client = lab.client();
    client.up(&answer.body, userspace);

    let url = format!("http://{}/", Internet::NAME);
    assert_eq!(
        client.curl(15, &[&url]).expect("HTTP by name").stdout(),
        "hello from the internet\n"
    );
    client
        .run(5, &["dig", "+short", "+tries=1", Internet::NAME])
        .expect("dig");
    for address in [Internet::ADDRESS, "10.8.0.1"] {
        client
            .run(10, &["ping", "-c3", "-i0.2", "-W2", address])
            .expect("ping");
    }
    a_large_file_arrives_whole(&client);
    udp_echoes(&client, 1);
    two_hundred_connections_live_at_once(&client);

    eventually(crate::REPORTED, "the status has counted it", || {
        let status = handler.status();
        let peer = &status["peers"][0];
        assert_eq!(peer["name"], "popup", "{status:#}");
        let counted = |key: &str| peer[key].as_u64() > Some(HUNDRED_MB as u64);
        (peer["connected"] == true && counted("rxBytes") && counted("txBytes")).then_some(())
    });
}

pub(crate) fn a_large_file_arrives_whole(client: &Client) {
    let file = client.directory().join("large");
    let path = file.display().to_string();
    let url = format!("http://{}/bytes/{HUNDRED_MB}", Internet::NAME);
    client
        .curl(120, &["--output", &path, &url])
        .expect("a download of 100 MB");
    let digest = sha256(&std::fs::read(&file).unwrap());
    assert_eq!(digest, sha256(&pattern(HUNDRED_MB)));
    let upload = client
        .curl(120, &["--upload-file", &path, &url])
        .expect("an upload of 100 MB");
    assert_eq!(upload.stdout(), format!("{HUNDRED_MB} {digest}\n"));
}

/// Datagrams of many lengths, each sent at most so many times.
pub(crate) fn udp_echoes(client: &Client, tries: usize) {
    let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect((Internet::ADDRESS, 7)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // The last two do not fit the tunnel's MTU and travel as fragments.
    for length in [1, 1200, 1392, 1393, 4000] {
        let sent = pattern(length);
        let mut received = vec![0; 65536];
        let mut answers = (0..tries).map(|_| {
            socket.send(&sent).unwrap();
            socket.recv(&mut received)
        });
        let count = answers
            .find_map(Result::ok)
            .unwrap_or_else(|| panic!("{length} bytes do not come back"));
        assert_eq!(received[..count], sent, "{length} bytes");
    }
}

pub(crate) fn two_hundred_connections_live_at_once(client: &Client) {
    let to = format!("{}:7", Internet::ADDRESS);
    let streams: Vec<_> = (0..200)
        .map(|number| {
            let stream = connect(client, &to, Duration::from_secs(10));
            stream.unwrap_or_else(|error| panic!("connection {number}: {error}"))
        })
        .collect();
    for (number, mut stream) in streams.iter().enumerate() {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .write_all(format!("connection {number:>4}").as_bytes())
            .unwrap();
    }
    for (number, mut stream) in streams.iter().enumerate() {
        let mut answer = [0; 15];
        stream
            .read_exact(&mut answer)
            .unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert_eq!(answer, format!("connection {number:>4}").as_bytes());
    }
}

#[test]
fn wireguard_go_browses_with_an_unmodified_file() {
    browses_with(Userspace::WireguardGo);
}

#[test]
fn boringtun_browses_with_an_unmodified_file() {
    browses_with(Userspace::Boringtun);
}

/// Whether every thread of a process is nobody, without a capability or a way to one.
pub(crate) fn has_no_capability_left(pid: u32) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    for thread in threads.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        let value = |key: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let held = u64::from_str_radix(&value(set), 16).unwrap();
            assert_eq!(held, 0, "{set} of {}", value("Name:"));
        }
        for id in ["Uid:", "Gid:"] {
            assert_eq!(value(id), "65534\t65534\t65534\t65534");
        }
        assert_eq!(value("NoNewPrivs:"), "1");
    }
}

#[test]
fn the_gateway_has_no_privilege_at_all() {
    crate::with_client(|lab, _, _| {
        let gateways = lab.host.namespace.processes("popup-gateway");
        assert_eq!(gateways.len(), 1);
        has_no_capability_left(gateways[0]);
        lab.host.namespace.shell("test ! -e /dev/net/tun");
    });
}

#[test]
fn a_port_below_1024_serves_where_the_system_allows_it() {
    let lab = Lab::new(Settings {
        low_ports: true,
        ..Settings::default()
    });
    let handler = Handler::start_with(&lab.host, &[("VPN_PORT", "443")]);
    let conf = handler.add_peer("phone");
    assert_eq!(conf.endpoint().port(), 443);
    let client = lab.client();
    client.up(&conf.0, Userspace::WireguardGo);
    crate::carries(&client, Duration::from_secs(10));
}

#[test]
fn a_port_below_1024_is_refused_with_the_cure_where_the_system_forbids_it() {
    let lab = Lab::new(Settings {
        low_ports: false,
        ..Settings::default()
    });
    let handler = Handler::start_with(&lab.host, &[("VPN_PORT", "443")]);
    let answer = handler.call(Request::post("/api/start-vpn"));
    assert!(answer.status >= 400, "{answer:#?}");
    let error = answer.json()["error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        error.contains("443"),
        "the answer names the port: {answer:#?}"
    );
}
