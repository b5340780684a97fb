//! Listing and removing peers.

use std::sync::Arc;

use jiff::Timestamp;
use popup_model::{Peer, PeerName, Region};
use tokio::time::{Instant, sleep};
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
    /// Everybody who may connect, in the order they were added, as seen from a region.
    pub async fn peers(&self, region: Option<&Region>) -> Result<Vec<PeerView>, Error> {
        Ok(self.status(region).await?.peers)
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
        while !self.is_applied_everywhere(revision).await {
            if Instant::now() >= deadline || self.is_shutting_down() {
                return Ok(Removed {
                    peer,
                    applied: false,
                });
            }
            self.pause(self.options.poll).await;
        }
        Ok(Removed {
            peer,
            applied: true,
        })
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
                match peers::confirm(&mut config.document, &peer.public_key) {
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
        for region in &self.options.regions {
            let Ok(lease) = self.documents.lease(region).await else {
                return false;
            };
            let Some(lease) = lease.document.lease else {
                continue;
            };
            let status = self.documents.status(region).await;
            let applied = status.is_some_and(|status| {
                let ended = status.ended.is_some();
                status.lease_id == lease.id && (ended || status.config_revision >= revision)
            });
            if !applied {
                return false;
            }
        }
        true
    }
}
