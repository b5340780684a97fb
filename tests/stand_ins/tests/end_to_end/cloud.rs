//! The cloud: `azure-sim` in a box of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use popup_stand_ins::client::{Answer, call};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::boxes;
use crate::eventually;
use crate::namespace::{Namespace, kill, require_tools};

/// Where the cloud's services are.
pub const SERVICES: &str = "192.0.2.1";
/// Starting Azurite takes a while on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Azure.
pub struct Azure {
    // The processes end with the box, which is dropped first.
    pub namespace: Namespace,
    pub ready: Value,
    pub directory: TempDir,
    process: Child,
    runner: Runner,
}

/// What runs containers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// Nothing does: they are there, and never say a word.
    Fake,
    /// The gateway as a process.
    Process,
    /// The image.
    Podman,
}

/// What root may do in a container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    Default,
    None,
}

/// What `scripts/build-image-offline.sh` makes.
const IMAGE: &str = "localhost/popup-gateway:offline";

/// Fails with the reason and the cure when the image cannot be run here.
fn image() -> String {
    let image = std::env::var("POPUP_GATEWAY_IMAGE").unwrap_or_else(|_| IMAGE.to_owned());
    let looked = Command::new("podman")
        .args(["image", "exists", &image])
        .output();
    let found = looked.unwrap_or_else(|error| {
        panic!("podman cannot be run ({error}): `make test` installs it, or apt-get install podman runc netavark")
    });
    assert!(
        found.status.success(),
        "root's Podman has no image {image}: run scripts/build-image-offline.sh, or `make test`"
    );
    image
}

/// Where cargo has put the product's programs.
pub fn program(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_azure-sim")).parent().unwrap();
    let file = directory.join(name);
    assert!(
        file.exists(),
        "{} is missing: run `cargo build`",
        file.display()
    );
    file
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

impl Azure {
    /// With containers run by `runner`, under these capabilities.
    pub fn start(runner: Runner, capabilities: Capabilities) -> Self {
        require_tools();
        let mut arguments = vec!["--runner".to_owned()];
        arguments.push(
            match runner {
                Runner::Fake => "fake",
                Runner::Process => "process",
                Runner::Podman => "podman",
            }
            .to_owned(),
        );
        if runner == Runner::Podman {
            arguments.extend(["--image".to_owned(), image()]);
            if let Ok(profile) = std::env::var("SECCOMP") {
                arguments.extend(["--seccomp".to_owned(), profile]);
            }
        }
        let capabilities = match capabilities {
            Capabilities::Default => "default",
            Capabilities::None => "none",
        };
        let directory = tempfile::Builder::new()
            .prefix("popup-azure-")
            .tempdir()
            .unwrap();
        let namespace = Namespace::new(&format!(
            "ip link set lo up
             ip address add {SERVICES}/32 dev lo
             echo 1 >/proc/sys/net/ipv4/ip_forward"
        ));
        let log = File::create(directory.path().join("azure-sim.log")).unwrap();
        let process = namespace
            .command(env!("CARGO_BIN_EXE_azure-sim"))
            // It is ended with its box, so what it leaves must lie where the test cleans up.
            .env("TMPDIR", directory.path())
            .arg("--directory")
            .arg(directory.path())
            .args(["--listen", SERVICES, "--scale", "0.05"])
            .args(arguments)
            .args([
                "--capabilities",
                capabilities,
                "--bridge",
                "azure=203.0.113.1/24",
            ])
            .args(["--name", &format!("{}={}", boxes::NAME, boxes::ADDRESS)])
            .arg("--program")
            .arg(program("popup-gateway"))
            .arg("--azurite")
            .arg(root().join("target/tools"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let file = directory.path().join("ready.json");
        let log = || fs::read_to_string(directory.path().join("azure-sim.log")).unwrap_or_default();
        let ready = eventually(PATIENCE, "azure-sim is ready", || {
            assert!(!log().contains("ERROR"), "{}", log());
            serde_json::from_slice(&fs::read(&file).ok()?).ok()
        });
        Self {
            namespace,
            ready,
            directory,
            process,
            runner,
        }
    }

    /// Sends a request from within the cloud.
    pub fn call(
        &self,
        address: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> std::io::Result<Answer> {
        self.call_over(None, address, method, target, headers, body)
    }

    /// The same over TLS, when there is a CA to trust.
    pub fn call_over(
        &self,
        ca_pem: Option<&str>,
        address: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> std::io::Result<Answer> {
        let address = address.parse().unwrap();
        self.namespace.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime?.block_on(call(address, ca_pem, method, target, headers, body))
        })
    }

    /// What the simulation knows.
    pub fn summary(&self) -> Value {
        let plain = self.ready["plain"].as_str().unwrap();
        self.call(plain, "GET", "/_simulation/summary", &[], None)
            .unwrap()
            .json()
    }

    /// The groups that there are.
    pub fn groups(&self) -> Vec<Value> {
        self.summary()["groups"].as_array().unwrap().clone()
    }

    /// How many requests for a container group have come with this method.
    pub fn arrived(&self, method: &str) -> usize {
        let summary = self.summary();
        let arrived = summary["arrived"].as_array().unwrap();
        let counts = |request: &&Value| {
            request[0] == method && request[1].as_str().unwrap().contains("containerGroups")
        };
        arrived.iter().filter(counts).count()
    }

    /// Adds a fault.
    #[track_caller]
    pub fn fault(&self, fault: &Value) {
        self.control("POST", "/_simulation/faults", fault);
    }

    /// Fails when a fault has met no request, and the test has tested nothing.
    #[track_caller]
    pub fn assert_faults_met(&self) {
        let plain = self.ready["plain"].as_str().unwrap();
        let unmet = self.call(plain, "GET", "/_simulation/faults", &[], None);
        assert_eq!(unmet.unwrap().json(), serde_json::json!([]));
    }

    /// Forgets the faults that are still to come.
    #[track_caller]
    pub fn clear_faults(&self) {
        self.control("DELETE", "/_simulation/faults", &Value::Null);
    }

    /// Adds a fault of storage.
    #[track_caller]
    pub fn storage_fault(&self, fault: &Value) {
        self.control("POST", "/_simulation/storage/faults", fault);
    }

    /// Changes the weather in front of storage.
    #[track_caller]
    pub fn storage(&self, weather: impl Into<Value>) {
        self.control("PUT", "/_simulation/storage", &weather.into());
    }

    #[track_caller]
    fn control(&self, method: &str, target: &str, body: &Value) {
        let plain = self.ready["plain"].as_str().unwrap();
        let answer = self.call(plain, method, target, &[], Some(body)).unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("azure-sim.log")).unwrap_or_default()
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        if self.runner != Runner::Podman {
            return;
        }
        // The kernel ends containers with the box, but their cgroups would stay.
        for pid in self.namespace.processes("azure-sim") {
            kill(pid, Signal::TERM);
        }
        self.process.wait().ok();
    }
}
