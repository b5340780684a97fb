//! `wg show <interface> dump`: tab-separated, the interface first, then one line for each peer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use popup_model::PublicKey;

/// The most that a peer sends between two looks without having anything to say: a handshake
/// initiation (148 bytes) and a keepalive (32).
pub(super) const LARGEST_IDLE_BYTES: u64 = 148 + 32;

/// One peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dumped {
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) latest_handshake: Option<SystemTime>,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

/// The peers. A line that is not a peer's, as the first, is passed over.
pub(super) fn parse(text: &str) -> HashMap<PublicKey, Dumped> {
    text.lines().filter_map(peer).collect()
}

fn peer(line: &str) -> Option<(PublicKey, Dumped)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        key,
        _preshared,
        endpoint,
        _allowed,
        handshake,
        rx,
        tx,
        _keepalive,
    ] = fields[..]
    else {
        return None;
    };
    let handshake: u64 = handshake.parse().ok()?;
    let dumped = Dumped {
        endpoint: endpoint.parse().ok(),
        latest_handshake: (handshake > 0).then(|| UNIX_EPOCH + Duration::from_secs(handshake)),
        rx_bytes: rx.parse().ok()?,
        tx_bytes: tx.parse().ok()?,
    };
    Some((key.parse().ok()?, dumped))
}
