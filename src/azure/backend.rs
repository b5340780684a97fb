//! The Azure backend: one container group for each region.
//!
//! Theory of operation. A group is looked at before it is made, and made by one PUT: a PUT over
//! one that is there would restart it. When no answer comes, it is looked at again before another
//! PUT. The operations that PUT and DELETE begin are not waited for; whoever looks next sees how
//! far the group is, and this process remembers what it began for the moments in which ARM shows
//! nothing yet, or still shows what is being deleted. Losing that memory costs a request that has
//! no effect. A group that was stopped by hand, or whose gateway cannot reach its documents any
//! more, is reported as nobody's, and the plan replaces it. One that runs keeps its image, size and
//! ports: new settings count from the next start on.

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
use super::sighting::{Condition, condition, started_at};
use crate::config::{AzureSettings, StorageAccess};
use crate::vpn::{Backend, BackendError, Group, Host, Phase, Sighting};

/// How long a create may be tried, and a delete; a claim lasts longer.
const PATIENCE: Duration = Duration::from_secs(40);
const BACKOFF: Duration = Duration::from_secs(2);
/// How long what this process began explains what ARM shows.
const MEMORY: Duration = Duration::from_secs(120);
/// The same where ARM does not tell how far that is: then the group alone tells, which follows
/// within seconds.
const SHORT_MEMORY: Duration = Duration::from_secs(30);
/// How long a request may be under way.
const UNDER_WAY: Duration = Duration::from_secs(25);
const LOG_LINES: u32 = 20;
/// Of the log, in an answer.
const LOG_TEXT: usize = 600;

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

    /// Lets time pass for what this process remembers.
    #[cfg(test)]
    fn age(&self, by: Duration) {
        for begun in self.begun().values_mut() {
            begun.at -= by;
        }
    }

    fn recall(&self, region: &Region) -> Option<Begun> {
        let begun = self.begun().get(region).cloned()?;
        (begun.at.elapsed() < MEMORY).then_some(begun)
    }

    /// What there is while ARM shows nothing.
    async fn unseen(&self, region: &Region) -> Group {
        let Some(Begun {
            lease: Some(lease),
            operation: Some(operation),
            at,
        }) = self.recall(region)
        else {
            self.begun().remove(region);
            return Group::Absent;
        };
        let phase = match self.arm.operation(&group::name(region), &operation).await {
            OperationStatus::Running(_) => Phase::Starting,
            OperationStatus::Unknown if at.elapsed() < SHORT_MEMORY => Phase::Starting,
            OperationStatus::Failed(error) => Phase::Failed(failed_operation(region, &error)),
            OperationStatus::Succeeded | OperationStatus::Unknown => {
                self.begun().remove(region);
                return Group::Absent;
            }
        };
        Group::Present {
            lease: Some(lease),
            phase,
        }
    }

    /// What there is when ARM shows a group.
    async fn seen(&self, region: &Region, found: &ContainerGroup) -> Group {
        let lease = group::lease_of(found);
        if self.is_being_deleted(region).await {
            let phase = Phase::Stopping;
            return Group::Present { lease, phase };
        }
        let condition = condition(found);
        let nobodys = condition == Condition::Stopped || is_locked_out(found, &condition);
        let phase = match condition {
            Condition::Starting | Condition::Stopped => Phase::Starting,
            Condition::Running => Phase::Running,
            Condition::Stopping => Phase::Stopping,
            Condition::Ended => {
                let detail = self.with_log(region, "the gateway ended by itself").await;
                Phase::Ended(Some(detail))
            }
            Condition::Broken(reason) => Phase::Failed(self.with_log(region, &reason).await),
        };
        Group::Present {
            lease: lease.filter(|_| !nobodys),
            phase,
        }
    }

    /// Whether this process has begun a delete that is not over, though ARM may show the group as
    /// it was.
    async fn is_being_deleted(&self, region: &Region) -> bool {
        let Some(Begun {
            lease: None,
            operation,
            at,
        }) = self.recall(region)
        else {
            return false;
        };
        let status = match &operation {
            Some(operation) => self.arm.operation(&group::name(region), operation).await,
            None => OperationStatus::Succeeded,
        };
        let under_way = match status {
            OperationStatus::Running(_) => true,
            OperationStatus::Unknown => at.elapsed() < SHORT_MEMORY,
            OperationStatus::Succeeded | OperationStatus::Failed(_) => false,
        };
        if !under_way {
            debug!(%region, ?status, "the delete is over");
            self.begun().remove(region);
        }
        under_way
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
        Some(SasTokens::for_gateway(
            &connection.url,
            &connection.account,
            group::signatures_end(lease),
        ))
    }

    /// One group, whatever gets lost on the way.
    async fn put(
        &self,
        region: &Region,
        lease: &Lease,
        config: &ServerConfig,
        until: Instant,
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
            check_time("create", &name, until)?;
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

    async fn remove(&self, region: &Region, until: Instant) -> Result<(), ArmError> {
        let name = group::name(region);
        let deadline = Instant::now() + PATIENCE;
        loop {
            check_time("delete", &name, until)?;
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

/// Fails when a request that is sent now may still be under way when others may act.
fn check_time(operation: &'static str, name: &str, until: Instant) -> Result<(), ArmError> {
    if Instant::now() + UNDER_WAY < until {
        return Ok(());
    }
    let text = "there is no time left to ask for it".to_owned();
    Err(ArmError {
        operation,
        resource: name.to_owned(),
        failure: Failure::Unreachable(text),
    })
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

/// Whether its process has begun, or will begin, with signatures that have ended: an extension of
/// the lease reaches a gateway that runs, and not one that is started again later.
fn is_locked_out(group: &ContainerGroup, condition: &Condition) -> bool {
    let Some(end) = group::signatures_end_of(group) else {
        return false;
    };
    match condition {
        Condition::Running => started_at(group).is_some_and(|started_at| started_at >= end),
        Condition::Starting => Timestamp::now() >= end,
        _ => false,
    }
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
            return Ok(Sighting {
                group: self.unseen(region).await,
                started_at: None,
                host: None,
                public_ip: None,
            });
        };
        let group = self.seen(region, &found).await;
        let started_at = started_at(&found);
        let address = found.properties.ip_address.unwrap_or_default();
        let host = address.fqdn.and_then(|name| name.parse().ok());
        // The address changes at each start, and ARM may show the last one until then.
        let runs = |phase: &Phase| *phase == Phase::Running;
        let public_ip = match &group {
            Group::Present { phase, .. } if runs(phase) => address.ip,
            _ => None,
        };
        Ok(Sighting {
            group,
            started_at,
            host,
            public_ip,
        })
    }

    async fn create(
        &self,
        region: &Region,
        lease: &Lease,
        config: &ServerConfig,
        until: Instant,
    ) -> Result<(), BackendError> {
        self.put(region, lease, config, until)
            .await
            .map_err(|error| backend_error("create", region, error))?;
        info!(%region, lease_id = %lease.id, "the container group is under way");
        Ok(())
    }

    async fn delete(&self, region: &Region, until: Instant) -> Result<(), BackendError> {
        self.remove(region, until)
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
        let mut outcome = Ok(());
        for found in self.arm.list().await.map_err(failed)? {
            let known = regions
                .iter()
                .any(|region| group::name(region) == found.name);
            if !group::is_ours(&found) || known {
                continue;
            }
            warn!(
                group = found.name,
                "deleting a group in a region that REGIONS lacks"
            );
            if let Err(error) = self.arm.delete(&found.name).await {
                outcome = Err(backend_error("delete", first, error));
            }
        }
        outcome
    }
}

#[cfg(test)]
pub(super) mod tests;
