//! A backend whose gateways behave: they take time to begin, read their documents, report, obey
//! their lease, and end. Driven by looking at it; there is no task behind it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use popup_model::document::{End, Extra};
use popup_model::{
    Control as _, Lease, LeaseDocument, LeaseId, PeerStatus, PrivateKey, PublicKey, Region,
    ServerConfig, StatusDocument,
};
use popup_store::{Container, DocumentStore, Expect};
use tokio::time::Instant;

use crate::vpn::{Backend, BackendError, Clock, Group, Host, Phase, Sighting};

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// `create` fails for good.
    CannotCreate(&'static str),
    /// `create` fails, and may work another time.
    CreateUnavailable,
    /// `create` takes longer than anybody waits.
    CreateHangs,
    /// `delete` fails in this region.
    DeleteUnavailable(Region),
    /// `observe` fails.
    ObserveUnavailable,
    /// `observe` fails where there is a gateway.
    ObserveUnavailableOnceCreated,
    /// `observe` fails for good, with this reason.
    ObserveRefused(&'static str),
    /// `observe` is refused, to be asked again after this many seconds.
    ObserveThrottled(u64),
    /// Nothing in this region answers for longer than anybody waits.
    Silent(Region),
    /// The gateway begins and gives up, with this detail.
    BadConfiguration(&'static str),
    /// The gateway begins and never gets ready.
    NeverReady,
}

/// Simulated gateways, one for each region.
#[derive(Debug)]
pub struct SimulatedBackend {
    store: Arc<dyn DocumentStore>,
    clock: Arc<dyn Clock>,
    key: PublicKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    gateways: HashMap<Region, Gateway>,
    start_time: Duration,
    fault: Option<Fault>,
    created: usize,
    deleted: usize,
    observed: usize,
    idle: bool,
}

#[derive(Debug, Clone)]
struct Gateway {
    lease: LeaseId,
    boot: LeaseId,
    begun: Instant,
    started_at: Timestamp,
    ended: Option<End>,
    stopping_until: Option<Instant>,
}

impl SimulatedBackend {
    /// Gateways over this store, ready at once.
    pub fn new(store: Arc<dyn DocumentStore>, clock: Arc<dyn Clock>) -> Self {
        let key = PrivateKey::generate().public_key();
        Self {
            store,
            clock,
            key,
            state: Mutex::default(),
        }
    }

    /// How long a gateway takes to be ready.
    pub fn set_start_time(&self, time: Duration) {
        self.state().start_time = time;
    }

    /// What goes wrong from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Whether peers have stopped sending.
    pub fn set_idle(&self, idle: bool) {
        self.state().idle = idle;
    }

    /// How many gateways were ever made.
    pub fn created(&self) -> usize {
        self.state().created
    }

    /// How many were ever deleted.
    pub fn deleted(&self) -> usize {
        self.state().deleted
    }

    /// How often it was looked.
    pub fn observed(&self) -> usize {
        self.state().observed
    }

    /// How many there are.
    pub fn running(&self) -> usize {
        self.state().gateways.len()
    }

    /// Takes a gateway away, as a crash or a stranger would.
    pub fn lose(&self, region: &Region) {
        self.state().gateways.remove(region);
    }

    /// The key that every simulated gateway has.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> Option<Fault> {
        self.state().fault.clone()
    }

    /// Lets the gateway of a region do what it would have done by now.
    async fn live(&self, region: &Region) {
        let now = self.clock.now();
        let (mut gateway, start_time, fault, idle) = {
            let state = self.state();
            let Some(gateway) = state.gateways.get(region) else {
                return;
            };
            (
                gateway.clone(),
                state.start_time,
                state.fault.clone(),
                state.idle,
            )
        };
        let begins = gateway.begun.elapsed() < start_time;
        if begins || gateway.ended.is_some() || gateway.stopping_until.is_some() {
            return;
        }
        let Some(config) = self.document::<ServerConfig>("config.json").await else {
            return;
        };
        let lease_name = format!("{region}.lease.json");
        let lease = self
            .document::<LeaseDocument>(&lease_name)
            .await
            .and_then(|d| d.lease);
        let end = |reason: &str, detail: Option<&str>| {
            let detail = detail.map(str::to_owned);
            Some(End {
                at: now,
                reason: reason.to_owned(),
                detail,
            })
        };
        gateway.ended = match (lease, &fault) {
            (Some(lease), _) if lease.id == gateway.lease && now >= lease.expires_at => {
                end("lease_over", None)
            }
            (Some(lease), Some(Fault::BadConfiguration(detail))) if lease.id == gateway.lease => {
                end("bad_configuration", Some(*detail))
            }
            (Some(lease), _) if lease.id == gateway.lease => None,
            _ => end("fenced", None),
        };
        let ready = gateway.ended.is_none() && !matches!(fault, Some(Fault::NeverReady));
        let status = StatusDocument {
            schema: 1,
            region: region.clone(),
            lease_id: gateway.lease.clone(),
            boot_id: gateway.boot.clone(),
            started_at: gateway.started_at,
            updated_at: now,
            public_key: Some(self.key),
            mode: "socket".to_owned(),
            mode_reason: "simulated".to_owned(),
            ready,
            config_revision: config.revision,
            active_at: (!idle).then_some(now),
            peers: config
                .peers
                .iter()
                .map(|peer| PeerStatus {
                    public_key: peer.public_key,
                    endpoint: None,
                    latest_handshake: (!idle).then_some(now),
                    rx_bytes: 1,
                    tx_bytes: 2,
                })
                .collect(),
            drops: Default::default(),
            flows: Default::default(),
            version: "0".to_owned(),
            ended: gateway.ended.clone(),
            extra: Extra::new(),
        };
        self.report(region, &status).await;
        if gateway.ended.is_some()
            && let Some(known) = self.state().gateways.get_mut(region)
            && known.boot == gateway.boot
        {
            known.ended = gateway.ended;
        }
    }

    async fn document<T: popup_model::Control>(&self, name: &str) -> Option<T> {
        let stored = self.store.read(Container::Control, name).await.ok()??;
        T::from_json(&stored.bytes).ok()
    }

    async fn report(&self, region: &Region, status: &StatusDocument) {
        let name = format!("{region}.status.json");
        let Ok(stored) = self.store.read(Container::Status, &name).await else {
            return;
        };
        let Ok(bytes) = status.to_json() else { return };
        let expect = stored.map_or(Expect::Absent, |stored| Expect::Version(stored.version));
        // The loser of two reports has nothing new to say.
        let _ = self
            .store
            .write(Container::Status, &name, &bytes, &expect)
            .await;
    }

    /// Time passes before anything is answered.
    async fn answers(&self, region: &Region) {
        if matches!(self.fault(), Some(Fault::Silent(silent)) if silent == *region) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
    }

    fn error(
        operation: &'static str,
        region: &Region,
        permanent: bool,
        text: &str,
    ) -> BackendError {
        BackendError {
            operation,
            region: region.clone(),
            permanent,
            retry_after: None,
            source: text.into(),
        }
    }
}

#[async_trait]
impl Backend for SimulatedBackend {
    async fn observe(&self, region: &Region) -> Result<Sighting, BackendError> {
        self.state().observed += 1;
        self.answers(region).await;
        if matches!(self.fault(), Some(Fault::ObserveUnavailable)) {
            return Err(Self::error("observe", region, false, "injected"));
        }
        if matches!(self.fault(), Some(Fault::ObserveUnavailableOnceCreated)) && self.running() > 0
        {
            return Err(Self::error("observe", region, false, "injected"));
        }
        if let Some(Fault::ObserveRefused(why)) = self.fault() {
            return Err(Self::error("observe", region, true, why));
        }
        if let Some(Fault::ObserveThrottled(seconds)) = self.fault() {
            return Err(BackendError {
                retry_after: Some(Duration::from_secs(seconds)),
                ..Self::error("observe", region, false, "injected")
            });
        }
        self.live(region).await;
        let mut state = self.state();
        let gone = |gateway: &Gateway| {
            gateway
                .stopping_until
                .is_some_and(|until| Instant::now() >= until)
        };
        if state.gateways.get(region).is_some_and(gone) {
            state.gateways.remove(region);
        }
        let start_time = state.start_time;
        let group = match state.gateways.get(region) {
            None => Group::Absent,
            Some(gateway) => {
                let phase = match gateway {
                    Gateway {
                        stopping_until: Some(_),
                        ..
                    } => Phase::Stopping,
                    Gateway { ended: Some(_), .. } => Phase::Ended(None),
                    Gateway { begun, .. } if begun.elapsed() < start_time => Phase::Starting,
                    _ => Phase::Running,
                };
                Group::Present {
                    lease: Some(gateway.lease.clone()),
                    phase,
                }
            }
        };
        let ip = IpAddr::from([203, 0, 113, 7]);
        Ok(Sighting {
            group,
            started_at: state.gateways.get(region).map(|gateway| gateway.started_at),
            host: Some(Host::Address(ip)),
            public_ip: Some(ip),
        })
    }

    async fn create(
        &self,
        region: &Region,
        lease: &Lease,
        _config: &ServerConfig,
        _until: Instant,
    ) -> Result<(), BackendError> {
        tokio::task::yield_now().await;
        match self.fault() {
            Some(Fault::CannotCreate(why)) => return Err(Self::error("create", region, true, why)),
            Some(Fault::CreateHangs) => tokio::time::sleep(Duration::from_secs(3600)).await,
            Some(Fault::CreateUnavailable) => {
                return Err(Self::error("create", region, false, "injected"));
            }
            _ => {}
        }
        let mut state = self.state();
        assert!(
            !state.gateways.contains_key(region),
            "created over one that is there"
        );
        let gateway = Gateway {
            lease: lease.id.clone(),
            boot: LeaseId::generate(),
            begun: Instant::now(),
            started_at: self.clock.now(),
            ended: None,
            stopping_until: None,
        };
        state.gateways.insert(region.clone(), gateway);
        state.created += 1;
        Ok(())
    }

    async fn delete(&self, region: &Region, _until: Instant) -> Result<(), BackendError> {
        tokio::task::yield_now().await;
        if matches!(self.fault(), Some(Fault::DeleteUnavailable(faulty)) if faulty == *region) {
            return Err(Self::error("delete", region, false, "injected"));
        }
        let mut state = self.state();
        let start_time = state.start_time;
        state.deleted += 1;
        if let Some(gateway) = state.gateways.get_mut(region) {
            gateway
                .stopping_until
                .get_or_insert_with(|| Instant::now() + start_time);
        }
        Ok(())
    }
}
