//! Start, stop, status and peers: read, decide, persist, act.
//!
//! Invariant: documents are written with the version that was read, and the outside world is
//! changed only under a claim in the lease document. Whatever is interrupted between the two is
//! finished by the next caller or by the tick.

mod commit;
mod peers;
mod reconcile;
mod start;
mod stop;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use ipnet::Ipv4Net;
use popup_model::{LeaseId, Region, ServerConfig, TunnelNetworks};
use popup_store::DocumentStore;
use rand::Rng as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::documents::{Documents, Versioned};
use super::status::StatusView;
use super::{Backend, Clock};
use crate::error::Error;

pub(super) use reconcile::View;
pub(super) use start::endpoint;

pub use peers::Removed;
pub use start::Started;

/// What the control plane is told once.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where a VPN may run; the first is the default.
    pub regions: Vec<Region>,
    /// The IPv4 network inside the tunnel.
    pub network: Ipv4Net,
    /// UDP ports; the first is the one in `Endpoint`.
    pub ports: Vec<u16>,
    /// How long a start waits for the gateway.
    pub start_wait: Duration,
    /// How long a stop waits for its end.
    pub stop_wait: Duration,
    /// How long removing a peer waits for the gateway to have done so.
    pub apply_wait: Duration,
    /// How often to look while waiting.
    pub poll: Duration,
    /// How long a claim holds: longer than any create or delete takes.
    pub operation_time: Duration,
}

/// The control plane.
#[derive(Debug)]
pub struct Service {
    documents: Documents,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    options: Options,
    shutdown: watch::Sender<bool>,
    /// The lease of the last gateway that this process has made in a region.
    created: Mutex<HashMap<Region, LeaseId>>,
}

impl Service {
    /// Over these neighbours.
    pub fn new(
        store: Arc<dyn DocumentStore>,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        let (shutdown, _) = watch::channel(false);
        Self {
            documents: Documents::new(store),
            backend,
            clock,
            options,
            shutdown,
            created: Mutex::default(),
        }
    }

    /// Lets those who wait answer with what they have.
    pub fn begin_shutdown(&self) {
        self.shutdown.send_replace(true);
    }

    /// What runs in a region, and for whom.
    pub async fn status(&self, region: Option<&Region>) -> Result<StatusView, Error> {
        let region = self.allowed(region)?;
        let view = self.look(&region).await?;
        let config = self.config().await?;
        Ok(StatusView::new(&view, &config.document))
    }

    /// Does what the plan says in every region, in all of them at once. A region that fails or is
    /// slow does not hold up the others, and those that failed are returned.
    pub async fn tick(&self) -> Vec<(Region, Error)> {
        let of = |region: &Region| {
            let region = region.clone();
            async move {
                let error = self.reconcile(&region).await.err()?;
                warn!(%region, error = error.internal(), "the region could not be reconciled");
                Some((region, error))
            }
        };
        if let Err(error) = self.forget_unanswered().await {
            warn!(
                error = error.internal(),
                "peers of dead starts stay for now"
            );
        }
        let outcomes = join_all(self.options.regions.iter().map(of)).await;
        outcomes.into_iter().flatten().collect()
    }

    /// Deletes what still runs in regions that are no longer among the settings.
    pub async fn remove_strays(&self) -> Result<(), Error> {
        let outcome = self.backend.remove_strays(&self.options.regions).await;
        outcome.map_err(reconcile::unavailable)
    }

    fn allowed(&self, region: Option<&Region>) -> Result<Region, Error> {
        let regions = &self.options.regions;
        match region {
            None => regions.first().cloned().ok_or_else(|| {
                Error::ConfigurationInvalid("REGIONS must name at least one region".to_owned())
            }),
            Some(region) if regions.contains(region) => Ok(region.clone()),
            Some(region) => {
                let allowed: Vec<&str> = regions.iter().map(Region::as_str).collect();
                let allowed = allowed.join(", ");
                Err(Error::RegionNotAllowed {
                    region: region.clone(),
                    allowed,
                })
            }
        }
    }

    /// The server configuration, made in memory from the settings where there is none yet.
    async fn config(&self) -> Result<Versioned<ServerConfig>, Error> {
        let new = || {
            let networks = TunnelNetworks::with_random_ula(self.options.network)?;
            Ok(ServerConfig::new(networks, self.options.ports.clone()))
        };
        self.documents.config(new).await
    }

    /// Waits, or returns at once when the handler is about to end.
    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = sleep(duration) => {}
            () = self.shut_down() => {}
        }
    }

    /// Waits a little after losing to another writer, each loser for another time.
    async fn yield_to_others(&self) {
        let micros = rand::rng().random_range(1_000..20_000);
        sleep(Duration::from_micros(micros)).await;
    }

    /// Waits for the handler to be about to end.
    async fn shut_down(&self) {
        let mut shutdown = self.shutdown.subscribe();
        // The sender is this service's own.
        let _ = shutdown.wait_for(|down| *down).await;
    }

    fn is_shutting_down(&self) -> bool {
        *self.shutdown.borrow()
    }

    fn created(&self) -> MutexGuard<'_, HashMap<Region, LeaseId>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a gateway was made for this lease, though it may not have been seen since.
    fn has_created(&self, region: &Region, lease: &LeaseId) -> bool {
        self.created().get(region) == Some(lease)
    }
}

#[cfg(test)]
mod tests;
