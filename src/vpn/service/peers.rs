//! Listing and removing peers.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use popup_model::{Peer, PeerName, Region, StatusDocument};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::Service;
use crate::error::Error;
use crate::vpn::peers;
use crate::vpn::status::PeerView;

/// A peer that is no longer.
#[derive(Debug)]
pub struct Removed {
    /// As it was.
    pub peer: Peer,
    /// Whether every gateway that runs has dropped it; else it will when it reads again.
    pub applied: bool,
}

impl Service {
    /// Everybody who may connect, in the order they were added, as seen from a region. The backend
    /// is not asked: peers can be listed and removed while it cannot be reached.
    pub async fn peers(&self, region: Option<&Region>) -> Result<Vec<PeerView>, Error> {
        let region = self.allowed(region)?;
        let lease = self.documents.lease(&region).await?.document.lease;
        let status = self.documents.status(&region).await.unwrap_or_default();
        let current = |status: &StatusDocument| {
            lease
                .as_ref()
                .is_some_and(|lease| lease.id == status.lease_id)
        };
        let status = status.filter(current);
        let (config, now) = (self.config().await?.document, self.clock.now());
        let view = |peer| PeerView::new(peer, status.as_ref(), now);
        Ok(config.peers.iter().map(view).collect())
    }

    /// Removes a peer and waits until no gateway knows it.
    pub async fn remove_peer(&self, name: &PeerName) -> Result<Removed, Error> {
        let deadline = Instant::now() + self.options.apply_wait;
        let (peer, revision) = loop {
            let mut config = self.config().await?;
            let peer = peers::remove(&mut config.document, name)?;
            if self.documents.save_config(&mut config).await? {
                break (peer, config.document.revision);
            }
            if Instant::now() >= deadline {
                return Err(Error::Busy);
            }
            self.yield_to_others().await;
        };
        info!(peer = %name, revision, "a peer was removed");
        loop {
            let applied = timeout_at(deadline, self.is_applied_everywhere(revision)).await;
            let applied = applied.unwrap_or(false);
            if applied || Instant::now() >= deadline || self.is_shutting_down() {
                return Ok(Removed { peer, applied });
            }
            self.pause(self.options.poll).await;
        }
    }

    /// Notes that a peer's start is answered, however often storage has to be asked.
    pub(super) async fn confirm(
        self: Arc<Self>,
        peer: Peer,
        until: Timestamp,
    ) -> Result<(), Error> {
        loop {
            let outcome = async {
                let mut config = self.config().await?;
                match peers::confirm(&mut config.document, &peer) {
                    None => Err(Error::PeerChanged(peer.name.clone())),
                    Some(false) => Ok(true),
                    Some(true) => self.documents.save_config(&mut config).await,
                }
            };
            match outcome.await {
                Ok(true) => return Ok(()),
                Ok(false) => self.yield_to_others().await,
                Err(Error::StorageUnavailable(error)) if self.clock.now() < until => {
                    warn!(peer = %peer.name, %error, "noting an answer again");
                    sleep(self.options.poll).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes back the peers of starts that died before their answer.
    pub(super) async fn forget_unanswered(&self) -> Result<(), Error> {
        loop {
            let mut config = self.config().await?;
            if !peers::forget_unanswered(&mut config.document, self.clock.now()) {
                return Ok(());
            }
            if self.documents.save_config(&mut config).await? {
                info!("peers of starts that were never answered are gone");
                return Ok(());
            }
            self.yield_to_others().await;
        }
    }

    async fn is_applied_everywhere(&self, revision: u64) -> bool {
        let regions = self.options.regions.iter();
        let applied = join_all(regions.map(|region| self.is_applied_in(region, revision)));
        applied.await.into_iter().all(|applied| applied)
    }

    async fn is_applied_in(&self, region: &Region, revision: u64) -> bool {
        let Ok(lease) = self.documents.lease(region).await else {
            return false;
        };
        let Some(lease) = lease.document.lease else {
            return true;
        };
        let status = self.documents.status(region).await.unwrap_or_default();
        status.is_some_and(|status| {
            let ended = status.ended.is_some();
            status.lease_id == lease.id && (ended || status.config_revision >= revision)
        })
    }
}
