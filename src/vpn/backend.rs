//! Where gateways run: a child process here, a container group in Azure.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use popup_model::document::GatewayAccess;
use popup_model::{Lease, LeaseId, Region, ServerConfig};

use tokio::time::Instant;

use super::Host;

/// Makes, finds and deletes gateways. It decides nothing.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Looks at what is there now.
    async fn observe(&self, region: &Region) -> Result<Sighting, BackendError>;

    /// Makes a gateway that runs under `lease`. Nothing is there when this is called. Nothing is
    /// asked for at `until` or later: others may act from then on.
    async fn create(
        &self,
        region: &Region,
        lease: &Lease,
        config: &ServerConfig,
        until: Instant,
    ) -> Result<(), BackendError>;

    /// Deletes whatever is there; fine when nothing is. Nothing is asked for at `until` or later,
    /// when there may be another gateway.
    async fn delete(&self, region: &Region, until: Instant) -> Result<(), BackendError>;

    /// Whether the host of a gateway that runs leads clients to it by now.
    async fn is_reachable(&self, _sighting: &Sighting) -> bool {
        true
    }

    /// What lets the gateway of an extended lease go on reading and reporting, where it has no
    /// identity of its own.
    fn renewed_access(&self, _lease: &Lease) -> Option<GatewayAccess> {
        None
    }

    /// Deletes what was made in regions other than these.
    async fn remove_strays(&self, _regions: &[Region]) -> Result<(), BackendError> {
        Ok(())
    }
}

/// What a backend sees in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The container group, or the child process.
    pub group: Group,
    /// When the process in it was started, where the platform tells.
    pub started_at: Option<Timestamp>,
    /// How clients reach it, where known.
    pub host: Option<Host>,
    /// The address behind `host`, where known.
    pub public_ip: Option<IpAddr>,
}

/// The place in which a gateway runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// Nothing is there.
    Absent,
    /// Something is there.
    Present {
        /// The lease it was made for; absent when it is not ours to read.
        lease: Option<LeaseId>,
        /// How far it is.
        phase: Phase,
    },
}

/// The life of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// On its way, or about to be restarted by the backend.
    Starting,
    /// The process runs; whether it is ready is in its status.
    Running,
    /// On its way out.
    Stopping,
    /// The process ended with exit code 0 and stays down; with what the platform can tell of it.
    Ended(Option<String>),
    /// It cannot run, and the platform says why.
    Failed(String),
}

/// Why a backend did not do as asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the gateway in {region}: {source}")]
pub struct BackendError {
    /// `observe`, `create` or `delete`.
    pub operation: &'static str,
    /// Where.
    pub region: Region,
    /// Trying again cannot help; the text of `source` is then fit for the caller.
    pub permanent: bool,
    /// How long the platform wants to be left alone, when it limits how often it is asked.
    pub retry_after: Option<Duration>,
    /// What went wrong.
    pub source: Box<dyn Error + Send + Sync>,
}
