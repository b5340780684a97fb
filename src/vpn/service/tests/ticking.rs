//! What the timer does.

use super::*;

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
async fn a_region_that_does_not_answer_does_not_hold_up_the_tick_of_the_others() {
    let world = World::with_two_regions(Duration::from_secs(60)).await;
    let silent = Fault::Silent("here".parse().unwrap());
    world.backend.set_fault(Some(silent));
    tokio::time::sleep(Duration::from_secs(61)).await;
    let service = Arc::clone(&world.service);
    tokio::spawn(async move { service.tick().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.backend.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_said_before_it_was_lost_does_not_make_the_next_one_ready() {
    let world = World::new();
    world.start(nobody()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.status().await;
    world.backend.set_start_time(Duration::from_secs(20));
    world.backend.lose(&"local".parse().unwrap());
    let begun = Instant::now();
    assert!(world.start(named("phone")).await.unwrap().ready);
    assert!(
        begun.elapsed() >= Duration::from_secs(20),
        "the old report says ready, too"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_platform_refuses_is_told_at_once_and_by_its_name() {
    let world = World::new();
    world.start(nobody()).await.unwrap();
    let why = "the handler's identity may not do this (Azure says AuthorizationFailed)";
    world.backend.set_fault(Some(Fault::ObserveRefused(why)));
    let begun = Instant::now();
    let errors = [
        world.start(named("phone")).await.unwrap_err(),
        world
            .service
            .stop(None, StopReason::Requested)
            .await
            .unwrap_err(),
        world.service.status(None).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), "BackendRefused");
        assert!(error.to_string().contains("AuthorizationFailed"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(world.lease().lease.is_none(), "the stop holds all the same");
}
