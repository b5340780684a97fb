//! Azure Resource Manager's container groups, as a state machine.
//!
//! Theory of operation: [`Simulation`] takes requests, what containers did, and the time; it gives
//! replies and commands for whoever runs containers. After each input, drain
//! [`Simulation::poll_command`] and call [`Simulation::handle_timeout`] at
//! [`Simulation::poll_timeout`]. It has no clock of its own, so a test needs no waiting.
//!
//! A group goes `Pending → Creating → Succeeded` at the pace of [`Delays`]; each start is a new
//! *sandbox* with a new address. Everything that is still under way for an older sandbox is
//! ignored. Where the behaviour was not recorded from the real service, the item says so.
//!
//! Sources: the swagger of 2021-03-01 and its examples, the type files of 2023-05-01 and
//! 2025-09-01, and recordings of azure-cli's tests (Azure/azure-cli,
//! `test_container_create_with_confidential_sku.yaml`).

mod address;
mod container;
mod delays;
mod error;
mod fault;
mod group;
mod identity;
mod log;
mod operation;
mod path;
mod quota;
mod roles;
mod rules;
mod schema;
mod settings;
mod simulation;
mod spec;
#[cfg(test)]
mod tests;
mod update;
mod view;

pub use container::{Command, ContainerEvent, ContainerSpec, Happening, Sandbox, SandboxId};
pub use delays::Delays;
pub use error::ArmError;
pub use fault::{Admission, Fault, Faults, Kind};
pub use identity::Identity;
pub use quota::Quotas;
pub use roles::Roles;
pub use settings::{LongRunning, Settings};
pub use simulation::{Reply, Request, Simulation, Summary};
pub use view::GroupSummary;
