//! The gateway without its input and output: packets and time in, packets and commands out.
//!
//! Drive invariant: one input, then drain. After each `handle_*` call the shell takes every
//! transmit and every command before it brings the next input.

mod boring;
mod drop_reason;
pub mod session;

pub use boring::{BoringInterface, BoringSession};
pub use drop_reason::{DropCounters, DropReason};
