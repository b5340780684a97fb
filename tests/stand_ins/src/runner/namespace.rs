//! One set of network, mount and process namespaces, held by an anchor process.

use std::io;
use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::runner::RunnerError;

#[derive(Debug)]
pub(super) struct Namespace {
    anchor: Child,
    /// Process 1 inside, as numbered outside.
    init: u32,
    /// What is mounted over files inside.
    _files: TempDir,
}

/// Runs shell commands in the present namespaces; they must succeed.
pub(super) async fn shell(script: &str) -> Result<(), RunnerError> {
    let mut command = Command::new("sh");
    command.args(["-euc", script]);
    succeed(command, script).await
}

async fn succeed(mut command: Command, what: &str) -> Result<(), RunnerError> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await;
    let output = output.map_err(|error| RunnerError::new("cannot run a command", error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(RunnerError::new(what, text))
}

impl Namespace {
    pub(super) async fn new(resolv_conf: &str) -> Result<Self, RunnerError> {
        let failed = |error: io::Error| RunnerError::new("cannot make namespaces", error);
        let files = tempfile::Builder::new()
            .prefix("popup-sandbox-")
            .tempdir()
            .map_err(failed)?;
        let resolv = files.path().join("resolv.conf");
        tokio::fs::write(&resolv, resolv_conf)
            .await
            .map_err(failed)?;
        // containerd opens low ports and ping sockets to everybody in a container's own network
        // (`enable_unprivileged_ports`, `enable_unprivileged_icmp`).
        let script = format!(
            "ip link set lo up
             ip address add 169.254.169.254/32 dev lo
             mount -t tmpfs tmpfs /dev/net
             mount --bind '{}' \"$(readlink -f /etc/resolv.conf)\"
             echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
             echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
             echo ready
             exec cat >/dev/null",
            resolv.display()
        );
        let mut anchor = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "private", "--", "sh", "-euc", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut ready = [0; 6];
        if let Some(stdout) = &mut anchor.stdout {
            stdout.read_exact(&mut ready).await.map_err(failed)?;
        }
        let pid = anchor.id().unwrap_or_default();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.map_err(failed)?;
        let init = children
            .split_whitespace()
            .next()
            .and_then(|text| text.parse().ok());
        let init = init.ok_or_else(|| RunnerError("the namespaces have no process".to_owned()))?;
        Ok(Self {
            anchor,
            init,
            _files: files,
        })
    }

    /// A command that will run inside.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.init.to_string();
        command.args([
            "--target", &init, "--net", "--mount", "--pid", "--", program,
        ]);
        command
    }

    /// The network namespace, for programs that join it by its path.
    pub(super) fn network(&self) -> String {
        format!("/proc/{}/ns/net", self.init)
    }

    /// Runs shell commands inside; they must succeed.
    pub(super) async fn shell(&self, script: &str) -> Result<(), RunnerError> {
        let mut command = self.command("sh");
        command.args(["-euc", script]);
        succeed(command, script).await
    }

    /// Lays a cable from `eth0` inside to `port` of a bridge outside.
    pub(super) async fn join(&self, bridge: &str, port: &str) -> Result<(), RunnerError> {
        let init = self.init;
        shell(&format!(
            "ip link add {port} type veth peer name eth0 netns {init}
             ip link set {port} master {bridge}
             ip link set {port} up"
        ))
        .await
    }

    /// Runs `work` on a thread whose sockets are made inside.
    pub(super) fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let net = std::fs::File::open(self.network())?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// Ends everything inside and waits until it is gone.
    pub(super) async fn close(mut self) {
        drop(self.anchor.stdin.take());
        if tokio::time::timeout(Duration::from_secs(5), self.anchor.wait())
            .await
            .is_err()
        {
            let _ = self.anchor.kill().await;
        }
    }
}
