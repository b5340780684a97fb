//! The whole product against the stand-ins: Functions host double, handler, Container Instances,
//! Azurite, the gateway as Container Instances would run it, and a real WireGuard client.
//!
//! ```text
//!  client 198.51.100.130 ──┐
//!                          ├─ [azure] 192.0.2.1: ARM, identities, Azurite, DNS, Functions host
//!  internet 198.51.100.10 ─┘      │ bridge 203.0.113.1
//!                                 └─ sandbox 203.0.113.100…: gateway, metadata
//! ```

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking, and its modules are not a library"
)]

mod boxes;
mod cloud;
mod containers;
mod convergence;
mod documents;
mod faults;
mod function_app;
mod killed;
mod parallel;
mod storage;
mod vpn;

#[path = "../../../lab/namespace.rs"]
mod namespace;

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer. Panics, naming `what`, when patience ends.
fn eventually<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            begun.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
