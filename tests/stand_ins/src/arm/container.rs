//! What the simulation and whoever runs containers say to each other.

use std::fmt;
use std::net::Ipv4Addr;

use super::Identity;

/// One start of a group: an address and a place for its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub u64);

/// What all containers of a started group share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Which one.
    pub id: SandboxId,
    /// The group's name.
    pub group: String,
    /// Its public address; none for a group without one.
    pub ip: Option<Ipv4Addr>,
    /// The identities that its metadata service answers for.
    pub identities: Vec<Identity>,
}

/// A container to be run.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its place in the group.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The image.
    pub image: String,
    /// Instead of the image's entry point, when not empty.
    pub command: Vec<String>,
    /// The environment, secure values included.
    pub environment: Vec<(String, String)>,
    /// Whether it may do as root does; only the Confidential SKU allows it.
    pub privileged: bool,
}

impl fmt::Debug for ContainerSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secret.
        let names: Vec<&str> = self
            .environment
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        formatter
            .debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("command", &self.command)
            .field("environment", &names)
            .field("privileged", &self.privileged)
            .finish_non_exhaustive()
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a sandbox.
    Open(Sandbox),
    /// Run a container in it; [`Happening::Started`] or [`Happening::CannotStart`] follows.
    Run(SandboxId, ContainerSpec),
    /// End everything in it; [`Happening::Closed`] follows.
    Close(SandboxId),
    /// From now on a name means this address, or nothing.
    Resolve(String, Option<Ipv4Addr>),
}

/// Something that happened in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Where.
    pub sandbox: SandboxId,
    /// What.
    pub happening: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The container at this place runs.
    Started(usize),
    /// It could not be started, and why.
    CannotStart(usize, String),
    /// It printed something.
    Output(usize, Vec<u8>),
    /// It ended with this code.
    Exited(usize, i32),
    /// Nothing of the sandbox is left.
    Closed,
}
