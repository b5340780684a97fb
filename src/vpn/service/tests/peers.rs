//! Removing peers.

use super::*;

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
async fn a_peer_can_be_found_and_removed_while_the_backend_cannot_be_reached() {
    let world = World::new();
    world.start(named("phone")).await.unwrap();
    world.backend.set_fault(Some(Fault::ObserveUnavailable));
    let peers = world.service.peers(None).await.unwrap();
    assert!(peers[0].connected, "what the gateway said is still there");
    let name = &peers[0].name;
    assert_eq!(
        world.service.remove_peer(name).await.unwrap().peer.name,
        *name
    );
    assert!(world.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn removing_a_peer_is_answered_in_time_though_storage_hangs() {
    let world = World::new();
    world.start(named("phone")).await.unwrap();
    let begun = Instant::now();
    let name = "phone".parse().unwrap();
    let (removed, ()) = tokio::join!(world.service.remove_peer(&name), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.store.set_silent(true);
    });
    assert!(!removed.unwrap().applied);
    assert!(begun.elapsed() <= Duration::from_secs(11));
}
