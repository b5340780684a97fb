//! The Azure backend: one container group for each region.
//!
//! Theory of operation. A group is looked at before it is made, and made by one PUT: a PUT over
//! one that is there would restart it. When no answer comes, it is looked at again before another
//! PUT. The operations that PUT and DELETE begin are not waited for; whoever looks next sees how
//! far the group is, and this process remembers what it began for the moments in which ARM shows
//! nothing yet, or still shows what is being deleted. Losing that memory costs a request that has
//! no effect. A group made for another lease, with another image or size, or stopped by hand, is
//! reported as nobody's, and the plan replaces it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use popup_model::document::GatewayAccess;
use popup_model::{Lease, LeaseId, Region, ServerConfig};
use popup_store::azure::SasTokens;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::arm::{ArmClient, ArmError, ContainerGroup, Failure, Operation, OperationStatus};
use super::errors::{backend_error, failed_operation, is_permanent};
use super::group;
use super::resolver::Resolver;
use super::sighting::{Condition, condition};
use crate::config::{AzureSettings, StorageAccess};
use crate::vpn::{Backend, BackendError, Group, Host, Phase, Sighting};

/// How long a create may be tried, and a delete; a claim lasts longer.
const PATIENCE: Duration = Duration::from_secs(40);
const BACKOFF: Duration = Duration::from_secs(2);
/// How long what this process began explains what ARM shows.
const MEMORY: Duration = Duration::from_secs(120);
const LOG_LINES: u32 = 20;
/// Of the log, in an answer.
const LOG_TEXT: usize = 600;
/// Signatures outlive the lease, for the last status and for clocks that differ.
const GRACE: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Runs gateways in Azure Container Instances.
#[derive(Debug)]
pub struct AzureBackend {
    arm: ArmClient,
    settings: AzureSettings,
    resolver: Resolver,
    begun: Mutex<HashMap<Region, Begun>>,
    /// The least wait before a request is sent again.
    backoff: Duration,
}

/// What this process began in a region.
#[derive(Debug, Clone)]
struct Begun {
    /// The lease of a create; a delete when absent.
    lease: Option<LeaseId>,
    operation: Option<Operation>,
    at: Instant,
}

impl AzureBackend {
    pub(super) fn new(arm: ArmClient, settings: AzureSettings) -> Self {
        let resolver = Resolver::new(settings.dns_server);
        Self {
            arm,
            settings,
            resolver,
            begun: Mutex::default(),
            backoff: BACKOFF,
        }
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<Region, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, region: &Region, lease: Option<LeaseId>, operation: Option<Operation>) {
        let begun = Begun {
            lease,
            operation,
            at: Instant::now(),
        };
        self.begun().insert(region.clone(), begun);
    }

    fn recall(&self, region: &Region) -> Option<Begun> {
        let begun = self.begun().get(region).cloned()?;
        (begun.at.elapsed() < MEMORY).then_some(begun)
    }

    /// What there is while ARM shows nothing.
    async fn unseen(&self, region: &Region) -> Result<Group, ArmError> {
        let Some(Begun {
            lease: Some(lease),
            operation: Some(operation),
            ..
        }) = self.recall(region)
        else {
            self.begun().remove(region);
            return Ok(Group::Absent);
        };
        let phase = match self.arm.operation(&group::name(region), &operation).await? {
            OperationStatus::Running(_) => Phase::Starting,
            OperationStatus::Failed(error) => Phase::Failed(failed_operation(region, &error)),
            OperationStatus::Succeeded => {
                self.begun().remove(region);
                return Ok(Group::Absent);
            }
        };
        Ok(Group::Present {
            lease: Some(lease),
            phase,
        })
    }

    /// What there is when ARM shows a group.
    async fn seen(&self, region: &Region, found: &ContainerGroup) -> Result<Group, ArmError> {
        let lease = group::lease_of(found);
        if let Some(Begun {
            lease: None,
            operation,
            ..
        }) = self.recall(region)
            && self.is_under_way(region, operation.as_ref()).await?
        {
            return Ok(Group::Present {
                lease,
                phase: Phase::Stopping,
            });
        }
        let phase = match condition(found) {
            Condition::Starting => Phase::Starting,
            Condition::Running => Phase::Running,
            Condition::Stopping => Phase::Stopping,
            Condition::Ended => {
                let detail = self.with_log(region, "the gateway ended by itself").await;
                Phase::Ended(Some(detail))
            }
            Condition::Broken(reason) => Phase::Failed(self.with_log(region, &reason).await),
            Condition::Stopped => {
                let phase = Phase::Starting;
                return Ok(Group::Present { lease: None, phase });
            }
        };
        let lease = lease.filter(|_| group::is_current(found, &self.settings.group));
        Ok(Group::Present { lease, phase })
    }

    async fn is_under_way(
        &self,
        region: &Region,
        operation: Option<&Operation>,
    ) -> Result<bool, ArmError> {
        let Some(operation) = operation else {
            self.begun().remove(region);
            return Ok(false);
        };
        let status = self.arm.operation(&group::name(region), operation).await?;
        let running = matches!(status, OperationStatus::Running(_));
        if !running {
            debug!(%region, ?status, "the delete is over");
            self.begun().remove(region);
        }
        Ok(running)
    }

