//! Azure: gateways as container groups, driven through Azure Resource Manager (ARM).
//!
//! Invariant: URLs, JSON shapes and error codes of Azure are named below this module and in
//! `popup_store::azure`, and nowhere else.

pub mod arm;
mod backend;
mod credential;
mod errors;
mod group;
mod resolver;
mod setup;
mod sighting;

pub use backend::AzureBackend;
pub use credential::{CredentialError, credential};
pub use setup::{AzureError, open};
