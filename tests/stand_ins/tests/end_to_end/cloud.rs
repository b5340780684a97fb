//! The cloud: `azure-sim` and Functions hosts, in a box of their own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use popup_stand_ins::client::{Answer, call};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::boxes;
use crate::eventually;
use crate::namespace::{Namespace, kill, require_tools};

/// Where the cloud's services are.
pub const SERVICES: &str = "192.0.2.1";
/// Starting Azurite takes a while on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Azure.
pub struct Azure {
    // The processes end with the box, which is dropped first.
    pub namespace: Namespace,
    pub ready: Value,
    directory: TempDir,
    _process: Child,
}

/// Where cargo has put the product's programs.
fn program(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_azure-sim")).parent().unwrap();
    let file = directory.join(name);
    assert!(
        file.exists(),
        "{} is missing: run `cargo build`",
        file.display()
    );
    file
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

impl Azure {
    /// With containers run by `runner` (`fake` or `process`), under these capabilities.
    pub fn start(runner: &str, capabilities: &str) -> Self {
        require_tools();
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
            .args(["--listen", SERVICES, "--scale", "0.05", "--runner", runner])
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
            _process: process,
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
        let address = address.parse().unwrap();
        self.namespace.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime?.block_on(call(address, None, method, target, headers, body))
        })
    }

    /// What the simulation knows.
    pub fn summary(&self) -> Value {
        let plain = self.ready["plain"].as_str().unwrap();
        self.call(plain, "GET", "/_simulation/summary", &[], None)
            .unwrap()
            .json()
    }

    /// Adds a fault.
    #[track_caller]
    pub fn fault(&self, fault: &Value) {
        self.control("POST", "/_simulation/faults", fault);
    }

    /// Changes the weather in front of storage.
    #[track_caller]
    pub fn storage(&self, weather: &str) {
        self.control("PUT", "/_simulation/storage", &Value::from(weather));
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

/// A function app with the handler.
pub struct FunctionApp<'azure> {
    azure: &'azure Azure,
    address: String,
    directory: TempDir,
    _process: Child,
}

impl<'azure> FunctionApp<'azure> {
    pub fn start(azure: &'azure Azure, settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("popup-function-app-")
            .tempdir()
            .unwrap();
        let package = directory.path().join("package");
        fs::create_dir(&package).unwrap();
        for entry in fs::read_dir(root()).unwrap().flatten() {
            let name = entry.file_name();
            if name == "host.json" || entry.path().join("function.json").exists() {
                symlink(entry.path(), package.join(name)).unwrap();
            }
        }
        symlink(program("popup-vpn"), package.join("popup-vpn")).unwrap();
        let ready = directory.path().join("ready");
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = azure
            .namespace
            .command(env!("CARGO_BIN_EXE_functions-host-double"));
        command
            .arg("--package")
            .arg(&package)
            .arg("--ready-file")
            .arg(&ready);
        command
            .arg("--settings-from")
            .arg(azure.directory.path().join("ready.json"));
        for (name, value) in settings {
            command.arg("--setting").arg(format!("{name}={value}"));
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = eventually(PATIENCE, "the Functions host listens", || {
            let url = fs::read_to_string(&ready).ok()?;
            Some(url.strip_prefix("http://")?.to_owned())
        });
        Self {
            azure,
            address,
            directory,
            _process: process,
        }
    }

    /// Calls a function with the host's key.
    #[track_caller]
    pub fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        // No requests come to a function app under its loopback address.
        let headers = [
            ("x-functions-key", "host-key"),
            ("host", "popup.azurewebsites.net"),
        ];
        let answer = self
            .azure
            .call(&self.address, method, target, &headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}\n{}", self.log()))
    }

    /// `POST /api/start-vpn`, again until it is 200.
    #[track_caller]
    pub fn start_vpn(&self, body: &Value) -> Value {
        let answer = self.call("POST", "/api/start-vpn", Some(body));
        assert_eq!(
            answer.status,
            200,
            "{}\n{}\n{}\n{:#}",
            answer.text(),
            self.log(),
            self.azure.log(),
            self.azure.summary()
        );
        answer.json()
    }

    /// Adds a peer that asks the lab's resolver, and returns its file.
    #[track_caller]
    pub fn add_peer(&self, name: &str) -> String {
        let answer = self.start_vpn(&json!({"peer": {"name": name}, "dns": [SERVICES]}));
        answer["clientConfig"]
            .as_str()
            .unwrap_or_else(|| panic!("no file in {answer:#}"))
            .to_owned()
    }

    /// Ends the handler as an emergency would; the host starts another.
    pub fn kill_handler(&self) {
        for pid in self.azure.namespace.processes("popup-vpn") {
            kill(pid, rustix::process::Signal::KILL);
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}
