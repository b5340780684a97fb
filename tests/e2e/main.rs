//! The product end to end: real WireGuard clients, real sockets, no privileges for the gateway.
//!
//! Each test builds a lab of its own ([`lab`]) and needs root for that; the programs under test
//! run as uid 65534 with an empty capability set.

#![expect(unreachable_pub, reason = "the lab is written like a library")]

#[path = "../lab/mod.rs"]
mod lab;

mod lab_itself;
