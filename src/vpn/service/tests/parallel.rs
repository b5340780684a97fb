//! Many callers and many handlers at one moment.

use super::*;

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
async fn a_claim_left_by_a_dead_handler_holds_others_only_until_its_deadline() {
    let world = World::new();
    world.start(nobody()).await.unwrap();
    world.stop().await;
    let view = world.service.look(&"local".parse().unwrap()).await.unwrap();
    world
        .service
        .claim(view, Work::Create)
        .await
        .unwrap()
        .unwrap();
    let begun = Instant::now();
    assert!(world.start(nothing_said()).await.unwrap().ready);
    let waited = begun.elapsed().as_secs();
    assert!((29..=32).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_peer_was_written_without_its_knowing_still_gives_its_configuration() {
    for (request, before) in [(nothing_said(), 1), (named("laptop"), 0)] {
        let world = World::new();
        if before == 0 {
            world.start(named("phone")).await.unwrap();
        }
        world.store.overtake_after(before, |config| {
            let mut config = ServerConfig::from_json(config).unwrap();
            config.revision += 1;
            config.to_json().unwrap()
        });
        let started = world.start(request).await;
        assert!(has_config(&started), "{started:?}");
        assert_eq!(world.peers().len(), 2 - before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_loses_to_one_for_nobody_still_gives_a_configuration() {
    let world = World::new();
    let at = world.clock.now();
    world.store.intrude_after(2, move |lease| {
        let mut lease = LeaseDocument::from_json(lease).unwrap();
        lease::start(&mut lease, LeaseId::generate(), &nobody(), at);
        lease.to_json().unwrap()
    });
    let started = world.start(nothing_said()).await;
    assert!(has_config(&started), "{started:?}");
    assert!(!started.unwrap().begun);
    assert_eq!((world.peers().len(), world.backend.created()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_acts_stops_before_others_take_the_claim_for_over() {
    let world = World::new();
    let view = world.service.look(&"local".parse().unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let claim = world.service.claim(view, Work::Create).await;
    let until = claim.unwrap().unwrap().until;
    let left = until.duration_since(Instant::now()).as_secs_f64();
    assert!((14.9..=15.0).contains(&left), "{left} s");
    let deadline = world.lease().operation.unwrap().deadline;
    assert_eq!(deadline.duration_since(world.clock.now()).as_secs(), 20);
}
