//! Over a simulated backend, a store in memory, and tokio's paused clock.

mod dying;
mod failures;
mod parallel;
mod peers;
mod starting;
mod stopping;
mod ticking;
mod waiting;

use std::collections::HashSet;

use popup_model::document::Work;
use popup_model::{Control as _, LeaseDocument, StopReason};
use tokio::time::Instant;

use super::*;
use crate::testing::{Fault, MemoryStore, SimulatedBackend, TokioClock};
use crate::vpn::lease;
use crate::vpn::request::{PeerRequest, PeerWish, StartRequest};
use crate::vpn::status::State;

struct World {
    store: Arc<MemoryStore>,
    backend: Arc<SimulatedBackend>,
    clock: Arc<TokioClock>,
    service: Arc<Service>,
}

fn options(network: &str) -> Options {
    Options {
        regions: vec!["local".parse().unwrap()],
        network: network.parse().unwrap(),
        ports: vec![51820],
        start_wait: Duration::from_secs(200),
        stop_wait: Duration::from_secs(20),
        apply_wait: Duration::from_secs(10),
        poll: Duration::from_millis(100),
        operation_time: Duration::from_secs(30),
    }
}

impl World {
    fn new() -> Self {
        Self::with(options("10.8.0.0/24"))
    }

    fn with(options: Options) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(TokioClock::new());
        let backend = Arc::new(SimulatedBackend::new(store.clone(), clock.clone()));
        let service = Service::new(store.clone(), backend.clone(), clock.clone(), options);
        Self {
            store,
            backend,
            clock,
            service: Arc::new(service),
        }
    }

    /// A further handler process over the same documents and gateways.
    fn another_handler(&self) -> Arc<Service> {
        self.handler_with(options("10.8.0.0/24"))
    }

    /// The same with other settings.
    fn handler_with(&self, options: Options) -> Arc<Service> {
        let (store, backend) = (self.store.clone(), self.backend.clone());
        Arc::new(Service::new(store, backend, self.clock.clone(), options))
    }

    /// With a VPN in each of two regions, `here` and `there`.
    async fn with_two_regions(lifetime: Duration) -> Self {
        let mut both = options("10.8.0.0/24");
        both.regions = vec!["here".parse().unwrap(), "there".parse().unwrap()];
        let world = Self::with(both.clone());
        for region in both.regions {
            let request = StartRequest {
                region: Some(region),
                lifetime: Some(lifetime),
                ..nobody()
            };
            world.start(request).await.unwrap();
        }
        world
    }

    async fn start(&self, request: StartRequest) -> Result<Started, Error> {
        self.service.start(&request).await
    }

    async fn stop(&self) -> bool {
        self.service
            .stop(None, StopReason::Requested)
            .await
            .unwrap()
    }

    async fn status(&self) -> StatusView {
        self.service.status(None).await.unwrap()
    }

    fn control(&self) -> HashMap<(&'static str, String), Vec<u8>> {
        let mut content = self.store.content();
        content.retain(|(container, _), _| *container == "control");
        content
    }

    fn lease(&self) -> LeaseDocument {
        self.lease_in("local")
    }

    fn lease_in(&self, region: &str) -> LeaseDocument {
        let content = self.store.content();
        LeaseDocument::from_json(&content[&("control", format!("{region}.lease.json"))]).unwrap()
    }

    fn peers(&self) -> Vec<String> {
        let content = self.store.content();
        let Some(bytes) = content.get(&("control", "config.json".to_owned())) else {
            return Vec::new();
        };
        let config = ServerConfig::from_json(bytes).unwrap();
        config
            .peers
            .iter()
            .map(|peer| peer.name.to_string())
            .collect()
    }

    /// Ticks once a second until this holds.
    async fn tick_until(&self, seconds: u64, holds: impl Fn(&StatusView) -> bool) -> StatusView {
        for _ in 0..=seconds {
            self.service.tick().await;
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("not within {seconds} s: {:?}", self.status().await);
    }
}

fn nothing_said() -> StartRequest {
    StartRequest::default()
}

fn nobody() -> StartRequest {
    StartRequest {
        peer: PeerRequest::Nobody,
        ..StartRequest::default()
    }
}

fn named(name: &str) -> StartRequest {
    let wish = PeerWish {
        name: Some(name.parse().unwrap()),
        ..PeerWish::default()
    };
    StartRequest {
        peer: PeerRequest::Wanted(wish),
        ..StartRequest::default()
    }
}

fn replacing(name: &str) -> StartRequest {
    let name = Some(name.parse().unwrap());
    let wish = PeerWish {
        name,
        replace: true,
        ..PeerWish::default()
    };
    StartRequest {
        peer: PeerRequest::Wanted(wish),
        ..StartRequest::default()
    }
}

fn has_config(started: &Result<Started, Error>) -> bool {
    started
        .as_ref()
        .is_ok_and(|started| started.client_config.is_some())
}
