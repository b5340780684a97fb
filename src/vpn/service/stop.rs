//! A stop: the lease goes first, then the gateway.

use popup_model::{LastStop, Region, StopReason};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Service;
use super::reconcile::View;
use crate::error::Error;
use crate::vpn::{Group, lease};

impl Service {
    /// Stops the VPN in a region, or in all of them, and waits for the end; false when that takes
    /// longer. All leases go first, and a region that fails does not hold up the others.
    pub async fn stop(&self, region: Option<&Region>, reason: StopReason) -> Result<bool, Error> {
        let regions = match region {
            Some(_) => vec![self.allowed(region)?],
            None => self.options.regions.clone(),
        };
        let deadline = Instant::now() + self.options.stop_wait;
        let mut failed = None;
        let mut revoked = Vec::new();
        for region in regions {
            match self.end_lease(&region, reason, deadline).await {
                Ok(()) => revoked.push(region),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let mut stopped = true;
        for region in &revoked {
            match self.until_gone(region, deadline).await {
                Ok(gone) => stopped &= gone,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(stopped), Err)
    }

    async fn end_lease(
        &self,
        region: &Region,
        reason: StopReason,
        deadline: Instant,
    ) -> Result<(), Error> {
        loop {
            let view = self.look(region).await?;
            match self.revoke(view, reason).await? {
                true => return Ok(()),
                false if Instant::now() >= deadline => return Err(Error::Busy),
                false => self.yield_to_others().await,
            }
        }
    }

    async fn until_gone(&self, region: &Region, deadline: Instant) -> Result<bool, Error> {
        loop {
            let over = Instant::now() >= deadline;
            match self.reconcile(region).await {
                // A start that came after this stop is not this stop's business.
                Ok(view) if view.current().is_some() => return Ok(true),
                Ok(view) if view.observed.group == Group::Absent && !view.is_claimed() => {
                    return Ok(true);
                }
                Ok(_) if over => return Ok(false),
                Err(error) if over => return Err(error),
                Ok(_) => {}
                Err(error) => warn!(%region, error = error.internal(), "trying again"),
            }
            tokio::time::sleep(self.options.poll).await;
        }
    }

    /// Takes the lease away, or the claim of a start that has none yet; false when somebody else
    /// wrote first.
    async fn revoke(&self, view: View, reason: StopReason) -> Result<bool, Error> {
        let claimed = view.is_claimed();
        let mut lease = view.lease;
        let document = &mut lease.document;
        let mut changed = lease::finish(document, view.now, reason, None);
        if !changed && claimed && view.observed.group == Group::Absent {
            document.operation = None;
            changed = true;
        }
        if !changed && let Some(stop) = failure(document.last_stop.as_mut()) {
            // The failure has been seen: the state is `stopped` from here on.
            stop.reason = reason;
            changed = true;
        }
        if !changed {
            return Ok(true);
        }
        let saved = self.documents.save_lease(&lease).await?;
        if saved {
            info!(region = %lease.document.region, ?reason, "the lease has been taken away");
        }
        Ok(saved)
    }
}

fn failure(last: Option<&mut LastStop>) -> Option<&mut LastStop> {
    last.filter(|stop| stop.reason == StopReason::Failed)
}
