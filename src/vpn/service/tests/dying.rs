//! Handlers that die before their answer: nobody has the key of their peer.

use popup_model::{PrivateKey, PublicKey};

use super::super::start::Attempt;
use super::*;

const LONG_DEAD: Duration = Duration::from_secs(501);

/// As if the handler had been killed right after it had written its documents.
async fn dies_after_writing(world: &World, request: &StartRequest) {
    let mut attempt = Attempt::new(&world.another_handler(), "local".parse().unwrap(), request);
    attempt.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_peer_of_a_dead_start_goes_and_its_vpn_stays() {
    let world = World::new();
    dies_after_writing(&world, &named("phone")).await;
    for wait in [Duration::ZERO, LONG_DEAD - Duration::from_secs(2)] {
        tokio::time::sleep(wait).await;
        world.service.tick().await;
        assert_eq!(world.peers(), ["phone"], "it may be answered yet");
        assert_eq!(world.status().await.state, State::Running);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.service.tick().await;
    assert!(world.peers().is_empty());
    assert_eq!(world.status().await.state, State::Running);
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_dead_start_can_be_used_again_without_a_tick() {
    let world = World::new();
    dies_after_writing(&world, &named("phone")).await;
    let waiting = world.start(named("phone")).await.unwrap();
    assert!(waiting.client_config.is_none(), "another has the name");
    tokio::time::sleep(LONG_DEAD).await;
    assert!(has_config(&world.start(named("phone")).await));
    assert_eq!(world.peers(), ["phone"]);
    assert_eq!(world.backend.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_vpn_whose_only_peer_was_a_dead_starts_gives_one_to_the_next() {
    let world = World::new();
    dies_after_writing(&world, &nothing_said()).await;
    assert!(!has_config(&world.start(nothing_said()).await));
    tokio::time::sleep(LONG_DEAD).await;
    assert!(has_config(&world.start(nothing_said()).await));
    assert!(!has_config(&world.start(nothing_said()).await));
    assert_eq!((world.peers().len(), world.backend.created()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_start_has_replaced_comes_back() {
    let world = World::new();
    let phone = world.start(named("phone")).await.unwrap();
    dies_after_writing(&world, &replacing("phone")).await;
    tokio::time::sleep(LONG_DEAD).await;
    world.service.tick().await;
    let status = world.status().await;
    assert_eq!(
        status.peers[0].public_key,
        phone.placed.unwrap().peer.public_key
    );
}

#[tokio::test(start_paused = true)]
async fn an_answered_start_is_not_taken_for_dead() {
    let world = World::new();
    world.start(named("phone")).await.unwrap();
    world.backend.set_start_time(Duration::from_secs(300));
    world.start(replacing("phone")).await.unwrap();
    let status = world.status().await;
    tokio::time::sleep(LONG_DEAD).await;
    world.service.tick().await;
    assert_eq!(
        world.status().await.peers[0].public_key,
        status.peers[0].public_key
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_peer_was_replaced_meanwhile_gives_no_dead_configuration() {
    let world = World::new();
    world.backend.set_start_time(Duration::from_secs(30));
    let (first, second) = tokio::join!(world.start(named("phone")), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.start(replacing("phone")).await
    });
    assert_eq!(first.unwrap_err().code(), "PeerChanged");
    assert!(has_config(&second));
}

/// For a peer that brings its own key.
fn with_key(public_key: PublicKey, replace: bool) -> StartRequest {
    let wish = PeerWish {
        name: Some("phone".parse().unwrap()),
        public_key: Some(public_key),
        replace,
        ..PeerWish::default()
    };
    StartRequest {
        peer: PeerRequest::Wanted(wish),
        ..StartRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_preshared_key_was_replaced_meanwhile_gives_no_dead_configuration() {
    let world = World::new();
    let key = PrivateKey::generate().public_key();
    world.backend.set_start_time(Duration::from_secs(30));
    let (first, second) = tokio::join!(world.start(with_key(key, true)), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.start(with_key(key, true)).await
    });
    assert_eq!(first.unwrap_err().code(), "PeerChanged");
    assert!(has_config(&second));
}

#[tokio::test(start_paused = true)]
async fn the_peer_of_a_dead_start_stays_when_the_owner_of_its_key_asks_again() {
    let world = World::new();
    let key = PrivateKey::generate().public_key();
    dies_after_writing(&world, &with_key(key, false)).await;
    assert!(world.start(with_key(key, false)).await.unwrap().ready);
    tokio::time::sleep(LONG_DEAD).await;
    world.service.tick().await;
    assert_eq!(world.peers(), ["phone"]);
}