    async fn with_log(&self, region: &Region, reason: &str) -> String {
        let name = group::name(region);
        let log = match self.arm.logs(&name, group::CONTAINER, LOG_LINES).await {
            Ok(log) => log,
            Err(error) => {
                debug!(%region, %error, "the container's log cannot be read");
                String::new()
            }
        };
        let log = tail(&log);
        match log.is_empty() {
            true => reason.to_owned(),
            false => format!("{reason}; its log ends with: {log}"),
        }
    }

    /// Signatures for the gateway, where it has no identity in the storage account.
    fn sas(&self, lease: &Lease) -> Option<SasTokens> {
        let StorageAccess::Key(connection) = &self.settings.storage.access else {
            return None;
        };
        let until = lease
            .expires_at
            .checked_add(GRACE)
            .unwrap_or(Timestamp::MAX);
        Some(SasTokens::for_gateway(
            &connection.url,
            &connection.account,
            until,
        ))
    }

    /// One group, whatever gets lost on the way.
    async fn put(
        &self,
        region: &Region,
        lease: &Lease,
        config: &ServerConfig,
    ) -> Result<(), ArmError> {
        let name = group::name(region);
        let sas = self.sas(lease);
        let request = group::request(&self.settings, region, lease, &config.ports, sas.as_ref());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.arm.group(&name).await? {
                if group::lease_of(&found).as_ref() == Some(&lease.id) {
                    return Ok(());
                }
                let text = "another group of this name is there".to_owned();
                let failure = Failure::Unusable(text);
                return Err(ArmError {
                    operation: "create",
                    resource: name,
                    failure,
                });
            }
            let error = match self.arm.create(&name, &request).await {
                Ok(operation) => {
                    self.remember(region, Some(lease.id.clone()), operation);
                    return Ok(());
                }
                Err(error) => error,
            };
            match wait_after(&error, region, self.backoff) {
                Some(wait) if Instant::now() + wait < deadline => {
                    warn!(%region, %error, "creating the group again in a moment");
                    sleep(wait).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn remove(&self, region: &Region) -> Result<(), ArmError> {
        let name = group::name(region);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match self.arm.delete(&name).await {
                Ok(operation) => {
                    self.remember(region, None, operation);
                    return Ok(());
                }
                Err(error) => error,
            };
            match wait_after(&error, region, self.backoff) {
                Some(wait) if Instant::now() + wait < deadline => {
                    warn!(%region, %error, "deleting the group again in a moment");
                    sleep(wait).await;
                }
                _ => return Err(error),
            }
        }
    }
}

/// How long until the same request may work; `None` when it will not.
fn wait_after(error: &ArmError, region: &Region, backoff: Duration) -> Option<Duration> {
    let asked = match &error.failure {
        Failure::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
        Failure::Unreachable(_) => Duration::ZERO,
        Failure::Unusable(_) => return None,
    };
    let permanent = is_permanent(&error.failure, region);
    (!permanent).then_some(asked.max(backoff))
}

/// The end of a log, on one line.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines[lines.len().saturating_sub(5)..].join(" | ");
    let skipped = text.chars().count().saturating_sub(LOG_TEXT);
    let kept: String = text.chars().skip(skipped).collect();
    super::arm::printable(&kept, LOG_TEXT)
}

#[async_trait]
impl Backend for AzureBackend {
    async fn observe(&self, region: &Region) -> Result<Sighting, BackendError> {
        let failed = |error| backend_error("observe", region, error);
        let found = self.arm.group(&group::name(region)).await.map_err(failed)?;
        let Some(found) = found else {
            let group = self.unseen(region).await.map_err(failed)?;
            return Ok(Sighting {
                group,
                host: None,
                public_ip: None,
            });
        };
        let group = self.seen(region, &found).await.map_err(failed)?;
        let address = found.properties.ip_address.unwrap_or_default();
        let host = address.fqdn.and_then(|name| name.parse().ok());
        Ok(Sighting {
            group,
            host,
            public_ip: address.ip,
        })
    }

    async fn create(
        &self,
        region: &Region,
        lease: &Lease,
        config: &ServerConfig,
    ) -> Result<(), BackendError> {
        self.put(region, lease, config)
            .await
            .map_err(|error| backend_error("create", region, error))?;
        info!(%region, lease_id = %lease.id, "the container group is under way");
        Ok(())
    }

    async fn delete(&self, region: &Region) -> Result<(), BackendError> {
        self.remove(region)
            .await
            .map_err(|error| backend_error("delete", region, error))
    }

    fn renewed_access(&self, lease: &Lease) -> Option<GatewayAccess> {
        let SasTokens {
            control, status, ..
        } = self.sas(lease)?;
        Some(GatewayAccess {
            control: control.as_str().to_owned(),
            status: status.as_str().to_owned(),
        })
    }

    async fn is_reachable(&self, sighting: &Sighting) -> bool {
        match (&sighting.host, sighting.public_ip) {
            (Some(Host::Name(name)), Some(address)) => self.resolver.leads_to(name, address).await,
            (Some(Host::Address(_)), _) => true,
            _ => false,
        }
    }

    async fn remove_strays(&self, regions: &[Region]) -> Result<(), BackendError> {
        let Some(first) = regions.first() else {
            return Ok(());
        };
        let failed = |error| backend_error("list", first, error);
        for found in self.arm.list().await.map_err(failed)? {
            let known = regions
                .iter()
                .any(|region| group::name(region) == found.name);
            if group::is_ours(&found) && !known {
                warn!(
                    group = found.name,
                    "deleting a group in a region that REGIONS lacks"
                );
                self.arm.delete(&found.name).await.map_err(failed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
