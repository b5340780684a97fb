//! A stop: the lease goes first, then the gateway.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use popup_model::{Region, StopReason};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::Service;
use crate::error::Error;
use crate::vpn::{Group, lease};

impl Service {
    /// Stops the VPN in a region, or in all of them at once, and waits for the end; false when
    /// that takes longer. A region that fails or is slow does not hold up the others.
    pub async fn stop(
        self: &Arc<Self>,
        region: Option<&Region>,
        reason: StopReason,
    ) -> Result<bool, Error> {
        let regions = match region {
            Some(_) => vec![self.allowed(region)?],
            None => self.options.regions.clone(),
        };
        let deadline = Instant::now() + self.options.stop_wait;
        let stops = regions
            .iter()
            .map(|region| self.stop_in(region, reason, deadline));
        let mut stopped = true;
        for gone in join_all(stops).await {
            stopped &= gone?;
        }
        Ok(stopped)
    }

    async fn stop_in(
        self: &Arc<Self>,
        region: &Region,
        reason: StopReason,
        deadline: Instant,
    ) -> Result<bool, Error> {
        match timeout_at(deadline, self.end_lease(region, reason)).await {
            Ok(ended) => ended?,
            Err(_) => return Err(Error::Busy),
        }
        // Shutting down, the handler still waits for its own gateways.
        let gone = self.until_gone(region, deadline);
        if reason == StopReason::HandlerStopped {
            return gone.await;
        }
        tokio::select! {
            gone = gone => gone,
            () = self.shut_down() => Ok(false),
        }
    }

    /// Takes the lease away. The backend is not asked: a gateway without a lease ends by itself,
    /// and whoever looks next deletes it, even if the backend cannot be reached now.
    async fn end_lease(&self, region: &Region, reason: StopReason) -> Result<(), Error> {
        loop {
            let mut lease = self.documents.lease(region).await?;
            if !lease::revoke(&mut lease.document, self.clock.now(), reason) {
                return Ok(());
            }
            if self.documents.save_lease(&lease).await? {
                info!(%region, ?reason, "the lease has been taken away");
                return Ok(());
            }
            self.yield_to_others().await;
        }
    }

    async fn until_gone(
        self: &Arc<Self>,
        region: &Region,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let mut failing = None;
        loop {
            let mut pause = self.options.poll;
            match self.reconcile_until(region, deadline).await {
                // A start that came after this stop is not this stop's business.
                Some(Ok(view)) if view.current().is_some() => return Ok(true),
                Some(Ok(view)) if view.observed.group == Group::Absent && !view.is_claimed() => {
                    return Ok(true);
                }
                Some(Ok(_)) => failing = None,
                Some(Err(error)) if error.is_lasting() => return Err(error),
                Some(Err(error)) => {
                    warn!(%region, error = error.internal(), "trying again");
                    if let Error::Throttled { after_s } = error {
                        pause = pause.max(Duration::from_secs(after_s));
                    }
                    failing = Some(error);
                }
                None => return failing.map_or(Ok(false), Err),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(left)).await;
            if Instant::now() >= deadline {
                return failing.map_or(Ok(false), Err);
            }
        }
    }
}
