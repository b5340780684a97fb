use std::time::{Duration, UNIX_EPOCH};

use popup_model::{PresharedKey, TunnelNetworks};

use super::*;

/// A peer with a key of its own.
pub(crate) fn spec(host: u8) -> PeerSpec {
    PeerSpec {
        public_key: PrivateKey::generate().public_key(),
        preshared_key: None,
        ipv4: [10, 8, 0, host].into(),
        ipv6: format!("fd00:8::{host}").parse().unwrap(),
        mtu: 1420,
    }
}

#[test]
fn a_dump_is_read_peer_by_peer() {
    let (known, new) = (spec(2), spec(3));
    let text = format!(
        "PRIVATE\tPUBLIC\t51820\toff\n\
         {}\t(none)\t198.51.100.2:40000\t10.8.0.2/32,fd00:8::2/128\t1700000000\t1234\t5678\t25\n\
         {}\t(none)\t(none)\t10.8.0.3/32\t0\t0\t0\toff\n\
         nonsense\n",
        known.public_key, new.public_key
    );
    let dumped = dump::parse(&text);
    assert_eq!(dumped.len(), 2);
    let peer = &dumped[&known.public_key];
    assert_eq!(peer.endpoint, Some("198.51.100.2:40000".parse().unwrap()));
    assert_eq!(
        peer.latest_handshake,
        Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    );
    assert_eq!((peer.rx_bytes, peer.tx_bytes), (1234, 5678));
    assert_eq!(dumped[&new.public_key], Dumped::default());
}

#[test]
fn keepalives_and_handshakes_are_not_use() {
    let mut used = Used::default();
    let at = Instant::now();
    let mut now = Dumped::default();
    for step in [0, 32, 148, 148 + 32] {
        now.rx_bytes += step;
        used.look(&now, at);
        assert_eq!(used.active_at, None, "after {step} bytes");
    }
    now.rx_bytes += 1452;
    used.look(&now, at);
    assert_eq!(used.active_at, Some(at));
}

#[test]
fn counters_survive_a_peer_that_goes_and_comes_back() {
    let mut used = Used {
        before: (10, 20),
        ..Used::default()
    };
    let counted = Dumped {
        rx_bytes: 5,
        tx_bytes: 7,
        ..Dumped::default()
    };
    used.look(&counted, Instant::now());
    used.settle();
    used.settle();
    assert_eq!(used.before, (15, 27));
}

#[test]
fn a_peer_that_gets_another_address_is_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let KernelSettings { script, run_dir } = recorder(directory.path());
    std::fs::create_dir(&run_dir).unwrap();
    let peer = spec(2);
    let counted = Dumped {
        rx_bytes: 5,
        tx_bytes: 7,
        ..Dumped::default()
    };
    let used = Used {
        seen: Some(counted),
        ..Used::default()
    };
    let mut path = KernelPath {
        interface: "wg0".to_owned(),
        script: Script {
            program: script,
            variables: Vec::new(),
        },
        run_dir,
        peers: vec![peer.clone()],
        used: HashMap::from([(peer.public_key, used)]),
    };
    let moved = PeerSpec {
        ipv4: [10, 8, 0, 9].into(),
        ..peer.clone()
    };
    path.set_peers(vec![moved], "sync").unwrap();
    assert_eq!(path.used[&peer.public_key].before, (0, 0));
    path.set_peers(Vec::new(), "sync").unwrap();
    assert_eq!(path.used[&peer.public_key].before, (5, 7));
}

/// A script that writes down what it was asked, in place of the real one.
fn recorder(directory: &Path) -> KernelSettings {
    use std::os::unix::fs::PermissionsExt as _;
    let script = directory.join("kernel-path.sh");
    let text = "#!/bin/sh\n\
        printf '%s revoked=%s peers=%s\\n' \"$1\" \"$REVOKED\" \"$(grep -c PublicKey \"$PEERS_FILE\")\" >>\"$(dirname \"$0\")/calls\"\n\
        env | grep ^SERVER_ | sort >\"$(dirname \"$0\")/variables\"\n\
        [ ! -e \"$(dirname \"$0\")/fail-$1\" ] || { echo 'RTNETLINK answers: Operation not permitted' >&2; exit 1; }\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    KernelSettings {
        script,
        run_dir: directory.join("run"),
    }
}

fn config() -> ServerConfig {
    let networks = TunnelNetworks::new(
        "10.8.0.0/24".parse().unwrap(),
        "fd00:8::/64".parse().unwrap(),
    );
    ServerConfig::new(networks.unwrap(), vec![443, 500])
}

#[test]
fn peers_come_and_go_by_the_script_and_stop_takes_all_away() {
    let directory = tempfile::tempdir().unwrap();
    let settings = recorder(directory.path());
    let key = PrivateKey::generate();
    let (stays, mut goes) = (spec(2), spec(3));
    goes.preshared_key = Some(PresharedKey::generate());
    let both = [stays.clone(), goes.clone()];
    let path = start(&settings, "wg0", &key, &config(), &both).unwrap();
    let peers = std::fs::read_to_string(directory.path().join("run/peers.conf")).unwrap();
    assert!(
        peers.contains("AllowedIPs = 10.8.0.3/32, fd00:8::3/128") && peers.contains("PresharedKey")
    );
    path.send(Input::SetPeers(both.to_vec()));
    path.send(Input::SetPeers(vec![stays]));
    path.stop();
    let calls = std::fs::read_to_string(directory.path().join("calls")).unwrap();
    assert_eq!(
        calls,
        "up revoked= peers=2\nsync revoked=10.8.0.3 peers=1\ndown revoked= peers=1\n"
    );
    let variables = std::fs::read_to_string(directory.path().join("variables")).unwrap();
    assert!(
        variables.contains("SERVER_ADDRESSES=10.8.0.1/24, fd00:8::1/64"),
        "{variables}"
    );
    assert!(variables.contains("SERVER_PORTS=443,500"), "{variables}");
    assert!(
        !directory.path().join("run/private.key").exists(),
        "the key is not left behind"
    );
}

#[test]
fn a_data_path_that_cannot_be_had_says_why_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = recorder(directory.path());
    std::fs::write(directory.path().join("fail-up"), "").unwrap();
    let error = match start(&settings, "wg0", &PrivateKey::generate(), &config(), &[]) {
        Ok(_) => panic!("it cannot have worked"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("Operation not permitted"), "{error}");
    let calls = std::fs::read_to_string(directory.path().join("calls")).unwrap();
    assert!(calls.contains("down"), "{calls}");
    assert!(!directory.path().join("run/private.key").exists());
}
