//! What really runs containers.

mod capabilities;
mod fake;
mod namespace;
mod podman;
mod process;
mod sandbox_network;

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use crate::arm::{ContainerEvent, ContainerSpec, Happening, Sandbox, SandboxId};
use crate::cloud::Cloud;

pub use capabilities::Capabilities;
pub use fake::{FakeRunner, Script};
pub use podman::{PodmanOptions, PodmanRunner};
pub use process::{ProcessOptions, ProcessRunner};
pub use sandbox_network::NetworkOptions;

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

    /// Takes what a process prints from now on.
    fn follow(&self, child: &mut Child) {
        if let Some(stream) = child.stdout.take() {
            tokio::spawn(copy(stream, self.clone()));
        }
        if let Some(stream) = child.stderr.take() {
            tokio::spawn(copy(stream, self.clone()));
        }
    }
}

async fn copy(mut stream: impl AsyncRead + Unpin, output: Output) {
    let mut buffer = vec![0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        output.write(buffer.get(..length).unwrap_or_default());
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    let signalled = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signalled).unwrap_or(-1)
}
