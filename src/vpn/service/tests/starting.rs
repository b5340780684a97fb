//! What a start makes, and what it leaves as it is.

use super::*;

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
async fn new_settings_wait_until_nothing_runs_in_another_region() {
    let world = World::with_two_regions(Duration::from_secs(3600)).await;
    let changed = Options {
        regions: world.service.options.regions.clone(),
        ports: vec![443],
        ..options("10.8.0.0/23")
    };
    let service = world.handler_with(changed);
    let there: Region = "there".parse().unwrap();
    let request = StartRequest {
        region: Some(there.clone()),
        ..nobody()
    };
    for (stopped, port) in [(Some(&there), 51820), (None, 443)] {
        let stop = service.stop(stopped, StopReason::Requested);
        assert!(stop.await.unwrap());
        let started = service.start(&request).await.unwrap();
        assert!(started.begun && started.ready);
        assert_eq!(started.endpoint, Some(format!("203.0.113.7:{port}")));
    }
    let content = world.store.content();
    let config = ServerConfig::from_json(&content[&("control", "config.json".to_owned())]);
    assert_eq!(
        config.unwrap().networks.ipv4(),
        "10.8.0.0/23".parse().unwrap()
    );
}
