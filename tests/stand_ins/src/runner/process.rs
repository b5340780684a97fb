//! Containers as processes: network, mount and process namespaces, and the capabilities that
//! Container Instances leaves a container.
//!
//! A sandbox is one set of namespaces, joined by a veth pair to a bridge that plays Azure's
//! network. Inside are the public address, the metadata service at 169.254.169.254, a resolver
//! configuration, and no `/dev/net/tun`. The image is not run: a program on this machine is,
//! chosen by [`ProcessOptions::program`].
//!
//! Invariant: nothing outlives this process. A sandbox lives as long as a pipe that is held here;
//! when that closes, the kernel ends its processes and takes its interfaces away.

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

/// Between SIGTERM and SIGKILL; `terminationGracePeriodSeconds` of the service's hosts is 30.
const GRACE: Duration = Duration::from_secs(10);

/// How containers are run.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The program that stands for the image, and its arguments; a group's `command` replaces it.
    pub program: Vec<String>,
    /// What root may do in a container.
    pub capabilities: Capabilities,
    /// What sandboxes are joined to.
    pub network: NetworkOptions,
}

/// Runs containers as processes. Needs root.
#[derive(Debug)]
pub struct ProcessRunner(ProcessOptions);

impl ProcessRunner {
    /// Makes the bridge, unless it is there.
    pub async fn new(options: ProcessOptions) -> Result<Self, RunnerError> {
        options.network.make_bridge().await?;
        Ok(Self(options))
    }
}

#[async_trait]
impl Runner for ProcessRunner {
    async fn open(
        &self,
        sandbox: &Sandbox,
        cloud: &Arc<Cloud>,
    ) -> Result<Box<dyn Place>, RunnerError> {
        let network = SandboxNetwork::open(&self.0.network, sandbox, cloud).await?;
        Ok(Box::new(ProcessPlace {
            options: self.0.clone(),
            network,
            stop: watch::Sender::new(false),
        }))
    }
}

struct ProcessPlace {
    options: ProcessOptions,
    network: SandboxNetwork,
    stop: watch::Sender<bool>,
}

#[async_trait]
impl Place for ProcessPlace {
    async fn run(&mut self, spec: &ContainerSpec, output: Output) -> Result<Exit, RunnerError> {
        let program = if spec.command.is_empty() {
            &self.options.program
        } else {
            &spec.command
        };
        let capabilities = if spec.privileged {
            Capabilities::All
        } else {
            self.options.capabilities
        };
        let mut command = self.network.namespace.command("setpriv");
        command
            .args(capabilities.for_setpriv())
            .arg("--")
            .args(program);
        command.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        let failed = |error| RunnerError::new("cannot start the container", error);
        let mut child = command.spawn().map_err(failed)?;
        output.follow(&mut child);
        let (sender, exit) = oneshot::channel();
        tokio::spawn(attend(child, self.stop.subscribe(), sender));
        Ok(exit)
    }

    async fn close(self: Box<Self>) {
        self.stop.send_replace(true);
        // Every container's task holds a receiver until its process has ended.
        let _ = tokio::time::timeout(GRACE * 2, self.stop.closed()).await;
        self.network.close().await;
    }
}

/// Waits for a process, and ends it when its sandbox is closed.
async fn attend(mut child: Child, mut stop: watch::Receiver<bool>, exit: oneshot::Sender<i32>) {
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = stopped => {
            terminate(&child);
            match tokio::time::timeout(GRACE, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    let _ = child.kill().await;
                    child.wait().await
                }
            }
        }
    };
    let code = status.map_or(-1, super::exit_code);
    let _ = exit.send(code);
}

/// SIGTERM to the container. `nsenter` forks into the process namespace, so it is its child that
/// is the container.
fn terminate(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(outer) = child.id() else {
        return;
    };
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
    let inner = children
        .unwrap_or_default()
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let pid = inner.unwrap_or(outer.cast_signed());
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::TERM);
    }
}
