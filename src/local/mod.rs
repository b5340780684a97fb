//! The local backend: `popup-gateway` as a child process over the same documents as in Azure.
//!
//! Theory of operation. The run lock, which a gateway holds for its whole life, says whether one
//! runs and under which lease; it outlives this handler, so a new handler sees, and ends, what a
//! killed one left behind. A child of this handler that exits with 0 stays down until it is
//! deleted, as a container that ended does; one that crashed is reported as starting until its
//! backoff is over and as absent from then on, and the plan makes it again.
//!
//! A second lock, held by the handler that answers for the gateway, decides who ends it when a
//! handler shuts down: the one that made it, or after that one was killed, whoever finds it.

mod outward;
mod process;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use popup_model::{Lease, LeaseId, Region, ServerConfig};
use popup_store::{Holder, RunLock};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::config::LocalSettings;
use crate::vpn::{Backend, BackendError, Group, Host, Phase, Sighting};
use process::{Child, Exit, Launch};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A gateway that ran this long has not failed at starting.
const STEADY: Duration = Duration::from_secs(60);
/// How long a gateway may take from exec to its lock.
const LOCK_TIME: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Runs gateways on this machine.
#[derive(Debug)]
pub struct LocalBackend {
    settings: LocalSettings,
    log: Vec<(&'static str, String)>,
    runs: Mutex<HashMap<Region, Run>>,
    duties: Mutex<HashMap<Region, RunLock>>,
}

/// What this handler knows of a gateway it made.
#[derive(Debug)]
struct Run {
    lease: LeaseId,
    child: Child,
    /// How long to wait before it is made again, should it crash.
    backoff: Duration,
}

impl LocalBackend {
    /// A backend whose gateways log as this handler does.
    pub fn new(settings: LocalSettings, log: &crate::config::LogSettings) -> Self {
        let format = if log.json { "json" } else { "text" };
        let log = vec![
            ("RUST_LOG", log.filter.clone()),
            ("LOG_FORMAT", format.to_owned()),
        ];
        Self {
            settings,
            log,
            runs: Mutex::default(),
            duties: Mutex::default(),
        }
    }

    /// The regions whose gateways end with this handler.
    pub fn answers_for(&self) -> Vec<Region> {
        locked(&self.duties).keys().cloned().collect()
    }

    fn lock_path(&self, region: &Region, kind: &str) -> PathBuf {
        self.settings
            .state_dir
            .join(format!("{region}.{kind}.lock"))
    }

    async fn holder(&self, region: &Region) -> std::io::Result<Option<Holder>> {
        let path = self.lock_path(region, "gateway");
        blocking(move || RunLock::holder(&path)).await
    }

    /// Answers for the gateway from now on, if nobody else does.
    async fn take_duty(&self, region: &Region, lease: &LeaseId) {
        if locked(&self.duties).contains_key(region) {
            return;
        }
        let (path, lease) = (self.lock_path(region, "handler"), lease.clone());
        match blocking(move || RunLock::acquire(&path, &lease)).await {
            Ok(Some(lock)) => drop(locked(&self.duties).insert(region.clone(), lock)),
            Ok(None) => debug!(%region, "another handler answers for the gateway"),
            Err(error) => warn!(%region, %error, "cannot answer for the gateway"),
        }
    }

    async fn group(&self, region: &Region) -> std::io::Result<Group> {
        if let Some(holder) = self.holder(region).await? {
            let run = locked(&self.runs).get(region).map(|run| run.child.exit());
            if run.is_none_or(|exit| exit.is_some()) {
                // Not our child: left by a killed handler, or made by another one.
                locked(&self.runs).remove(region);
                self.take_duty(region, &holder.lease).await;
            }
            return Ok(Group::Present {
                lease: Some(holder.lease),
                phase: Phase::Running,
            });
        }
        let runs = locked(&self.runs);
        let Some(run) = runs.get(region) else {
            locked(&self.duties).remove(region);
            return Ok(Group::Absent);
        };
        let phase = match run.child.exit() {
            None => Phase::Starting,
            Some(Exit { clean: true, .. }) => Phase::Ended(None),
            Some(exit) if Instant::now() < exit.at + run.backoff => Phase::Starting,
            Some(_) => return Ok(Group::Absent),
        };
        Ok(Group::Present {
            lease: Some(run.lease.clone()),
            phase,
        })
    }

