//! The function app: a Functions host with the handler.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use popup_stand_ins::client::Answer;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cloud::{Azure, PATIENCE, SERVICES, program, root};
use crate::eventually;
use crate::namespace::kill;

/// A function app with the handler.
pub struct FunctionApp<'azure> {
    azure: &'azure Azure,
    pub address: String,
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

    /// `POST /api/start-vpn` for the first region, with a peer of the handler's choice.
    #[track_caller]
    pub fn start_once(&self) -> Answer {
        self.call("POST", "/api/start-vpn", Some(&json!({})))
    }

    /// `POST /api/stop-vpn` for every region.
    #[track_caller]
    pub fn stop(&self) -> Answer {
        self.call("POST", "/api/stop-vpn", None)
    }

    /// `GET /api/vpn-status` of the first region.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.call("GET", "/api/vpn-status", None).json()
    }

    /// Has the timer's function run to its end, and returns whether it succeeded.
    #[track_caller]
    pub fn tick(&self) -> bool {
        let master = [("x-functions-key", "master-key")];
        let host = |method, target| {
            let answer = self
                .azure
                .call(&self.address, method, target, &master, None);
            answer.unwrap()
        };
        let ticks = || {
            let invocations = host("GET", "/admin/double/invocations").json();
            invocations.as_array().unwrap().clone()
        };
        let before = ticks().len();
        assert_eq!(host("POST", "/admin/functions/expire-vpn").status, 202);
        eventually(PATIENCE * 2, "the timer's function ends", || {
            let outcome = ticks().get(before)?["succeeded"].as_bool();
            Some(outcome == Some(true))
        })
    }

    /// `POST /api/start-vpn`, which must be 200.
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
            kill(pid, Signal::KILL);
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}
