//! The gateway as a NAT over AF_PACKET, with CAP_NET_RAW alone.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::packet::udp;
use crate::lab::{
    Capture, Client, Documents, Far, Gateway, Internet, Lab, RawPeer, Rights, Settings, Userspace,
    config_for, eventually, pattern, sha256,
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

#[test]
fn peers_do_not_reach_each_other_by_frames() {
    let lab = Lab::new(Settings::default());
    let gateway = Gateway::start_with(&lab.host, HOUR, Rights::NetRaw, &[RAW]);
    let (phone, laptop) = (gateway.add_peer("phone"), gateway.add_peer("laptop"));
    let (one, other) = (lab.client(), lab.client());
    one.up(&phone.0, Userspace::WireguardGo);
    other.up(&laptop.0, Userspace::WireguardGo);
    crate::carries(&one, Duration::from_secs(10));
    crate::carries(&other, Duration::from_secs(10));
    let address = laptop.address().to_string();
    let ping = one.run(5, &["ping", "-c1", "-W2", &address]);
    assert!(!ping.succeeded(), "{}", ping.text());
    eventually(crate::REPORTED, "the refusal is counted", || {
        (gateway.documents.drops("peer_to_peer_refused") > 0).then_some(())
    });
}

#[test]
fn traceroute_shows_the_gateway_the_router_and_the_server() {
    with_raw_client(|lab, _, client| {
        let _far = Far::behind(&lab.internet);
        for probe in ["--sim-queries=1", "--icmp", "--tcp"] {
            let trace = client.run(
                30,
                &["traceroute", "-n", "-q1", "-w3", "-m6", probe, Far::ADDRESS],
            );
            let hops: Vec<String> = trace
                .stdout()
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
                .collect();
            let expected = ["10.8.0.1", Internet::ADDRESS, Far::ADDRESS];
            assert_eq!(hops, expected, "{probe}: {}", trace.text());
        }
    });
}

#[test]
fn a_client_learns_of_a_narrow_link_behind_the_gateway() {
    with_raw_client(|lab, _, client| {
        let _far = Far::behind(&lab.internet);
        let bytes = pattern(3_000_000);
        let file = client.directory().join("narrow");
        std::fs::write(&file, &bytes).unwrap();
        let upload = client
            .curl(
                60,
                &[
                    "--upload-file",
                    &file.display().to_string(),
                    &format!("http://{}/", Far::ADDRESS),
                ],
            )
            .expect("an upload over the narrow link");
        let expected = format!("{} {}\n", bytes.len(), sha256(&bytes));
        assert_eq!(upload.stdout(), expected);
        let route = client
            .run(5, &["ip", "route", "get", Far::ADDRESS])
            .stdout();
        assert!(route.contains(&format!("mtu {}", Far::MTU)), "{route}");
    });
}

/// With the offloads of the cable off, so that frames cross it as they would cross a real one.
#[test]
fn the_wire_shows_packets_without_fault_and_no_reset_by_the_gateways_system() {
    with_raw_client(|lab, _, client| {
        lab.host
            .namespace
            .shell("ethtool -K internet tx off gro off");
        let router = lab.internet.namespace();
        router.shell("ethtool -K host tx off gro off");
        let capture = Capture::begin(router, "host");
        let url = format!("http://{}/bytes/3000000", Internet::NAME);
        let file = client.directory().join("wire");
        let path = file.display().to_string();
        client.curl(30, &["--output", &path, &url]).expect("down");
        client
            .curl(30, &["--upload-file", &path, &url])
            .expect("up");
        crate::browsing::udp_echoes(client, 3);
        crate::browsing::two_hundred_connections_live_at_once(client);
        client
            .run(10, &["ping", "-c2", "-i0.2", Internet::ADDRESS])
            .expect("ping");
        let captured = capture.end();

        let from_gateway = captured.matching("ip.src == 203.0.113.1 && tcp.len > 1000");
        assert!(from_gateway.len() > 2000, "{} segments", from_gateway.len());
        for fault in [
            "ip.checksum.status == 0 || tcp.checksum.status == 0",
            "udp.checksum.status == 0 || icmp.checksum.status == 0",
            "_ws.malformed || tcp.analysis.out_of_order || tcp.analysis.lost_segment",
            "tcp.flags.reset == 1",
            "icmp.type == 3 && icmp.code == 3",
        ] {
            let filter = format!("ip.src == 203.0.113.1 && ({fault})");
            let faults = captured.matching(&filter);
            assert!(faults.is_empty(), "{fault}: {faults:#?}");
        }
        let checked = captured.matching("tcp.checksum.status == 1");
        assert!(checked.len() > 4000, "{} checksums", checked.len());
    });
}

#[test]
fn the_first_packet_for_an_unknown_neighbour_is_not_lost() {
    with_raw_client(|lab, _, client| {
        lab.host.namespace.shell("ip neighbour flush dev internet");
        let ping = client.run(5, &["ping", "-c1", "-W3", Internet::DNS]);
        ping.expect("the only ping");
    });
}

#[test]
fn a_neighbour_that_gets_another_ethernet_address_is_found_again() {
    with_raw_client(|lab, _, client| {
        // Linux believes a neighbour for 15 to 45 s; this one shall do so for a second.
        lab.host.namespace.shell(
            "cd /proc/sys/net/ipv4/neigh/internet
             echo 1000 >base_reachable_time_ms
             echo 1 >delay_first_probe_time
             ip neighbour flush dev internet",
        );
        crate::carries(client, Duration::from_secs(10));
        lab.internet
            .namespace()
            .shell("ip link set host address 02:00:00:00:00:77");
        crate::carries(client, Duration::from_secs(60));
    });
}

/// A lab with a gateway in raw mode, and a client that keeps bursts, which a real one does not. It
/// has spoken to a server on the internet, and been seen by it with that address.
fn with_raw_peer(work: impl FnOnce(&Lab, &Gateway<'_>, &mut RawPeer, &UdpSocket, SocketAddr)) {
    let lab = Lab::new(Settings::default());
    let gateway = Gateway::start_with(&lab.host, HOUR, Rights::NetRaw, &[RAW]);
    let conf = gateway.add_peer("phone");
    let client = lab.client();
    let mut peer = RawPeer::new(&client, &conf);
    peer.keep_bursts();
    assert!(peer.shakes_hands(Duration::from_secs(5)));
    let open: Ipv4Addr = Internet::ADDRESS.parse().unwrap();
    let router = lab.internet.namespace();
    let server = router.enter(|| UdpSocket::bind((open, 4000)).unwrap());
    server
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    peer.send(&udp((peer.address(), 5000), (open, 4000), b"begin"));
    let (_, mapped) = server.recv_from(&mut [0; 10]).unwrap();
    work(&lab, &gateway, &mut peer, &server, mapped);
}

/// Many datagrams at once, first up and then down, which arrive as they were sent.
fn exchange(server: &UdpSocket, mapped: SocketAddr, peer: &mut RawPeer, gateway: &Gateway<'_>) {
    const COUNT: u8 = 40;
    let SocketAddr::V4(there) = server.local_addr().unwrap() else {
        unreachable!("bound to IPv4");
    };
    let marked = |mark: u8| [mark; 1000];
    gateway.signal(Signal::STOP);
    for mark in 0..COUNT {
        peer.send(&udp(
            (peer.address(), 5000),
            (*there.ip(), there.port()),
            &marked(mark),
        ));
    }
    gateway.signal(Signal::CONT);
    let mut buffer = [0; 2000];
    for mark in 0..COUNT {
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&marked(mark)[..], mapped));
    }
    for mark in 0..COUNT {
        server.send_to(&marked(mark), mapped).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    for mark in 0..COUNT {
        let packet = peer.receive(deadline).expect("an answer");
        assert_eq!(packet[28..], marked(mark), "{mark}");
    }
}

fn kernel_release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn datagrams_that_follow_each_other_cross_the_neighbours_cable_together() {
    with_raw_peer(|lab, gateway, peer, server, mapped| {
        let router = lab.internet.namespace();

        // Cards that join what arrives within a millisecond.
        router.shell("ethtool -K host tso off");
        lab.host.namespace.shell(
            "ethtool -K internet gro on
             mount -t sysfs sysfs /sys
             echo 1000000 >/sys/class/net/internet/gro_flush_timeout
             echo 100 >/sys/class/net/internet/napi_defer_hard_irqs",
        );
        // To a neighbour that the system must find first, and to one that is known.
        lab.host.namespace.shell("ip neighbour flush dev internet");
        exchange(server, mapped, peer, gateway);
        let capture = Capture::begin(&lab.host.namespace, "internet");
        exchange(server, mapped, peer, gateway);
        let captured = capture.end();
        let long =
            |source: &str| captured.matching(&format!("ip.src == {source} && ip.len > 2000"));
        let (up, down) = (long("203.0.113.1"), long(Internet::ADDRESS));
        let takes_trains = kernel_release() >= (6, 2);
        assert_eq!(!up.is_empty(), takes_trains, "{}", gateway.log());
        assert_eq!(!down.is_empty(), takes_trains, "{}", gateway.log());
    });
}

/// More than one socket of a process without privileges can keep.
#[test]
fn a_burst_that_finds_the_gateway_busy_waits_and_stays_in_order() {
    const BURST: u32 = 600;
    with_raw_peer(|_, gateway, peer, server, mapped| {
        gateway.signal(Signal::STOP);
        for number in 0..BURST {
            let mut datagram = [0; 1200];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            server.send_to(&datagram, mapped).unwrap();
        }
        gateway.signal(Signal::CONT);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut arrived = Vec::new();
        while arrived.len() < BURST as usize
            && let Some(packet) = peer.receive(deadline)
        {
            if packet.len() == 1228 {
                arrived.push(u32::from_be_bytes(packet[28..32].try_into().unwrap()));
            }
        }
        assert_eq!(arrived, (0..BURST).collect::<Vec<_>>());
    });
}
