//! Answers in time, whatever is late.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_late_gets_a_lease_and_the_caller_an_answer_in_time() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(300));
    let begun = Instant::now();
    let started = world.start(nothing_said()).await.unwrap();
    assert!(!started.ready && begun.elapsed() < Duration::from_secs(205));
    assert!(
        started.client_template.is_some(),
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

/// A start that is answered in time with its key, and whose peer is not taken for dead later.
async fn is_answered_in_time_with_its_key(fail: impl Fn(&World, bool)) {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(300));
    let begun = Instant::now();
    let (started, ()) = tokio::join!(world.start(named("phone")), async {
        tokio::time::sleep(Duration::from_secs(190)).await;
        fail(&world, true);
    });
    assert!(
        begun.elapsed() <= Duration::from_secs(200),
        "{:?}",
        begun.elapsed()
    );
    let started = started.unwrap();
    assert!(!started.ready);
    let text = started.client_config.or(started.client_template).unwrap();
    assert!(text.contains("PrivateKey = "));
    tokio::time::sleep(Duration::from_secs(20)).await;
    fail(&world, false);
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.service.tick().await;
    assert_eq!(world.peers(), ["phone"]);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_hangs_at_the_end_costs_neither_the_answer_nor_the_peer() {
    is_answered_in_time_with_its_key(|world, silent| world.store.set_silent(silent)).await;
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_fails_at_the_end_costs_neither_the_answer_nor_the_peer() {
    is_answered_in_time_with_its_key(|world, fail| {
        world.store.fail_reads(fail);
        world.store.fail_writes_after(fail.then_some(0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_written_in_time_leaves_nothing() {
    let world = World::new();
    world.store.set_silent(true);
    let begun = Instant::now();
    assert_eq!(
        world.start(named("phone")).await.unwrap_err().code(),
        "Busy"
    );
    assert_eq!(begun.elapsed().as_secs(), 200);
    world.store.set_silent(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.peers().is_empty());
    assert_eq!(world.status().await.state, State::Stopped);
    assert_eq!(world.backend.created(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_on_its_way_outlives_an_outage_of_the_platform() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(30));
    let (started, ()) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.backend.set_fault(Some(Fault::ObserveUnavailable));
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.backend.set_fault(None);
    });
    assert!(started.unwrap().ready);
    assert_eq!(world.backend.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_on_its_way_outlives_throttling() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(30));
    let (started, ()) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.backend.set_fault(Some(Fault::ObserveThrottled(600)));
    });
    let started = started.unwrap();
    assert!(!started.ready && started.client_template.is_some());
    assert_eq!(world.lease().lease, Some(started.lease));
    assert_eq!(world.peers(), ["peer-1"]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_wait_does_not_wait_for_a_platform_that_hangs() {
    let world = World::new();
    world.backend.set_fault(Some(Fault::CreateHangs));
    let request = StartRequest {
        respond_async: true,
        ..nothing_said()
    };
    let begun = Instant::now();
    let started = world.start(request).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(!started.ready && started.client_template.is_some());
    world.backend.set_fault(None);
    world
        .tick_until(60, |status| status.state == State::Running)
        .await;
    assert_eq!(world.peers(), ["peer-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ends_does_not_wait_for_a_platform_that_hangs() {
    let world = World::new();
    world.backend.set_fault(Some(Fault::CreateHangs));
    let begun = Instant::now();
    let (started, ()) = tokio::join!(world.start(nothing_said()), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.service.begin_shutdown();
    });
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(started.unwrap().client_template.is_some());
}
