//! Connections that all have more to say than there is time for.

use crate::support::World;
use crate::tcp::{SECOND, SERVER, pattern};

/// Bytes of a turn and of a round.
const BURST: usize = 45 * 1380;
const ROUND: usize = 256 * 1024;

/// Bytes of a download after which it knows a path that holds megabytes.
const LEARNT: usize = 4_000_000;

/// So many downloads, which have learnt of a fast path, and whose outside has more to say from now
/// on.
fn fast_downloads(count: usize) -> World {
    let mut world = World::new(1);
    world.outside.greeting = pattern(LEARNT);
    let connect = |_| (world.clients[0].connect(SERVER.parse().unwrap()), 0);
    let mut handles: Vec<_> = (0..count).map(connect).collect();
    assert!(world.run_until(60 * SECOND, |world| {
        for (handle, got) in &mut handles {
            let socket = world.clients[0].tcp(*handle);
            while socket.can_recv() {
                *got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
            }
        }
        handles.iter().all(|(_, got)| *got == LEARNT)
    }));
    world.run_for(SECOND);
    for connection in world.outside.connections.values_mut() {
        connection.to_send.extend(pattern(LEARNT));
    }
    let flows: Vec<_> = world.outside.connections.keys().copied().collect();
    for flow in flows {
        let now = world.now;
        world.outside.pump(&mut world.gateway, now, flow);
    }
    world
}

fn sent(world: &World) -> usize {
    let connections = world.outside.connections.values();
    connections.map(|connection| connection.sent).sum()
}

#[test]
fn a_turn_brings_a_burst_and_a_round_a_few_turns() {
    for count in [1, 8] {
        let mut world = fast_downloads(count);
        let brought = sent(&world) - count * LEARNT;
        assert!(brought > 0 && brought <= count * BURST, "{brought} bytes");
        let before = sent(&world);
        world.drain();
        let brought = sent(&world) - before;
        assert!(brought > 0 && brought <= ROUND + BURST, "{brought} bytes");
    }
}
