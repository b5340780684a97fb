//! Podman's command line, with settings and a store of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::PodmanOptions;
use crate::arm::ContainerSpec;
use crate::runner::{Capabilities, RunnerError};

/// Denies what docker's default profile does; see the file.
const SECCOMP: &str = include_str!("../../../../container/seccomp.json");

/// A root without CAP_SYS_RESOURCE cannot raise limits. Locks are files because the usual ones are
/// shared memory, and so would be shared with every other store on the machine.
const SETTINGS: &str = r#"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
default_sysctls = []
log_driver = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"

[network]
network_backend = "netavark"
"#;

/// Podman needs these itself, so containers cannot be given theirs through its environment.
const OWN: [(&str, &str); 2] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
];

#[derive(Debug)]
pub(super) struct Engine {
    /// Settings and store.
    directory: TempDir,
    /// Where root's images are, and the driver they are kept by.
    images: (String, String),
    seccomp: PathBuf,
}

impl Engine {
    pub(super) async fn new(options: &PodmanOptions) -> Result<Self, RunnerError> {
        let failed = |error| RunnerError::new("Podman's directory", error);
        let directory = tempfile::Builder::new()
            .prefix("podman-")
            .tempdir()
            .map_err(failed)?;
        let write = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).map(|()| file).map_err(failed)
        };
        write("containers.conf", SETTINGS)?;
        write("resolv.conf", &options.network.resolv_conf())?;
        let own = write("seccomp.json", SECCOMP)?;
        let mut info = Command::new("podman");
        info.args([
            "info",
            "--format",
            "{{.Store.GraphRoot}} {{.Store.GraphDriverName}}",
        ]);
        let images = succeed(info, "podman info").await?;
        let images = images.trim().split_once(' ').unwrap_or_default();
        Ok(Self {
            images: (images.0.to_owned(), images.1.to_owned()),
            seccomp: options.seccomp.clone().unwrap_or(own),
            directory,
        })
    }

    /// Podman over this store.
    pub(super) fn command(&self) -> Command {
        let (root, driver) = &self.images;
        let mut command = Command::new("podman");
        command
            .env_clear()
            .envs(OWN)
            .env("CONTAINERS_CONF", self.file("containers.conf"));
        for (option, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(self.file(name));
        }
        command.args(["--storage-driver", driver]);
        command.arg(format!("--storage-opt={driver}.imagestore={root}"));
        command.kill_on_drop(true);
        command
    }

    /// Makes a container in a network namespace, ready to be started.
    pub(super) async fn create(
        &self,
        name: &str,
        network: &str,
        capabilities: Capabilities,
        spec: &ContainerSpec,
    ) -> Result<(), RunnerError> {
        let mut command = self.command();
        command.args(["create", "--name", name, "--pull=never", "--no-hosts"]);
        command.arg(format!("--network=ns:{network}"));
        let resolv_conf = self.file("resolv.conf");
        command.arg(format!(
            "--volume={}:/etc/resolv.conf:ro",
            resolv_conf.display()
        ));
        command.args(capabilities.for_podman());
        command.arg(format!("--security-opt=seccomp={}", self.seccomp.display()));
        for (name, value) in &spec.environment {
            if OWN.iter().any(|(own, _)| own == name) {
                command.arg(format!("--env={name}={value}"));
            } else {
                // Secret values are not for the list of processes.
                command.arg(format!("--env={name}")).env(name, value);
            }
        }
        if !spec.command.is_empty() {
            let entrypoint = serde_json::json!(spec.command);
            command.arg(format!("--entrypoint={entrypoint}"));
        }
        command.arg(&spec.image);
        succeed(command, "cannot make the container").await?;
        Ok(())
    }

    /// SIGTERM, and after `grace` SIGKILL.
    pub(super) async fn stop(&self, name: &str, grace: Duration) {
        let mut command = self.command();
        command.args(["stop", "--ignore", "--time"]);
        command.arg(grace.as_secs().to_string()).arg(name);
        report(succeed(command, "cannot stop the container").await);
    }

    pub(super) async fn remove(&self, name: &str) {
        let mut command = self.command();
        command.args(["rm", "--force", "--ignore", "--time=0", name]);
        report(succeed(command, "cannot remove the container").await);
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }
}

async fn succeed(mut command: Command, what: &str) -> Result<String, RunnerError> {
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| RunnerError::new("cannot run podman", error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(RunnerError::new(what, text.trim()))
}

/// What cannot be undone is left to the end of everything, and told.
fn report(outcome: Result<String, RunnerError>) {
    if let Err(error) = outcome {
        tracing::warn!("{error}");
    }
}
