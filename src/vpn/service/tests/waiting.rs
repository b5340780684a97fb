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
