//! Azure's neighbours as the tests need them: software with states and delays, not canned answers.
//!
//! [`arm`] decides what Container Instances would do and knows no clock, socket or process;
//! [`cloud`] drives it by the clock and lets a [`runner`] really run the containers; [`server`] is
//! its HTTP shell, with the token endpoints beside it.

#![forbid(unsafe_code)]

pub mod arm;
pub mod azurite;
pub mod client;
pub mod cloud;
pub mod dns;
pub mod functions_host;
pub mod proxy;
pub mod runner;
pub mod server;
pub mod tls;
pub mod token;
