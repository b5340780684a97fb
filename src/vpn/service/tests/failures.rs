//! What fails is told, and leaves nothing.

use super::super::start::Attempt;
use super::*;

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
async fn a_write_whose_answer_is_lost_leaves_neither_a_lease_nor_a_peer_of_a_failed_start() {
    let mut failed = 0;
    for successes in 0..6 {
        let world = World::new();
        world.store.lose_answer_after(successes);
        if world.start(named("phone")).await.is_ok() {
            continue;
        }
        failed += 1;
        assert!(world.lease().lease.is_none(), "after {successes} writes");
        assert!(world.peers().is_empty(), "after {successes} writes");
        world
            .tick_until(60, |s| matches!(s.state, State::Stopped | State::Failed))
            .await;
        assert_eq!(world.backend.running(), 0, "after {successes} writes");
    }
    assert!(
        failed >= 3,
        "claim, peer and lease are written before anything else"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_leaves_the_gateway_to_those_who_have_joined_it() {
    let world = World::new();
    let region = "local".parse().unwrap();
    let mut failing = Attempt::new(&world.service, region, &named("phone"));
    let committed = failing.commit().await.unwrap();
    let lease = committed.lease.clone();
    assert!(has_config(&world.start(named("laptop")).await));
    failing.abandon(committed, "injected".to_owned()).await;
    assert_eq!(world.lease().lease, Some(lease));
    assert_eq!(world.peers(), ["laptop"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_ends_a_gateway_that_is_not_ready() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(30));
    let region = "local".parse().unwrap();
    let mut failing = Attempt::new(&world.service, region, &named("phone"));
    let committed = failing.commit().await.unwrap();
    world.service.tick().await;
    failing.abandon(committed, "injected".to_owned()).await;
    assert!(world.lease().lease.is_none() && world.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_made_and_cannot_be_looked_at_is_left_to_become_ready() {
    let world = World::new();
    let fault = Fault::ObserveUnavailableOnceCreated;
    world.backend.set_fault(Some(fault));
    let started = world.start(named("phone")).await.unwrap();
    assert!(!started.ready && started.client_template.is_some());
    world.backend.set_fault(None);
    world
        .tick_until(5, |status| status.state == State::Running)
        .await;
    assert_eq!((world.peers().len(), world.backend.created()), (1, 1));
}
