//! The handler of Popup VPN: the HTTP API, the control plane behind it, and its backends.
//!
//! Dependencies point one way: `http` → `vpn` → its traits ← `azure`, `local`.

#![forbid(unsafe_code)]

pub mod azure;
pub mod check;
pub mod config;
pub mod error;
pub mod http;
pub mod local;
pub mod vpn;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::Error;
