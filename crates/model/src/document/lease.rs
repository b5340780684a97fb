//! `<region>.lease.json`: the right to run. The handler writes it; the gateway obeys it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Control, Extra, SCHEMA};
use crate::{LeaseId, Region};

/// Whether a gateway may run in a region, until when, and why the last one stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseDocument {
    /// The schema major, [`SCHEMA`].
    pub schema: u32,
    /// Where.
    pub region: Region,
    /// The lease in force; absent when the VPN is to be stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What the handler is in the middle of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Signatures by which the gateway reads and reports for longer than the ones it was started
    /// with; there after an extension, where it has no identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<GatewayAccess>,
    /// How the one before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stop: Option<LastStop>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The right of one gateway to run until `expires_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Fresh at every start: a gateway that finds another id here exits.
    pub id: LeaseId,
    /// When the VPN was asked for.
    pub started_at: Timestamp,
    /// When the gateway ends by itself and the handler deletes it.
    pub expires_at: Timestamp,
    /// After how long without inner payload the VPN is stopped; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<u64>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An operation on the outside world that somebody has begun; others leave it alone until its
/// deadline has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Fresh for every operation.
    pub id: LeaseId,
    /// When it may be taken over.
    pub deadline: Timestamp,
    /// What is done under it.
    #[serde(default)]
    pub work: Work,
}

/// What an operation does to the outside world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Nothing yet: a start writes its documents.
    Begin,
    /// Makes a gateway.
    Create,
    /// Deletes one.
    Delete,
    /// Something that another version does not name, or does not know.
    #[default]
    #[serde(other)]
    Other,
}

/// Shared access signatures for a gateway. Whoever reads the document that holds them has them,
/// and had to have one like them to read it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayAccess {
    /// For `control`.
    pub control: String,
    /// For `status`.
    pub status: String,
}

impl fmt::Debug for GatewayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayAccess(hidden)")
    }
}

/// How and when a VPN stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStop {
    /// Which lease ended.
    pub lease_id: LeaseId,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: StopReason,
    /// More, for a person: what the gateway said when it gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Why a VPN stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody asked for it.
    Requested,
    /// The lease's time was up.
    LifetimeOver,
    /// No inner payload for the idle timeout.
    Idle,
    /// The local handler was shut down, and its gateway with it.
    HandlerStopped,
    /// The gateway gave up or could not be started.
    Failed,
    /// A reason of a later version.
    #[serde(other)]
    Other,
}

impl LeaseDocument {
    /// A document for a region where nothing has ever run.
    pub fn new(region: Region) -> Self {
        Self {
            schema: SCHEMA,
            region,
            lease: None,
            operation: None,
            access: None,
            last_stop: None,
            extra: Extra::new(),
        }
    }
}

impl Control for LeaseDocument {
    const KIND: &'static str = "lease.json";
}
