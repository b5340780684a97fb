//! Over a simulated backend, a store in memory, and tokio's paused clock.

use std::collections::{HashMap, HashSet};

use popup_model::{Control as _, LeaseDocument, StopReason};
use tokio::time::Instant;

use super::*;
use crate::testing::{Fault, MemoryStore, SimulatedBackend, TokioClock};
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
        let options = options("10.8.0.0/24");
        let (store, backend) = (self.store.clone(), self.backend.clone());
        Arc::new(Service::new(store, backend, self.clock.clone(), options))
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
        let content = self.store.content();
        LeaseDocument::from_json(&content[&("control", "local.lease.json".to_owned())]).unwrap()
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

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_region_stops_them_all() {
    let (here, there): (Region, Region) = ("here".parse().unwrap(), "there".parse().unwrap());
    let mut both = options("10.8.0.0/24");
    both.regions = vec![here.clone(), there.clone()];
    let world = World::with(both);
    for region in [&here, &there] {
        let request = StartRequest {
            region: Some(region.clone()),
            ..StartRequest::default()
        };
        world.start(request).await.unwrap();
    }
    assert!(world.stop().await);
    for region in [&here, &there] {
        let status = world.service.status(Some(region)).await.unwrap();
        assert_eq!(status.state, State::Stopped, "{region}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_start_makes_a_gateway_a_peer_and_its_configuration() {
    let world = World::new();
    let started = world.start(nothing_said()).await.unwrap();
    assert!(started.begun && started.ready);
    assert_eq!(started.endpoint.as_deref(), Some("203.0.113.7:51820"));
    assert_eq!(started.server_public_key, Some(world.backend.public_key()));
    let config = started.client_config.unwrap();
    assert!(config.contains(&format!("PublicKey = {}\n", world.backend.public_key())));
    assert_eq!(world.status().await.state, State::Running);
    assert_eq!(world.peers(), ["peer-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_start_while_starting_returns_the_same_vpn_and_no_second_configuration() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(30));
    let (first, second) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.start(nothing_said()).await
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.begun && !second.begun && second.ready);
    assert_eq!(first.lease.id, second.lease.id);
    assert!(first.client_config.is_some() && second.client_config.is_none());
    assert_eq!(world.backend.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn parallel_starts_of_several_handlers_leave_one_gateway_and_one_configuration() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(3));
    let handlers = [
        world.service.clone(),
        world.another_handler(),
        world.another_handler(),
    ];
    let starts: Vec<_> = (0..30)
        .map(|number| {
            let service = Arc::clone(&handlers[number % handlers.len()]);
            tokio::spawn(async move { service.start(&nothing_said()).await })
        })
        .collect();
    let mut outcomes = Vec::new();
    for start in starts {
        outcomes.push(start.await.unwrap());
    }
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.as_ref().is_ok_and(|started| started.ready))
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| has_config(outcome))
            .count(),
        1
    );
    assert_eq!(
        outcomes
            .iter()
            .flatten()
            .filter(|started| started.begun)
            .count(),
        1
    );
    assert_eq!((world.backend.created(), world.backend.running()), (1, 1));
    assert_eq!(world.peers(), ["peer-1"]);
}

