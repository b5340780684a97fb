//! The product end to end: real WireGuard clients, real sockets, no privileges for the gateway.
//!
//! Each test builds a lab of its own ([`lab`]) and needs root for that; the programs under test
//! run as uid 65534 with an empty capability set.

#![expect(unreachable_pub, reason = "the lab is written like a library")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and then prints what the programs said"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod attack;
mod browser;
mod browsing;
mod check;
mod egress;
mod failures;
mod lab_itself;
mod lifecycle;
mod peers;
mod raw;
mod streams;
mod uapi;

use std::time::Duration;

use lab::{Client, Handler, Internet, Lab, Settings, Userspace, eventually};

/// How long a client may take to notice that its gateway is a new process: a WireGuard client
/// begins a new handshake 15 s after it has sent something that nobody answered, and tries again
/// every 5 s.
const NEW_SESSION: Duration = Duration::from_secs(45);

/// How long the gateway's counters may take to reach the status document, which it writes every
/// 15 s when nothing of importance has changed.
const REPORTED: Duration = Duration::from_secs(40);

/// Whether a ping through the tunnel is answered within a second or so.
fn pings(client: &Client) -> bool {
    client
        .run(3, &["ping", "-c1", "-W1", Internet::ADDRESS])
        .succeeded()
}

/// Waits until the tunnel carries packets.
#[track_caller]
fn carries(client: &Client, patience: Duration) {
    eventually(patience, "the tunnel carries a ping", || {
        pings(client).then_some(())
    });
}

/// A lab with a running VPN and one client that is connected to it.
fn with_client(work: impl FnOnce(&Lab, &Handler<'_>, &Client)) {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let client = lab.client();
    client.up(&conf.0, Userspace::WireguardGo);
    carries(&client, Duration::from_secs(10));
    work(&lab, &handler, &client);
}
