//! The handler, and the check of a client configuration.

pub mod check;
