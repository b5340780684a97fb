//! Looking, deciding and acting, until there is nothing to do right now.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use popup_model::document::Work;
use popup_model::{Lease, LeaseDocument, LeaseId, Region, StopReason};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, info, warn};

use super::Service;
use crate::error::Error;
use crate::vpn::backend::{BackendError, Sighting};
use crate::vpn::documents::Versioned;
use crate::vpn::lease;
use crate::vpn::plan::{Action, Observed, plan};

/// A gateway takes at most: finish, delete, create, look. The rest is for lost races.
const MAX_STEPS: usize = 16;
const MAX_CONFLICTS: usize = 100;
/// By how much whoever acts stops before others may, for clocks that differ.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);

/// What was read in one look. The lease document was read first, so that a claim written over
/// its version proves that nobody has acted since.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) lease: Versioned<LeaseDocument>,
    pub(crate) sighting: Sighting,
    pub(crate) observed: Observed,
    pub(crate) now: Timestamp,
}

/// The right to act in a region.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) id: LeaseId,
    /// When nothing may be asked for under it any more.
    pub(super) until: Instant,
}

impl View {
    /// The lease in force.
    pub(crate) fn current(&self) -> Option<&Lease> {
        self.lease.document.lease.as_ref()
    }

    /// Whether the gateway of the lease in force runs, and works with this configuration.
    pub(crate) fn is_ready(&self, revision: u64) -> bool {
        self.current()
            .filter(|lease| self.observed.is_running(lease))
            .and_then(|lease| self.observed.status_of(lease))
            .is_some_and(|status| {
                status.ready && status.ended.is_none() && status.config_revision >= revision
            })
    }

    /// Whether somebody is in the middle of something.
    pub(crate) fn is_claimed(&self) -> bool {
        lease::is_claimed(&self.lease.document, self.now)
    }
}

impl Service {
    pub(super) async fn look(&self, region: &Region) -> Result<View, Error> {
        let lease = self.documents.lease(region).await?;
        let sighting = self.backend.observe(region).await.map_err(unavailable)?;
        let status = self.documents.status(region).await;
        let is_status_known = status.is_ok();
        let observed = Observed {
            group: sighting.group.clone(),
            started_at: sighting.started_at,
            status: status.unwrap_or_default(),
            is_status_known,
        };
        Ok(View {
            lease,
            sighting,
            observed,
            now: self.clock.now(),
        })
    }

    /// Acts until the plan says to wait or that all is well, and returns what was seen last.
    pub(super) async fn reconcile(&self, region: &Region) -> Result<View, Error> {
        for _ in 0..MAX_STEPS {
            let view = self.look(region).await?;
            let done = match plan(&view.lease.document, &view.observed, view.now) {
                Action::Nothing | Action::Wait => return Ok(view),
                Action::Finish(reason, detail) => self.finish(view, reason, detail).await?,
                Action::Create => self.create(region, view).await?,
                Action::Delete => self.delete(region, view).await?,
            };
            if !done {
                self.yield_to_others().await;
            }
        }
        Err(Error::Busy)
    }

    /// The same in a task of its own: whoever has no time left leaves it to finish what it has
    /// begun. `None` when it has not come to an end by then.
    pub(super) async fn reconcile_until(
        self: &Arc<Self>,
        region: &Region,
        deadline: Instant,
    ) -> Option<Result<View, Error>> {
        let (service, region) = (Arc::clone(self), region.clone());
        let acting = async move { service.reconcile(&region).await };
        match timeout_at(deadline, tokio::spawn(acting.in_current_span())).await {
            Ok(Ok(outcome)) => Some(outcome),
            Ok(Err(error)) => Some(Err(Error::Internal(error.to_string()))),
            Err(_) => None,
        }
    }

    async fn finish(
        &self,
        view: View,
        reason: StopReason,
        detail: Option<String>,
    ) -> Result<bool, Error> {
        let mut lease = view.lease;
        lease::finish(&mut lease.document, view.now, reason, detail.clone());
        let saved = self.documents.save_lease(&lease).await?;
        if saved {
            let region = &lease.document.region;
            info!(%region, ?reason, detail, "the lease has ended");
        }
        Ok(saved)
    }

    async fn create(&self, region: &Region, view: View) -> Result<bool, Error> {
        let Some(lease) = view.current().cloned() else {
            return Ok(false);
        };
        let config = self
            .documents
            .config(|| {
                Err(Error::Internal(
                    "there is a lease, but no config.json".to_owned(),
                ))
            })
            .await?;
        let Some(Claim { id, until }) = self.claim(view, Work::Create).await? else {
            return Ok(false);
        };
        info!(%region, lease_id = %lease.id, "creating the gateway");
        match self
            .backend
            .create(region, &lease, &config.document, until)
            .await
        {
            Ok(()) => {
                self.created().insert(region.clone(), lease.id);
                self.release(region, &id, None).await?;
            }
            Err(error) if error.permanent => {
                let detail = error.source.to_string();
                warn!(%region, %error, "the gateway cannot be created");
                self.release(region, &id, Some((&lease.id, detail))).await?;
            }
            Err(error) => {
                self.release(region, &id, None).await?;
                return Err(unavailable(error));
            }
        }
        Ok(true)
    }

    async fn delete(&self, region: &Region, view: View) -> Result<bool, Error> {
        let Some(Claim { id, until }) = self.claim(view, Work::Delete).await? else {
            return Ok(false);
        };
        info!(%region, "deleting the gateway");
        let outcome = self.backend.delete(region, until).await;
        self.release(region, &id, None).await?;
        outcome.map(|()| true).map_err(unavailable)
    }

    /// Claims the region, if it is still as it was looked at.
    pub(super) async fn claim(&self, view: View, work: Work) -> Result<Option<Claim>, Error> {
        let id = LeaseId::generate();
        let mut lease = view.lease;
        let deadline = lease::later(view.now, self.options.operation_time);
        let left = Duration::try_from(deadline.duration_since(self.clock.now()));
        let until = Instant::now() + left.unwrap_or_default().saturating_sub(CLAIM_MARGIN);
        lease::claim(&mut lease.document, id.clone(), work, deadline);
        let saved = self.documents.save_lease(&lease).await?;
        Ok(saved.then_some(Claim { id, until }))
    }

    /// Ends a claim, and with it the lease `failed.0`, if that is still the one in force.
    pub(super) async fn release(
        &self,
        region: &Region,
        operation: &LeaseId,
        failed: Option<(&LeaseId, String)>,
    ) -> Result<(), Error> {
        for _ in 0..MAX_CONFLICTS {
            let mut lease = self.documents.lease(region).await?;
            let mut changed = lease::release(&mut lease.document, operation);
            if let Some((id, detail)) = &failed
                && lease
                    .document
                    .lease
                    .as_ref()
                    .is_some_and(|current| current.id == **id)
            {
                let (now, detail) = (self.clock.now(), Some(detail.clone()));
                changed |= lease::finish(&mut lease.document, now, StopReason::Failed, detail);
            }
            if !changed || self.documents.save_lease(&lease).await? {
                return Ok(());
            }
            self.yield_to_others().await;
        }
        Err(Error::Busy)
    }
}

pub(super) fn unavailable(error: BackendError) -> Error {
    match error.retry_after {
        Some(after) => {
            warn!(%error, "left alone for a while");
            Error::Throttled {
                after_s: after.as_secs().max(1),
            }
        }
        None if error.permanent => Error::BackendRefused(error.source.to_string()),
        None => Error::BackendUnavailable(error.into()),
    }
}
