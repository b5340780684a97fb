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
