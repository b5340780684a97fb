//! Containers by Podman, from the images that groups name, as Container Instances' Standard SKU
//! most likely runs them: docker's default capabilities and what docker's seccomp profile denies.
//!
//! A sandbox's network is the same as a process's; its containers join it. The images are those of
//! root's own storage, and are only read: containers live in a store of the runner's own, so that
//! nothing of them stays behind, and many runners can work side by side.

mod engine;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

use super::sandbox_network::{NetworkOptions, SandboxNetwork};
use super::{Capabilities, Exit, Output, Place, Runner, RunnerError};
use crate::arm::{ContainerSpec, Sandbox};
use crate::cloud::Cloud;
use engine::Engine;

/// Between SIGTERM and SIGKILL; `terminationGracePeriodSeconds` of the service's hosts is 30.
const GRACE: Duration = Duration::from_secs(10);

/// How containers are run.
#[derive(Debug, Clone)]
pub struct PodmanOptions {
    /// What root may do in a container.
    pub capabilities: Capabilities,
    /// A seccomp profile; one that denies what docker's does when absent.
    pub seccomp: Option<PathBuf>,
    /// What sandboxes are joined to.
    pub network: NetworkOptions,
}

/// Runs containers by Podman. Needs root.
#[derive(Debug)]
pub struct PodmanRunner {
    options: PodmanOptions,
    engine: Arc<Engine>,
}

impl PodmanRunner {
    /// Makes the bridge, unless it is there, and a store for containers.
    pub async fn new(options: PodmanOptions) -> Result<Self, RunnerError> {
        options.network.make_bridge().await?;
        let engine = Engine::new(&options).await?;
        Ok(Self {
            options,
            engine: Arc::new(engine),
        })
    }
}

#[async_trait]
impl Runner for PodmanRunner {
    async fn open(
        &self,
        sandbox: &Sandbox,
        cloud: &Arc<Cloud>,
    ) -> Result<Box<dyn Place>, RunnerError> {
        let network = SandboxNetwork::open(&self.options.network, sandbox, cloud).await?;
        Ok(Box::new(PodmanPlace {
            capabilities: self.options.capabilities,
            engine: Arc::clone(&self.engine),
            name: format!("sandbox{}", sandbox.id.0),
            network,
            started: 0,
            stop: watch::Sender::new(false),
        }))
    }
}

struct PodmanPlace {
    capabilities: Capabilities,
    engine: Arc<Engine>,
    name: String,
    network: SandboxNetwork,
    /// How many containers have been started so far.
    started: u32,
    stop: watch::Sender<bool>,
}

#[async_trait]
impl Place for PodmanPlace {
    async fn run(&mut self, spec: &ContainerSpec, output: Output) -> Result<Exit, RunnerError> {
        let capabilities = if spec.privileged {
            Capabilities::All
        } else {
            self.capabilities
        };
        self.started += 1;
        let name = format!("{}-{}", self.name, self.started);
        let network = self.network.namespace.network();
        self.engine
            .create(&name, &network, capabilities, spec)
            .await?;
        let mut command = self.engine.command();
        command.args(["start", "--attach", &name]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed = |error| RunnerError::new("cannot start the container", error);
        let mut child = command.spawn().map_err(failed)?;
        output.follow(&mut child);
        let (sender, exit) = oneshot::channel();
        let engine = Arc::clone(&self.engine);
        tokio::spawn(attend(engine, name, child, self.stop.subscribe(), sender));
        Ok(exit)
    }

    async fn close(self: Box<Self>) {
        self.stop.send_replace(true);
        // Every container's task holds a receiver until its container has ended.
        let _ = tokio::time::timeout(GRACE * 2, self.stop.closed()).await;
        self.network.close().await;
    }
}

/// Waits for a container, and ends it when its sandbox is closed.
async fn attend(
    engine: Arc<Engine>,
    name: String,
    mut child: Child,
    mut stop: watch::Receiver<bool>,
    exit: oneshot::Sender<i32>,
) {
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = stopped => {
            engine.stop(&name, GRACE).await;
            child.wait().await
        }
    };
    // Podman's status is the container's: 128 + n when signal n ended it.
    let _ = exit.send(status.map_or(-1, super::exit_code));
    engine.remove(&name).await;
}
