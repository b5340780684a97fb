//! The program's end: in time, and with its last word, whatever else hangs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use popup_model::document::Extra;
use popup_model::{
    Control, Lease, LeaseDocument, LeaseId, ServerConfig, StatusDocument, TunnelNetworks,
};
use rustix::process::{Pid, Signal, kill_process};

/// The whole end must fit into this.
const END: Duration = Duration::from_secs(2);

/// How long a start may take on a machine that is busy.
const START: Duration = Duration::from_secs(20);

/// A state directory with a lease.
struct Place {
    directory: tempfile::TempDir,
    lease: Lease,
}

impl Place {
    /// One whose lease ends so long from now.
    fn with_lease(left: SignedDuration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("control")).unwrap();
        let now = Timestamp::now();
        let lease = Lease {
            id: LeaseId::generate(),
            started_at: now,
            expires_at: now + left,
            idle_timeout_s: None,
            extra: Extra::new(),
        };
        Self { directory, lease }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, document: &impl Control) {
        let version = format!("version: {}\n", "0".repeat(32));
        let bytes = [version.as_bytes(), &document.to_json().unwrap()].concat();
        std::fs::write(self.path(&format!("control/{name}")), bytes).unwrap();
    }

    /// A document that whoever opens it waits for, for ever.
    fn put_what_hangs(&self, name: &str) {
        let path = self.path(&format!("control/{name}"));
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn status(&self) -> Option<StatusDocument> {
        let bytes = std::fs::read(self.path("status/local.status.json")).ok()?;
        let header = bytes.iter().position(|byte| *byte == b'\n')? + 1;
        StatusDocument::from_json(&bytes[header..]).ok()
    }

    fn end(&self) -> Option<String> {
        Some(self.status()?.ended?.reason)
    }

    fn start(&self, mode: &str, more: &[(&str, String)]) -> Gateway {
        let process = Command::new(env!("CARGO_BIN_EXE_popup-gateway"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("VPN_STATE_DIR", self.directory.path())
            .env("LEASE_ID", self.lease.id.as_str())
            .env("LEASE_EXPIRES_AT", self.lease.expires_at.to_string())
            .env("GATEWAY_MODE", mode)
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .spawn();
        Gateway(process.unwrap())
    }
}

struct Gateway(Child);

impl Gateway {
    fn terminate(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).unwrap();
    }

    fn wait(&mut self, patience: Duration) -> ExitStatus {
        eventually(patience, "the process ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A gateway that has made the file `made` and then hangs in the document `hangs` ends when it is
/// told to, and says so.
fn ends_though_it_hangs(place: &Place, hangs: &str, made: &str) {
    place.put_what_hangs(hangs);
    let mut gateway = place.start("socket", &[]);
    let made = place.path(made);
    eventually(START, "it has come so far", || made.exists().then_some(()));
    // Time to come to where it hangs.
    std::thread::sleep(Duration::from_millis(500));
    gateway.terminate();
    assert!(gateway.wait(END).success());
    assert_eq!(place.end().as_deref(), Some("terminated"));
}

#[test]
fn a_directory_that_hangs_does_not_keep_the_process() {
    let place = Place::with_lease(SignedDuration::from_hours(1));
    ends_though_it_hangs(&place, "config.json", "keys/interface.key");
}

#[test]
fn a_signal_counts_while_an_extension_is_looked_for() {
    let place = Place::with_lease(SignedDuration::from_secs(-1));
    ends_though_it_hangs(&place, "local.lease.json", "local.gateway.lock");
}

#[test]
fn the_last_status_does_not_wait_for_the_kernels_path_to_be_taken_down() {
    let place = Place::with_lease(SignedDuration::from_hours(1));
    let mut document = LeaseDocument::new("local".parse().unwrap());
    document.lease = Some(place.lease.clone());
    place.put("local.lease.json", &document);
    let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse().unwrap());
    let mut config = ServerConfig::new(networks.unwrap(), vec![51_820]);
    config.revision = 1;
    place.put("config.json", &config);
    let program = |name: &str, text: &str| {
        let path = place.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let down = place.path("is-down");
    let script = format!("[ $1 != down ] || {{ sleep 4; : >{}; }}", down.display());
    let script = program("kernel-path.sh", &script);
    program("wg", "echo 'PRIVATE PUBLIC 51820 off'");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut gateway = place.start(
        "kernel",
        &[
            ("KERNEL_PATH", script),
            ("RUN_DIR", place.path("run").display().to_string()),
            (
                "PATH",
                format!("{}:{path}", place.directory.path().display()),
            ),
        ],
    );
    let ready = || place.status().filter(|status| status.ready);
    eventually(START, "it is ready", ready);
    gateway.terminate();
    let end = eventually(END, "the last status", || place.end());
    assert_eq!(end, "terminated");
    assert!(!down.exists(), "it was written first");
    assert!(gateway.wait(START).success());
    assert!(down.exists(), "the process waits for that");
}