#[tokio::test(start_paused = true)]
async fn parallel_starts_for_different_peers_never_share_an_address() {
    let world = World::new();
    let starts: Vec<_> = (0..30)
        .map(|number| {
            let service = world.service.clone();
            tokio::spawn(async move { service.start(&named(&format!("p{number}"))).await })
        })
        .collect();
    let mut addresses = HashSet::new();
    for start in starts {
        let started = start.await.unwrap().unwrap();
        assert!(started.client_config.is_some());
        addresses.insert(started.placed.unwrap().peer.addresses());
    }
    assert_eq!(addresses.len(), 30);
    assert_eq!(world.backend.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_name_is_added_live_and_a_known_one_changes_nothing() {
    let world = World::new();
    world.start(named("phone")).await.unwrap();
    let laptop = world.start(named("laptop")).await.unwrap();
    assert!(!laptop.begun && laptop.ready && laptop.client_config.is_some());
    let before = world.control();
    let again = world.start(named("phone")).await.unwrap();
    assert!(again.client_config.is_none());
    assert_eq!(again.placed.unwrap().peer.name.as_str(), "phone");
    assert_eq!(world.control(), before);
    let replaced = world.start(replacing("phone")).await.unwrap();
    assert!(replaced.client_config.is_some());
    assert_eq!(world.peers(), ["phone", "laptop"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_added_when_none_is_wanted() {
    let world = World::new();
    let started = world.start(nobody()).await.unwrap();
    assert!(started.begun && started.client_config.is_none() && started.placed.is_none());
    assert!(world.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn lifetime_and_idle_time_change_only_when_given() {
    let world = World::new();
    let first = world.start(nobody()).await.unwrap().lease;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.start(nobody()).await.unwrap().lease, first);
    let lifetime = Some(Duration::from_secs(600));
    let longer = StartRequest {
        lifetime,
        ..nobody()
    };
    let changed = world.start(longer).await.unwrap().lease;
    assert_eq!(changed.id, first.id);
    assert_eq!(changed.idle_timeout_s, first.idle_timeout_s);
    let left = changed
        .expires_at
        .duration_since(world.clock.now())
        .as_secs();
    assert!((595..=600).contains(&left), "{left} s");
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_configuration_to_give_fails_before_it_changes_anything() {
    let world = World::new();
    let conf = |request| StartRequest {
        config_required: true,
        ..request
    };
    assert!(
        world
            .start(conf(nothing_said()))
            .await
            .unwrap()
            .client_config
            .is_some()
    );
    let lifetime = Some(Duration::from_secs(60));
    let before = world.control();
    let requests = [
        nothing_said(),
        nobody(),
        named("peer-1"),
        StartRequest {
            lifetime,
            ..nothing_said()
        },
    ];
    for request in requests {
        let error = world.start(conf(request)).await.unwrap_err();
        assert_eq!(error.code(), "NoConfigToReturn");
        assert_eq!(world.control(), before);
    }
    world.stop().await;
    let stopped = world.control();
    assert!(world.start(conf(named("peer-1"))).await.is_err());
    assert_eq!(
        world.control(),
        stopped,
        "and does not start the VPN either"
    );
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_network_starts_nothing_and_changes_nothing() {
    let world = World::with(options("10.8.0.0/30"));
    world.start(named("phone")).await.unwrap();
    let running = world.control();
    let error = world.start(named("laptop")).await.unwrap_err();
    assert_eq!(error.code(), "NetworkExhausted");
    assert_eq!(world.control(), running);
    world.stop().await;
    let stopped = world.control();
    assert_eq!(
        world.start(nothing_said()).await.unwrap_err().code(),
        "NetworkExhausted"
    );
    assert_eq!(world.control(), stopped);
    assert_eq!(world.backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn peers_and_their_keys_survive_a_stop() {
    let world = World::new();
    let first = world.start(named("phone")).await.unwrap();
    assert!(
        world.stop().await && world.stop().await,
        "also when nothing runs"
    );
    assert_eq!(world.status().await.state, State::Stopped);
    assert_eq!(world.backend.running(), 0);
    let again = world.start(nobody()).await.unwrap();
    assert!(again.begun && again.lease.id != first.lease.id);
    assert_eq!(again.server_public_key, first.server_public_key);
    assert_eq!(world.peers(), ["phone"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_start_wins_and_the_start_says_so() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(30));
    let (start, stop) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.service.stop(None, StopReason::Requested).await
    });
    assert_eq!(start.unwrap_err().code(), "Interrupted");
    stop.unwrap();
    world
        .tick_until(60, |status| status.state == State::Stopped)
        .await;
    assert_eq!(world.backend.running(), 0);
    assert!(
        world.peers().is_empty(),
        "the peer whose key nobody got is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_during_a_stop_waits_for_its_end_and_starts_anew() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(10));
    let old = world.start(nobody()).await.unwrap();
    let (stop, start) = tokio::join!(world.service.stop(None, StopReason::Requested), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.start(nothing_said()).await
    });
    assert!(stop.unwrap());
    let start = start.unwrap();
    assert!(start.begun && start.ready && start.lease.id != old.lease.id);
    assert_eq!((world.backend.created(), world.backend.running()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn starts_and_stops_at_random_converge() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_millis(700));
    let tasks: Vec<_> = (0..40)
        .map(|number: u64| {
            let service = world.another_handler();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(number * 97 % 1500)).await;
                match number % 3 {
                    0 => drop(service.stop(None, StopReason::Requested).await),
                    1 => drop(service.start(&nothing_said()).await),
                    _ => drop(service.tick().await),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let settled = |status: &StatusView| matches!(status.state, State::Running | State::Stopped);
    let state = world.tick_until(60, settled).await.state;
    assert_eq!(
        world.backend.running(),
        usize::from(state == State::Running)
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_late_gets_a_lease_and_the_caller_an_answer_in_time() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(300));
    let begun = Instant::now();
    let started = world.start(nothing_said()).await.unwrap();
    assert!(!started.ready && begun.elapsed() < Duration::from_secs(205));
    assert!(
        started.client_config.is_some(),
        "the key was made once and must not be lost"
    );
    assert_eq!(world.status().await.state, State::Starting);
    world
        .tick_until(200, |status| status.state == State::Running)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_hangs_costs_the_caller_neither_its_answer_nor_its_key() {
    let world = World::new();
    world.backend.set_fault(Some(Fault::CreateHangs));
    let begun = Instant::now();
    let started = world.start(nothing_said()).await.unwrap();
    assert!(!started.ready && begun.elapsed() < Duration::from_secs(210));
    let template = started.client_template.unwrap();
    assert!(template.contains("PrivateKey = ") && template.contains("{endpoint}"));
    world.backend.set_fault(None);
    world
        .tick_until(200, |status| status.state == State::Running)
        .await;
    assert_eq!(world.backend.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_gives_up_is_told_and_leaves_nothing() {
    let world = World::new();
    let port = "UDP port 51820 is in use; stop the other program or set VPN_PORT";
    world.backend.set_fault(Some(Fault::BadConfiguration(port)));
    let error = world.start(nothing_said()).await.unwrap_err();
    assert!(
        matches!(&error, Error::GatewayFailed { detail } if detail == port),
        "{error}"
    );
    assert!(world.peers().is_empty());
    let status = world
        .tick_until(5, |status| status.state == State::Failed)
        .await;
    let stop = status.last_stop.unwrap();
    assert_eq!(
        (stop.reason, stop.detail.as_deref()),
        (StopReason::Failed, Some(port))
    );
    assert_eq!(world.backend.running(), 0);
    world.stop().await;
    assert_eq!(
        world.status().await.state,
        State::Stopped,
        "somebody has seen it"
    );
    world.backend.set_fault(None);
    assert!(world.start(nothing_said()).await.unwrap().ready);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_cannot_be_made_is_told_and_leaves_nothing() {
    let world = World::new();
    world
        .backend
        .set_fault(Some(Fault::CannotCreate("popup-gateway is missing")));
    let error = world.start(nothing_said()).await.unwrap_err();
    assert!(
        error.to_string().contains("popup-gateway is missing"),
        "{error}"
    );
    assert!(world.peers().is_empty() && world.lease().lease.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_fails_for_a_while_only_delays_a_start() {
    let world = World::new();
    world.backend.set_fault(Some(Fault::CreateUnavailable));
    let (started, ()) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.backend.set_fault(None);
    });
    assert!(started.unwrap().ready);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_keeps_failing_ends_a_start_and_leaves_nothing() {
    let world = World::new();
    world.backend.set_fault(Some(Fault::CreateUnavailable));
    assert_eq!(
        world.start(nothing_said()).await.unwrap_err().code(),
        "BackendUnavailable"
    );
    assert!(world.peers().is_empty() && world.lease().lease.is_none());
    assert!(world.lease().operation.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_any_write_leaves_no_gateway_without_a_lease() {
    for successes in 0..8 {
        let world = World::new();
        world.store.fail_writes_after(Some(successes));
        let outcome = world.start(nothing_said()).await;
        world.store.fail_writes_after(None);
        if outcome.is_ok() {
            assert!(
                successes >= 4,
                "a start takes claim, peer, lease, and claim"
            );
        }
        let settled =
            |s: &StatusView| matches!(s.state, State::Running | State::Stopped | State::Failed);
        let status = world.tick_until(60, settled).await;
        let leased = usize::from(status.lease_id.is_some());
        assert_eq!(world.backend.running(), leased, "after {successes} writes");
        assert!(
            world.start(nothing_said()).await.unwrap().ready,
            "after {successes} writes"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_left_by_a_dead_handler_holds_others_only_until_its_deadline() {
    let world = World::new();
    world.start(nobody()).await.unwrap();
    world.stop().await;
    let view = world.service.look(&"local".parse().unwrap()).await.unwrap();
    world.service.claim(view).await.unwrap().unwrap();
    let begun = Instant::now();
    assert!(world.start(nothing_said()).await.unwrap().ready);
    let waited = begun.elapsed().as_secs();
    assert!((29..=32).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_lost_gateway_is_made_again_under_the_same_lease() {
    let world = World::new();
    let lease = world.start(nobody()).await.unwrap().lease;
    world.backend.lose(&"local".parse().unwrap());
    let status = world
        .tick_until(5, |status| status.state == State::Running)
        .await;
    assert_eq!(status.lease_id, Some(lease.id));
    assert_eq!(world.backend.created(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_lifetimes_end_stops_the_vpn_and_says_so() {
    let world = World::new();
    let lifetime = Some(Duration::from_secs(120));
    world
        .start(StartRequest {
            lifetime,
            ..nobody()
        })
        .await
        .unwrap();
    let status = world
        .tick_until(125, |status| status.state == State::Stopped)
        .await;
    assert_eq!(status.last_stop.unwrap().reason, StopReason::LifetimeOver);
    assert_eq!(world.backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_vpn_stops_and_says_so_and_a_used_one_goes_on() {
    let world = World::new();
    let idle_timeout = Some(Some(Duration::from_secs(60)));
    world
        .start(StartRequest {
            idle_timeout,
            ..nobody()
        })
        .await
        .unwrap();
    for _ in 0..120 {
        world.service.tick().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.status().await.state, State::Running);
    world.backend.set_idle(true);
    let status = world
        .tick_until(65, |status| status.state == State::Stopped)
        .await;
    assert_eq!(status.last_stop.unwrap().reason, StopReason::Idle);
}

#[tokio::test(start_paused = true)]
async fn one_region_that_cannot_be_reached_does_not_hold_up_the_others() {
    let mut options = options("10.8.0.0/24");
    options.regions.push("other".parse().unwrap());
    let world = World::with(options);
    let lifetime = Some(Duration::from_secs(60));
    for region in ["local", "other"] {
        let region = Some(region.parse().unwrap());
        let request = StartRequest {
            region,
            lifetime,
            ..nobody()
        };
        world.start(request).await.unwrap();
    }
    let faulty = Fault::DeleteUnavailable("local".parse().unwrap());
    world.backend.set_fault(Some(faulty));
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.service.tick().await;
    assert_eq!(world.backend.running(), 1);
    world.backend.set_fault(None);
    world.service.tick().await;
    assert_eq!(world.backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_not_allowed_is_refused() {
    let world = World::new();
    let region = Some("northeurope".parse().unwrap());
    let error = world
        .start(StartRequest { region, ..nobody() })
        .await
        .unwrap_err();
    assert_eq!(error.code(), "RegionNotAllowed");
    assert!(world.control().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removed_peer_is_gone_from_the_gateway_when_the_answer_comes() {
    let world = World::new();
    world.start(named("phone")).await.unwrap();
    world.start(named("laptop")).await.unwrap();
    let name = "phone".parse().unwrap();
    let ticks = async {
        loop {
            world.service.tick().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let removed = tokio::select! {
        removed = world.service.remove_peer(&name) => removed.unwrap(),
        () = ticks => unreachable!("ticks never end"),
    };
    assert!(removed.applied);
    assert_eq!(world.peers(), ["laptop"]);
    assert_eq!(
        world.service.remove_peer(&name).await.unwrap_err().code(),
        "PeerNotFound"
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_of_another_lease_is_not_believed() {
    let world = World::new();
    world.start(named("phone")).await.unwrap();
    world.stop().await;
    let stopped = world.status().await;
    assert!(stopped.server_public_key.is_none() && stopped.mode.is_none());
    assert!(!stopped.peers[0].connected && stopped.peers[0].latest_handshake.is_none());
    world.backend.set_fault(Some(Fault::CreateUnavailable));
    let service = world.another_handler();
    let start = tokio::spawn(async move { service.start(&nobody()).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let starting = world.status().await;
    assert_eq!(starting.state, State::Starting);
    assert!(
        starting.server_public_key.is_none(),
        "the old gateway's report is still there"
    );
    assert!(start.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ends_lets_waiting_starts_answer_with_what_they_have() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(100));
    let (started, ()) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.service.begin_shutdown();
    });
    assert!(!started.unwrap().ready);
    let stopped = world.service.stop(None, StopReason::HandlerStopped).await;
    assert!(stopped.is_ok());
    assert_eq!(
        world.lease().last_stop.unwrap().reason,
        StopReason::HandlerStopped
    );
}
