//! What really runs containers.

mod fake;
mod process;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::arm::{ContainerEvent, ContainerSpec, Happening, Sandbox, SandboxId};
use crate::cloud::Cloud;

pub use fake::{FakeRunner, Script};
pub use process::{Capabilities, ProcessOptions, ProcessRunner};

/// Makes sandboxes: a network, an address, a metadata service.
#[async_trait]
pub trait Runner: std::fmt::Debug + Send + Sync {
    /// Makes one. Its metadata service asks `cloud` whether it may answer.
    async fn open(
        &self,
        sandbox: &Sandbox,
        cloud: &Arc<Cloud>,
    ) -> Result<Box<dyn Place>, RunnerError>;
}

/// A sandbox that has been made.
#[async_trait]
pub trait Place: Send {
    /// Starts a container; what is returned says how it ended.
    async fn run(&mut self, spec: &ContainerSpec, output: Output) -> Result<Exit, RunnerError>;

    /// Ends every container, politely first, and takes the sandbox away.
    async fn close(self: Box<Self>);
}

/// Receives the exit code of a container; 128 + n when signal n ended it.
pub type Exit = oneshot::Receiver<i32>;

/// A container or its sandbox could not be made. The text is for the container's events.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunnerError(pub String);

impl RunnerError {
    /// With what was tried.
    pub fn new(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Where a container's output goes.
#[derive(Debug, Clone)]
pub struct Output {
    events: mpsc::UnboundedSender<ContainerEvent>,
    sandbox: SandboxId,
    index: usize,
}

impl Output {
    pub(crate) fn new(
        events: mpsc::UnboundedSender<ContainerEvent>,
        sandbox: SandboxId,
        index: usize,
    ) -> Self {
        Self {
            events,
            sandbox,
            index,
        }
    }

    /// Takes what was printed.
    pub fn write(&self, bytes: &[u8]) {
        let happening = Happening::Output(self.index, bytes.to_vec());
        let sandbox = self.sandbox;
        // Nobody listens any more once the cloud has ended.
        let _ = self.events.send(ContainerEvent { sandbox, happening });
    }
}
