//! `<region>.status.json`: what the gateway says of itself. The gateway writes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Control, Extra};
use crate::{LeaseId, PublicKey, Region};

/// The gateway's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// The schema major, [`super::SCHEMA`].
    pub schema: u32,
    /// Where it runs.
    pub region: Region,
    /// The lease it runs under. A status of another lease is not to be believed.
    pub lease_id: LeaseId,
    /// Fresh at every start of the process.
    pub boot_id: LeaseId,
    /// When the process started.
    pub started_at: Timestamp,
    /// When this was written, by the gateway's own clock.
    pub updated_at: Timestamp,
    /// The interface's public key; absent only when the gateway ended before it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// How packets leave: `socket`, `raw` or `kernel`.
    pub mode: String,
    /// Why that mode and not a better one.
    pub mode_reason: String,
    /// Whether handshakes are answered.
    pub ready: bool,
    /// The revision of `config.json` that is in force.
    pub config_revision: u64,
    /// When a peer last sent inner payload; absent when none has since the lease began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_at: Option<Timestamp>,
    /// One entry for each peer.
    pub peers: Vec<PeerStatus>,
    /// Dropped packets by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Live flows by kind (`tcp`, `udp`, `icmp`).
    #[serde(default)]
    pub flows: BTreeMap<String, u64>,
    /// The gateway's version.
    pub version: String,
    /// Set by the last write of a process that ends on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<End>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What the gateway knows of one peer. Bytes are counted as the gateway sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Who.
    pub public_key: PublicKey,
    /// Where its last authenticated datagram came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// When a handshake last completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_handshake: Option<Timestamp>,
    /// Bytes received from it, cumulative over restarts.
    pub rx_bytes: u64,
    /// Bytes sent to it, cumulative over restarts.
    pub tx_bytes: u64,
}

/// The end of a gateway process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// Why: `lease_over`, `terminated`, `bad_configuration`. A fenced gateway says nothing: the
    /// document belongs to the next lease.
    pub reason: String,
    /// More, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Control for StatusDocument {
    const KIND: &'static str = "status.json";
}
