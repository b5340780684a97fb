//! One box: network, mount and process namespaces held by an anchor process.
//!
//! Invariant: nothing outlives the bench, however it ends. The anchor reads a pipe that the bench
//! holds; when that closes, the kernel ends every process in the box and takes its cables away.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A box. Everything in it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    anchor: Child,
    /// The box's process 1, as numbered outside.
    init: u32,
}

impl Namespace {
    /// Makes a box and runs the shell commands `setup` in it.
    pub(crate) fn new(setup: &str) -> Result<Self> {
        let script = format!(
            "mount -t sysfs sysfs /sys\nmount -t tmpfs tmpfs /run\nmkdir /run/wireguard\nip link set lo up\n\
             {setup}\necho ready\nexec cat >/dev/null"
        );
        let mut anchor = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "--propagation", "private", "--"])
            .args(["sh", "-euc", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare does not start")?;
        let mut ready = [0; 6];
        let output = anchor.stdout.as_mut().context("a pipe")?;
        if output.read_exact(&mut ready).is_err() || &ready != b"ready\n" {
            bail!("a namespace cannot be made (as root? in a container: --privileged):\n{setup}");
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", anchor.id()))?;
        let init = children.split_whitespace().next().context("no process 1")?;
        let init = init.parse()?;
        Ok(Self { anchor, init })
    }

    /// A command that will run in the box, on these cores.
    pub(crate) fn command(&self, core: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--net", "--mount", "--pid", "--"])
            .args(["taskset", "--cpu-list", core, program])
            .stdin(Stdio::null());
        command
    }

    /// Runs shell commands in the box; they must succeed.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--net", "--mount", "--pid", "--"])
            .args(["sh", "-euc", script]);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "{script}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a thread whose sockets are made in the box.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let net = fs::File::open(format!("/proc/{}/ns/net", self.init))?;
        let thread = std::thread::Builder::new().spawn(move || {
            // Without it the thread would measure another network: better none at all.
            move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|error| panic!("the box cannot be entered: {error}"));
            work()
        })?;
        Ok(thread)
    }

    /// Runs `work` with its sockets made in the box and waits for it.
    pub(crate) fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        join(self.spawn(work)?)
    }

    /// Lays a cable from `here` in this box to `there` in the other.
    pub(super) fn connect(&self, here: &str, other: &Self, there: &str) -> Result<()> {
        // Entered by its network alone, since the other box's number is one of the outside.
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--net", "--"])
            .args(["ip", "link", "add", here, "type", "veth"])
            .args(["peer", "name", there, "netns", &other.init.to_string()]);
        let output = command.output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "a veth pair cannot be made: {error}"
        );
        Ok(())
    }

    /// The outside numbers of the box's processes with this name.
    pub(crate) fn processes(&self, name: &str) -> Result<Vec<u32>> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.init))?;
        let pids = fs::read_dir("/proc")?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let here = pids.filter(|pid: &u32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let space = fs::read_link(format!("/proc/{pid}/ns/pid"));
            comm.trim_end() == name && space.is_ok_and(|space| space == own)
        });
        Ok(here.collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.anchor.stdin.take());
        self.anchor.wait().ok();
    }
}

/// What a thread came back with.
fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