    fn launch(&self, region: &Region, lease: &Lease) -> std::io::Result<Launch> {
        let program = match &self.settings.gateway {
            Some(program) => program.clone(),
            None => process::beside_this_program()?,
        };
        let mut environment = vec![
            ("REGION", region.to_string()),
            (
                "VPN_STATE_DIR",
                self.settings.state_dir.display().to_string(),
            ),
            ("LEASE_ID", lease.id.to_string()),
            ("LEASE_EXPIRES_AT", lease.expires_at.to_string()),
        ];
        environment.extend(self.log.iter().cloned());
        environment.extend(self.settings.passed_on.iter().cloned());
        Ok(Launch {
            program,
            environment,
        })
    }

    /// The backoff of a gateway that is made again under the same lease.
    fn next_backoff(&self, region: &Region, lease: &LeaseId) -> Duration {
        let runs = locked(&self.runs);
        let unsteady = runs.get(region).filter(|run| {
            let exit = run.child.exit();
            run.lease == *lease && exit.is_some_and(|exit| exit.after < STEADY)
        });
        unsteady.map_or(FIRST_BACKOFF, |run| (run.backoff * 2).min(LONGEST_BACKOFF))
    }

    /// Waits until the gateway has its lock, or has ended: from then on every handler sees it.
    async fn until_locked(&self, region: &Region) -> std::io::Result<()> {
        let deadline = Instant::now() + LOCK_TIME;
        loop {
            let exit = locked(&self.runs)
                .get(region)
                .and_then(|run| run.child.exit());
            if exit.is_some() || self.holder(region).await?.is_some() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                warn!(%region, "the gateway takes long to begin");
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn observe(&self, region: &Region) -> Result<Sighting, BackendError> {
        let group = self
            .group(region)
            .await
            .map_err(|e| failed("observe", region, false, e))?;
        let outward = outward::address();
        let host = self.settings.host.clone().unwrap_or(Host::Address(outward));
        let public_ip = match &host {
            Host::Address(address) => *address,
            Host::Name(_) => outward,
        };
        Ok(Sighting {
            group,
            started_at: None,
            host: Some(host),
            public_ip: Some(public_ip),
        })
    }

    async fn create(
        &self,
        region: &Region,
        lease: &Lease,
        _config: &ServerConfig,
        _until: Instant,
    ) -> Result<(), BackendError> {
        let launch = self
            .launch(region, lease)
            .map_err(|e| failed("create", region, true, e))?;
        if self
            .holder(region)
            .await
            .map_err(|e| failed("create", region, false, e))?
            .is_some()
        {
            // Made by another handler since it was looked at; the next look sees whose it is.
            return Ok(());
        }
        let backoff = self.next_backoff(region, &lease.id);
        let path = launch.program.clone();
        let child = Child::spawn(launch).map_err(|error| {
            let error = std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            failed("create", region, true, error)
        })?;
        info!(%region, lease_id = %lease.id, pid = child.pid(), "the gateway was started");
        let run = Run {
            lease: lease.id.clone(),
            child,
            backoff,
        };
        locked(&self.runs).insert(region.clone(), run);
        self.take_duty(region, &lease.id).await;
        self.until_locked(region)
            .await
            .map_err(|e| failed("create", region, false, e))
    }

    async fn delete(&self, region: &Region, _until: Instant) -> Result<(), BackendError> {
        let error = |e| failed("delete", region, false, e);
        let run = locked(&self.runs).remove(region);
        let path = self.lock_path(region, "gateway");
        process::end_holder(&path).await.map_err(error)?;
        if let Some(run) = run {
            // It may have been on its way to the lock.
            run.child.kill().await;
        }
        locked(&self.duties).remove(region);
        Ok(())
    }
}

fn failed(
    operation: &'static str,
    region: &Region,
    permanent: bool,
    error: std::io::Error,
) -> BackendError {
    BackendError {
        operation,
        region: region.clone(),
        permanent,
        retry_after: None,
        source: error.into(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests;
