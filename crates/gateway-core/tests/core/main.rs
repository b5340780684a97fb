//! The gateway's core against simulated clients and a simulated outside, and the WireGuard
//! library against itself.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails shall fail loudly"
)]

mod endings;
mod raw;
mod routing;
mod shards;
mod sharing;
mod steady_state;
mod support;
mod tcp;
mod trains;
mod wireguard;
