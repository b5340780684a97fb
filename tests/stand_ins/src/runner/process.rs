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

mod capabilities;
mod namespace;

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::{Exit, Output, Place, Runner, RunnerError};
use crate::arm::{ContainerSpec, Sandbox};
use crate::cloud::Cloud;
use crate::server::metadata_service;

pub use capabilities::Capabilities;
use namespace::Namespace;

/// Between SIGTERM and SIGKILL; `terminationGracePeriodSeconds` of the service's hosts is 30.
const GRACE: Duration = Duration::from_secs(10);

/// How containers are run.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The program that stands for the image, and its arguments; a group's `command` replaces it.
    pub program: Vec<String>,
    /// What root may do in a container.
    pub capabilities: Capabilities,
    /// The bridge that sandboxes are joined to, and its address with the prefix length.
    pub bridge: (String, Ipv4Addr, u8),
    /// The resolver of containers.
    pub resolver: Option<IpAddr>,
}

/// Runs containers as processes. Needs root.
#[derive(Debug)]
pub struct ProcessRunner(ProcessOptions);

impl ProcessRunner {
    /// Makes the bridge, unless it is there.
    pub async fn new(options: ProcessOptions) -> Result<Self, RunnerError> {
        let (bridge, address, prefix) = &options.bridge;
        namespace::shell(&format!(
            "ip link show {bridge} >/dev/null 2>&1 || {{
               ip link add {bridge} type bridge
               ip address add {address}/{prefix} dev {bridge}
             }}
             ip link set {bridge} up"
        ))
        .await?;
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
        let (bridge, gateway, prefix) = &self.0.bridge;
        let resolver = self
            .0
            .resolver
            .map_or(String::new(), |ip| format!("nameserver {ip}\n"));
        let namespace = Namespace::new(&resolver).await?;
        let port = format!("sandbox{}", sandbox.id.0);
        namespace.join(bridge, &port).await?;
        if let Some(ip) = sandbox.ip {
            let script = format!(
                "ip address add {ip}/{prefix} dev eth0
                 ip link set eth0 up
                 ip route add default via {gateway}"
            );
            namespace.shell(&script).await?;
        }
        let failed = |error| RunnerError::new("the metadata service", error);
        let listener = namespace
            .enter(|| std::net::TcpListener::bind((Ipv4Addr::new(169, 254, 169, 254), 80)))
            .map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let (identities, cloud) = (sandbox.identities.clone(), Arc::clone(cloud));
        let metadata =
            tokio::spawn(async move { metadata_service(listener, &identities, &cloud).await });
        Ok(Box::new(ProcessPlace {
            options: self.0.clone(),
            namespace,
            metadata,
            stop: watch::Sender::new(false),
        }))
    }
}

struct ProcessPlace {
    options: ProcessOptions,
    namespace: Namespace,
    metadata: JoinHandle<()>,
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
        let mut command = self.namespace.command("setpriv");
        command
            .args(capabilities.arguments())
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
        if let Some(stream) = child.stdout.take() {
            tokio::spawn(copy(stream, output.clone()));
        }
        if let Some(stream) = child.stderr.take() {
            tokio::spawn(copy(stream, output));
        }
        let (sender, exit) = oneshot::channel();
        tokio::spawn(attend(child, self.stop.subscribe(), sender));
        Ok(exit)
    }

    async fn close(self: Box<Self>) {
        self.stop.send_replace(true);
        // Every container's task holds a receiver until its process has ended.
        let _ = tokio::time::timeout(GRACE * 2, self.stop.closed()).await;
        self.metadata.abort();
        self.namespace.close().await;
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
    let code = status.map_or(-1, code);
    let _ = exit.send(code);
}

fn code(status: ExitStatus) -> i32 {
    let signalled = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signalled).unwrap_or(-1)
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

async fn copy(mut stream: impl AsyncRead + Unpin, output: Output) {
    let mut buffer = vec![0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        output.write(buffer.get(..length).unwrap_or_default());
    }
}
