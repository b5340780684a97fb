//! `popup-vpn check` against a gateway that behaves, and against those that do not.

#![expect(
    clippy::unwrap_used,
    reason = "clippy exempts only the test functions themselves"
)]

mod gateway;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use popup_model::{PresharedKey, PrivateKey, PublicKey};
use popup_vpn::check::{CheckError, run_with};

use gateway::{Behaviour, Gateway, NAME, response};

/// A client's file, for a gateway or for nobody.
struct File {
    private_key: Option<PrivateKey>,
    preshared_key: Option<PresharedKey>,
    public_key: PublicKey,
    endpoint: SocketAddr,
    allowed_ips: &'static str,
}

impl File {
    fn text(&self) -> String {
        let mut text = String::from("[Interface]\n");
        if let Some(key) = &self.private_key {
            writeln!(text, "PrivateKey = {}", *key.to_base64()).unwrap();
        }
        text += "Address = 10.8.0.2/32\nDNS = 10.8.0.1\nMTU = 1420\n\n[Peer]\n";
        writeln!(text, "PublicKey = {}", self.public_key).unwrap();
        if let Some(key) = &self.preshared_key {
            writeln!(text, "PresharedKey = {}", *key.to_base64()).unwrap();
        }
        let Self {
            allowed_ips,
            endpoint,
            ..
        } = self;
        writeln!(
            text,
            "AllowedIPs = {allowed_ips}\nEndpoint = {endpoint}\nPersistentKeepalive = 25"
        )
        .unwrap();
        text
    }

    fn check(&self, options: &[&str]) -> (Result<bool, CheckError>, String) {
        let mut output = Vec::new();
        let line = ["-", "--timeout", "1"]
            .iter()
            .chain(options)
            .map(OsString::from);
        let outcome = run_with(line, &mut self.text().as_bytes(), &mut output);
        let output = String::from_utf8(output).unwrap();
        for key in [
            self.private_key.as_ref().map(PrivateKey::to_base64),
            self.preshared_key.as_ref().map(PresharedKey::to_base64),
        ]
        .into_iter()
        .flatten()
        {
            assert!(!output.contains(key.as_str()), "a key is printed: {output}");
        }
        (outcome, output)
    }

    /// Asserts that the check fails at `step`, and that the advice holds these words.
    fn fails_at(&self, step: &str, words: &str, options: &[&str]) {
        let (outcome, output) = self.check(options);
        assert!(!outcome.unwrap(), "{output}");
        let failed: Vec<&str> = output
            .lines()
            .filter(|line| line.contains(" FAILED "))
            .collect();
        assert_eq!(failed.len(), 1, "{output}");
        assert!(failed[0].starts_with(step), "{output}");
        assert!(output.contains(words), "{output}");
    }
}

fn started(behaviour: Behaviour) -> (Gateway, File) {
    let private_key = PrivateKey::generate();
    let preshared_key = behaviour.preshared_key.clone();
    let gateway = Gateway::start(private_key.public_key(), behaviour);
    let file = File {
        private_key: Some(private_key),
        preshared_key,
        public_key: gateway.public_key,
        endpoint: gateway.endpoint,
        allowed_ips: "0.0.0.0/0, ::/0",
    };
    (gateway, file)
}

fn url() -> String {
    format!("http://{NAME}/page")
}

#[test]
fn all_steps_pass_through_a_good_gateway() {
    let behaviour = Behaviour {
        preshared_key: Some(PresharedKey::generate()),
        ..Behaviour::default()
    };
    let (_gateway, file) = started(behaviour);
    let (outcome, output) = file.check(&["--url", &url(), "--timeout", "5"]);
    assert!(outcome.unwrap(), "{output}");
    let steps: Vec<_> = output
        .lines()
        .filter_map(|line| line.split_once(" ok "))
        .map(|(step, _)| step.trim())
        .collect();
    assert_eq!(
        steps,
        ["resolve", "handshake", "ping", "dns", "connect", "fetch"],
        "{output}"
    );
    assert!(
        output.contains("HTTP 200, 200000 bytes, ") && output.contains(" Mbit/s"),
        "{output}"
    );
    assert!(output.ends_with("All steps passed.\n"), "{output}");
}

#[test]
fn an_address_in_the_url_needs_no_name_server() {
    let (_gateway, file) = started(Behaviour {
        answers_names: false,
        ..Behaviour::default()
    });
    let (outcome, output) = file.check(&["--url", "http://10.8.0.1/page", "--timeout", "5"]);
    assert!(outcome.unwrap(), "{output}");
    assert!(!output.contains("\ndns "), "{output}");
}

#[test]
fn a_key_that_is_not_the_gateways_meets_silence() {
    let (_gateway, mut file) = started(Behaviour::default());
    file.public_key = PrivateKey::generate().public_key();
    file.fails_at("handshake", "is not the gateway's", &["--url", &url()]);
}

#[test]
fn a_peer_the_gateway_does_not_know_meets_silence() {
    let (_gateway, mut file) = started(Behaviour::default());
    file.private_key = Some(PrivateKey::generate());
    file.fails_at("handshake", "this peer was removed", &["--url", &url()]);
}

