//! What cannot be reached is said to be so at once, as the internet itself would say it.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::lab::{Client, Handler, Internet, Lab, Settings, Userspace, connect};
use crate::with_client;

/// How a connection attempt from the client fails, and how soon.
fn refusal(client: &Client, to: &str) -> (ErrorKind, Duration) {
    let begun = Instant::now();
    let error = connect(client, to, Duration::from_secs(20)).expect_err(to);
    (error.kind(), begun.elapsed())
}

#[test]
fn a_refused_connection_is_refused_within_a_second() {
    with_client(|_, _, client| {
        let (kind, took) = refusal(client, &format!("{}:81", Internet::ADDRESS));
        assert_eq!(kind, ErrorKind::ConnectionRefused);
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn an_unreachable_host_is_known_within_seconds() {
    with_client(|_, _, client| {
        let (kind, took) = refusal(client, &format!("{}:80", Internet::UNREACHABLE));
        let unreachable = [
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::ConnectionRefused,
        ];
        assert!(unreachable.contains(&kind), "{kind:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
    });
}

#[test]
fn a_silent_host_is_never_said_to_have_answered() {
    with_client(|_, _, client| {
        let error = connect(
            client,
            &format!("{}:80", Internet::BLACK_HOLE),
            Duration::from_secs(4),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn ipv6_is_unreachable_at_once() {
    with_client(|_, _, client| {
        let (kind, took) = refusal(client, "[2001:db8::1]:80");
        let unreachable = [
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::PermissionDenied,
        ];
        assert!(unreachable.contains(&kind), "{kind:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_retransmitted_syn_opens_no_second_connection() {
    with_client(|lab, _, client| {
        let mut echo = crate::lab::Echo::open(client).unwrap();
        echo.exchange(b"one").unwrap();
        let connections = lab
            .internet
            .arrivals()
            .iter()
            .filter(|arrival| arrival.protocol == "tcp")
            .count();
        assert_eq!(connections, 1);
    });
}

#[test]
fn without_ping_sockets_a_ping_is_answered_as_unreachable() {
    let lab = Lab::new(Settings {
        ping_sockets: false,
        ..Settings::default()
    });
    let handler = Handler::start(&lab.host);
    let client = lab.client();
    client.up(&handler.add_peer("phone").0, Userspace::WireguardGo);
    let url = format!("http://{}/", Internet::NAME);
    client
        .curl(15, &[&url])
        .expect("HTTP needs no ping sockets");
    let ping = client.run(10, &["ping", "-c1", "-W8", Internet::ADDRESS]);
    assert!(
        !ping.succeeded() && ping.took < Duration::from_secs(4),
        "{ping:?}"
    );
    let text = ping.text().to_lowercase();
    assert!(
        text.contains("unreachable") || text.contains("filtered") || text.contains("prohibited"),
        "{text}"
    );
    client
        .run(5, &["ping", "-c1", "-W2", "10.8.0.1"])
        .expect("the gateway itself answers without the system's help");
}

#[test]
fn a_mapping_hears_from_everybody_it_has_spoken_to() {
    with_client(|lab, _, client| {
        let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut buffer = [0; 100];
        for address in [Internet::ADDRESS, Internet::DNS] {
            socket.send_to(b"who am I", (address, 7)).unwrap();
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..count], from.ip().to_string().as_str()),
                (&b"who am I"[..], address)
            );
        }
        let udp = |arrival: &crate::lab::Arrival| {
            (arrival.protocol == "udp" && arrival.to.port() == 7).then_some(arrival.from)
        };
        let mut seen: Vec<_> = lab.internet.arrivals().iter().filter_map(udp).collect();
        seen.dedup();
        assert_eq!(
            seen.len(),
            1,
            "one outside address and port for both (RFC 4787, REQ-1): {seen:?}"
        );
    });
}
