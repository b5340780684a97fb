//! Stops, alone and against starts.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_region_stops_them_all() {
    let world = World::with_two_regions(HOUR).await;
    assert!(world.stop().await);
    for region in ["here", "there"] {
        let region = region.parse().unwrap();
        let status = world.service.status(Some(&region)).await.unwrap();
        assert_eq!(status.state, State::Stopped, "{region}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_the_lease_away_though_the_backend_cannot_be_reached() {
    let world = World::new();
    world.start(nobody()).await.unwrap();
    world.backend.set_fault(Some(Fault::ObserveUnavailable));
    let error = world.service.stop(None, StopReason::Requested).await;
    assert_eq!(error.unwrap_err().code(), "BackendUnavailable");
    assert!(world.lease().lease.is_none());
    world.backend.set_fault(None);
    world.service.tick().await;
    assert_eq!(world.backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_does_not_answer_costs_the_others_no_time_of_a_stop() {
    let world = World::with_two_regions(HOUR).await;
    let silent = Fault::Silent("here".parse().unwrap());
    world.backend.set_fault(Some(silent));
    let begun = Instant::now();
    assert!(!world.stop().await, "one of them is still there");
    assert!(begun.elapsed() <= Duration::from_secs(21));
    for region in ["here", "there"] {
        assert!(world.lease_in(region).lease.is_none(), "{region}");
    }
    assert_eq!(world.backend.running(), 1);
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
async fn a_stop_right_before_a_start_writes_its_lease_wins() {
    let world = World::new();
    let at = world.clock.now();
    world.store.intrude_after(2, move |lease| {
        let mut lease = LeaseDocument::from_json(lease).unwrap();
        assert!(lease::revoke(&mut lease, at, StopReason::Requested));
        lease.to_json().unwrap()
    });
    let error = world.start(nothing_said()).await.unwrap_err();
    assert_eq!(error.code(), "Interrupted");
    assert!(world.lease().lease.is_none() && world.peers().is_empty());
    assert_eq!(world.backend.created(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_a_platform_alone_that_asks_for_it() {
    for (after_s, looks) in [(7, 3), (600, 1)] {
        let world = World::new();
        world.start(nobody()).await.unwrap();
        world
            .backend
            .set_fault(Some(Fault::ObserveThrottled(after_s)));
        let (before, begun) = (world.backend.observed(), Instant::now());
        let error = world.service.stop(None, StopReason::Requested).await;
        assert_eq!(error.unwrap_err().code(), "Throttled");
        assert!(begun.elapsed() <= Duration::from_secs(21));
        assert_eq!(world.backend.observed() - before, looks);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ends_does_not_wait_for_a_stop() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(10));
    world.start(nobody()).await.unwrap();
    let begun = Instant::now();
    let (stopped, ()) = tokio::join!(world.service.stop(None, StopReason::Requested), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.service.begin_shutdown();
    });
    assert!(!stopped.unwrap() && begun.elapsed() < Duration::from_secs(2));
    let own = world.service.stop(None, StopReason::HandlerStopped).await;
    assert!(own.unwrap(), "its own gateways are waited for");
    assert_eq!(world.backend.running(), 0);
}
