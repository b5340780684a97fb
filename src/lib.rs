//! The handler of Popup VPN: the HTTP API, the control plane behind it, and the local backend.
//!
//! Dependencies point one way: `http` → `vpn` → its traits ← `local`.

#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod error;
pub mod http;
pub mod local;
pub mod vpn;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::Error;
