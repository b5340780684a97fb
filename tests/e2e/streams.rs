//! TCP through the gateway is still TCP: halves close one by one, and nobody is overrun.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use crate::lab::{Internet, TALK_BYTES, connect, eventually, pattern, sha256};
use crate::with_client;

#[test]
fn a_client_that_has_said_everything_still_hears_the_answer() {
    with_client(|_, _, client| {
        let bytes = pattern(2_000_000);
        let mut stream = connect(
            client,
            &format!("{}:9", Internet::ADDRESS),
            Duration::from_secs(5),
        )
        .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{} {}\n", bytes.len(), sha256(&bytes)));
    });
}

#[test]
fn a_server_that_has_said_everything_still_hears_the_client() {
    with_client(|lab, _, client| {
        let mut stream = connect(
            client,
            &format!("{}:19", Internet::ADDRESS),
            Duration::from_secs(5),
        )
        .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(sha256(&heard), sha256(&pattern(TALK_BYTES)));
        let bytes = pattern(1_500_000);
        stream.write_all(&bytes).unwrap();
        drop(stream);
        let report = eventually(Duration::from_secs(20), "the talker hears the end", || {
            lab.internet.heard().pop()
        });
        assert_eq!(report, format!("{} {}", bytes.len(), sha256(&bytes)));
    });
}

#[test]
fn what_follows_something_urgent_is_heard_at_once() {
    with_client(|_, _, client| {
        let server = format!("{}:20", Internet::ADDRESS);
        let mut stream = connect(client, &server, Duration::from_secs(5)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut heard = vec![0; TALK_BYTES + b"after all".len()];
        stream.read_exact(&mut heard).unwrap();
        assert!(heard.ends_with(b"after all"));
        assert!(heard.starts_with(&pattern(TALK_BYTES)));
    });
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_loses_nothing() {
    const LENGTH: usize = 64_000_000;
    with_client(|lab, _, client| {
        let mut stream = connect(
            client,
            &format!("{}:80", Internet::ADDRESS),
            Duration::from_secs(5),
        )
        .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(stream, "GET /bytes/{LENGTH} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let sent = lab.internet.sent_bytes_when_stuck();
        assert!(
            sent < LENGTH as u64 / 2,
            "{sent} bytes were taken although nobody reads"
        );
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let body = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap()
            + 4;
        assert_eq!(answer.len() - body, LENGTH);
        assert_eq!(sha256(&answer[body..]), sha256(&pattern(LENGTH)));
    });
}

#[test]
fn a_reset_by_the_client_ends_the_outside_connection() {
    with_client(|lab, _, client| {
        let stream = connect(
            client,
            &format!("{}:7", Internet::ADDRESS),
            Duration::from_secs(5),
        )
        .unwrap();
        assert_eq!(lab.host.outside_connections(), 1);
        let socket = socket2::Socket::from(stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(socket);
        eventually(
            Duration::from_secs(5),
            "the outside connection is gone",
            || (lab.host.outside_connections() == 0).then_some(()),
        );
    });
}