#[test]
fn a_wrong_preshared_key_is_told_from_silence() {
    let (_gateway, mut file) = started(Behaviour {
        preshared_key: Some(PresharedKey::generate()),
        ..Behaviour::default()
    });
    file.preshared_key = Some(PresharedKey::generate());
    file.fails_at(
        "handshake",
        "The PresharedKey is not the gateway's",
        &["--url", &url()],
    );
}

#[test]
fn a_port_where_nothing_listens_is_told_from_silence() {
    let (gateway, mut file) = started(Behaviour::default());
    // Bound and never connected to: free again, and nobody else's in the meantime.
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    file.endpoint = free.local_addr().unwrap();
    drop((gateway, free));
    file.fails_at(
        "handshake",
        "nothing listens on this port",
        &["--url", &url()],
    );
}

#[test]
fn an_endpoint_without_an_address_is_not_started() {
    let (_gateway, file) = started(Behaviour::default());
    let text = file
        .text()
        .replace(&file.endpoint.to_string(), "nowhere.invalid:443");
    let mut output = Vec::new();
    let line = ["-", "--timeout", "5"].map(OsString::from).into_iter();
    assert!(!run_with(line, &mut text.as_bytes(), &mut output).unwrap());
    let output = String::from_utf8(output).unwrap();
    assert!(
        output.starts_with("resolve    FAILED") && output.contains("Is the VPN started?"),
        "{output}"
    );
}

#[test]
fn lost_large_packets_are_diagnosed_as_the_mtu() {
    let (_gateway, file) = started(Behaviour {
        largest_packet: 1300,
        ..Behaviour::default()
    });
    file.fails_at(
        "fetch",
        "Put MTU = 1280 under [Interface] (now 1420)",
        &["--url", &url()],
    );
}

#[test]
fn a_name_that_does_not_exist_is_not_the_tunnels_fault() {
    let (_gateway, file) = started(Behaviour::default());
    file.fails_at(
        "dns",
        "The tunnel works, but this name",
        &["--url", "http://no.example.net/"],
    );
}

#[test]
fn a_silent_name_server_is_told_from_a_dead_tunnel() {
    let (_gateway, file) = started(Behaviour {
        answers_names: false,
        ..Behaviour::default()
    });
    file.fails_at(
        "dns",
        "no name server of the file answered",
        &["--url", &url()],
    );
    let (_gateway, file) = started(Behaviour {
        largest_packet: 0,
        ..Behaviour::default()
    });
    file.fails_at("dns", "not even a ping", &["--url", &url()]);
}

#[test]
fn a_closed_port_of_the_server_is_a_refusal() {
    let (_gateway, file) = started(Behaviour {
        http_port: 8080,
        ..Behaviour::default()
    });
    file.fails_at("connect", "nothing listens on its port", &["--url", &url()]);
}

#[test]
fn a_server_that_keeps_silent_fails_the_tls_step() {
    let (_gateway, file) = started(Behaviour {
        http_port: 443,
        ..Behaviour::default()
    });
    file.fails_at(
        "tls",
        "Data stopped coming",
        &["--url", &format!("https://{NAME}/")],
    );
}

#[test]
fn what_the_gateway_prohibits_is_told_from_silence() {
    let (_gateway, file) = started(Behaviour::default());
    file.fails_at(
        "connect",
        "egress policy",
        &["--url", "http://203.0.113.1/"],
    );
}

#[test]
fn an_error_of_the_server_fails_the_check() {
    let (_gateway, file) = started(Behaviour {
        response: response(500, 10),
        ..Behaviour::default()
    });
    file.fails_at("fetch", "error of its own", &["--url", &url()]);
}

#[test]
fn what_allowed_ips_leave_out_is_not_tried() {
    let (_gateway, mut file) = started(Behaviour::default());
    file.allowed_ips = "10.8.0.0/24";
    file.fails_at(
        "connect",
        "widen AllowedIPs",
        &["--url", "http://203.0.113.1/"],
    );
}

#[test]
fn the_private_key_may_come_from_a_file_of_its_own() {
    let (_gateway, mut file) = started(Behaviour::default());
    let key = file.private_key.take().unwrap();
    let (outcome, _) = file.check(&["--url", &url()]);
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, CheckError::NoPrivateKey(_))
            && error.to_string().contains("--private-key-file")
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, format!("{}\n", *key.to_base64())).unwrap();
    let (outcome, output) = file.check(&[
        "--url",
        &url(),
        "--timeout",
        "5",
        "--private-key-file",
        path.to_str().unwrap(),
    ]);
    assert!(outcome.unwrap(), "{output}");
}

#[test]
fn a_file_the_apps_refuse_is_refused() {
    let (_gateway, file) = started(Behaviour::default());
    let text = file.text().replace("MTU", "Table");
    let error = run_with(
        [OsString::from("-")].into_iter(),
        &mut text.as_bytes(),
        &mut Vec::new(),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("line 5: unknown key Table in [Interface]"),
        "{error}"
    );
}
