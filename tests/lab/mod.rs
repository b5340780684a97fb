//! A small internet of its own for each end-to-end test.
//!
//! ```text
//!  client 198.51.100.2 ─┐
//!  client 198.51.100.3 ─┴─ 198.51.100.1 [host] 203.0.113.1 ── 203.0.113.10 [internet]
//! ```
//!
//! Each box is a set of network, mount and process namespaces. `host` is where the handler and
//! the gateway run: it neither forwards nor translates, and has no `/dev/net/tun`.
//!
//! Invariant: nothing outlives the test process, however it ends. A box lives as long as a pipe
//! that the test holds; when that closes, the kernel ends every process in the box and takes the
//! interfaces away. Nothing is named outside the boxes, so tests cannot collide.

mod capture;
mod client;
mod conf;
mod far;
mod gateway;
mod handler;
mod host;
mod http;
mod internet;
mod namespace;
pub mod packet;
mod raw_peer;
mod services;
mod traffic;

use std::time::{Duration, Instant};

pub use capture::Capture;
pub use client::{Client, Userspace};
pub use conf::Conf;
pub use far::Far;
pub use gateway::{Documents, Gateway, config_for};
pub use handler::Handler;
pub use host::{Host, OUTER, Rights, Settings, UDP_PORT};
pub use http::{Answer, Request};
pub use internet::{FORBIDDEN, Internet};
pub use namespace::{Finished, Namespace};
pub use raw_peer::RawPeer;
pub use services::{Arrival, TALK_BYTES};
pub use traffic::{Echo, Transfer, connect};

/// A host, an internet and the cables between them.
#[derive(Debug)]
pub struct Lab {
    pub internet: Internet,
    pub host: Host,
}

impl Lab {
    /// A lab whose host allows what `settings` says.
    pub fn new(settings: Settings) -> Self {
        namespace::require_tools();
        let internet = Internet::new();
        let host = Host::new(settings);
        host.connect_to(&internet);
        Self { internet, host }
    }

    /// A further machine on the clients' network.
    pub fn client(&self) -> Client {
        Client::new(&self.host)
    }
}

/// Asks again and again until there is an answer. Panics, naming `what`, when patience ends.
pub fn eventually<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            begun.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The hexadecimal SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `length` bytes that are the same in every test and never repeat with the period of a packet.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
