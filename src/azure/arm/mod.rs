//! A typed client for container groups, API version 2023-05-01.
//!
//! The official management crate is of a generation that is end of life, and its long-running
//! operations are wrong; its models judge the ones here, in tests.

mod client;
mod error;
mod model;
mod operation;

pub use client::ArmClient;
pub(super) use error::printable;
pub use error::{ArmError, Failure, RequestError};
pub use model::*;
pub use operation::{Operation, OperationStatus};

/// The version that all requests name.
pub const API_VERSION: &str = "2023-05-01";
