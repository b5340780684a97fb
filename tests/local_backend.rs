//! The handler as a process, with the real gateway beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/http.rs"]
mod http;

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Answer;
use popup_store::{Holder, RunLock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const HANDLER: &str = env!("CARGO_BIN_EXE_popup-vpn");

/// A state directory and a free UDP port; the gateway that is left over at the end is ended.
struct Host {
    directory: tempfile::TempDir,
    udp_port: u16,
}

impl Host {
    fn new() -> Self {
        let gateway = Path::new(HANDLER).with_file_name("popup-gateway");
        assert!(
            gateway.exists(),
            "build it first: cargo build -p popup-gateway"
        );
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let udp_port = socket.local_addr().unwrap().port();
        Self {
            directory: tempfile::tempdir().unwrap(),
            udp_port,
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn handler(&self) -> Handler {
        self.handler_with(&[])
    }

    fn handler_with(&self, environment: &[(&str, &str)]) -> Handler {
        let log = tempfile::NamedTempFile::new_in(&self.directory)
            .unwrap()
            .into_temp_path();
        let output = File::create(&log).unwrap();
        let process = Command::new(HANDLER)
            .env_clear()
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", "0")
            .env("VPN_STATE_DIR", self.state())
            .env("VPN_PORT", self.udp_port.to_string())
            .env("VPN_ENDPOINT_HOST", "127.0.0.1")
            .env("START_WAIT_SECONDS", "20")
            // This machine's own network is not the test's to use.
            .env("GATEWAY_MODE", "socket")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut handler = Handler {
            process,
            log,
            address: None,
        };
        handler.address = Some(eventually("the handler listens", || {
            let text = handler.log();
            let address = text.split_once("listening address=")?.1.lines().next()?;
            address.trim().parse().ok()
        }));
        handler
    }

    fn gateway(&self) -> Option<Holder> {
        RunLock::holder(&self.state().join("local.gateway.lock")).unwrap()
    }

    /// How many processes have this host's state directory in their environment as a gateway.
    fn gateways(&self) -> usize {
        let state = format!("VPN_STATE_DIR={}", self.state().display());
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_gateway = |path: PathBuf| {
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            let ours = environment
                .split(|b| *b == 0)
                .any(|entry| entry == state.as_bytes());
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            ours && name.trim() == "popup-gateway"
        };
        processes.filter(|entry| is_gateway(entry.path())).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(pid) = self.gateway().and_then(|holder| Pid::from_raw(holder.pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

struct Handler {
    process: Child,
    log: tempfile::TempPath,
    address: Option<SocketAddr>,
}

impl Handler {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    fn call(&self, target: &str, body: Option<Value>) -> Answer {
        http::call(self.address.unwrap(), target, body.as_ref()).unwrap()
    }

    #[track_caller]
    fn start_vpn(&self, body: Value) -> Value {
        self.call("POST /api/start-vpn", Some(body))
            .expect(200)
            .json()
    }

    #[track_caller]
    fn status(&self) -> Value {
        self.call("GET /api/vpn-status", None).expect(200).json()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
    }

    /// Asks it to end and waits; returns its exit code.
    fn end(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let status = eventually("the handler ends", || self.process.try_wait().unwrap());
        status.code()
    }

    /// Ends it as a crash would.
    fn crash(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_start_runs_the_gateway_and_a_stop_ends_it() {
    let host = Host::new();
    let handler = host.handler();
    assert_eq!(host.gateway(), None);
    let started = handler.start_vpn(json!({"peer": {"name": "phone"}}));
    let holder = host.gateway().unwrap();
    assert_eq!(started["leaseId"], holder.lease.as_str());
    assert_eq!(started["endpoint"], format!("127.0.0.1:{}", host.udp_port));
    assert_eq!(handler.status()["state"], "running");

    handler.call("POST /api/stop-vpn", None).expect(200);
    assert_eq!(host.gateway(), None);
    let again = handler.start_vpn(json!({"peer": null}));
    assert_ne!(again["leaseId"], started["leaseId"]);
    assert_eq!(
        again["serverPublicKey"], started["serverPublicKey"],
        "the same .conf works again"
    );
}

#[test]
fn no_key_reaches_the_log() {
    let host = Host::new();
    let handler = host.handler_with(&[("RUST_LOG", "trace")]);
    let started = handler.start_vpn(json!({"peer": {"name": "phone"}}));
    handler.start_vpn(json!({"peer": {"name": "phone", "replace": true}}));
    handler
        .call("GET /api/vpn-status?code=the-function-key", None)
        .expect(200);
    let config = started["clientConfig"].as_str().unwrap();
    let mut secrets: Vec<&str> = config
        .lines()
        .filter(|line| line.starts_with("PrivateKey") || line.starts_with("PresharedKey"))
        .filter_map(|line| line.split_once(" = "))
        .map(|(_, key)| key)
        .collect();
    assert_eq!(secrets.len(), 2);
    secrets.push("the-function-key");
    let key = std::fs::read_to_string(host.state().join("keys/interface.key")).unwrap();
    secrets.push(key.lines().last().unwrap());
    let log = handler.log();
    for secret in secrets {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn parallel_starts_of_two_handlers_leave_one_gateway_and_one_configuration() {
    let host = Host::new();
    let handlers = [host.handler(), host.handler()];
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|number| {
                let handler = &handlers[number % 2];
                scope.spawn(move || handler.call("POST /api/start-vpn", None))
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let bodies: Vec<Value> = answers
        .into_iter()
        .map(|answer| answer.expect(200).json())
        .collect();
    let with_config = bodies
        .iter()
        .filter(|body| body.get("clientConfig").is_some())
        .count();
    assert_eq!(with_config, 1);
    assert_eq!(
        bodies
            .iter()
            .filter(|body| body["status"] == "VPN started")
            .count(),
        1
    );
    assert!(
        bodies
            .iter()
            .all(|body| body["leaseId"] == bodies[0]["leaseId"])
    );
    assert_eq!(host.gateways(), 1);
    assert_eq!(handlers[0].status()["peers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_killed_gateway_comes_back_under_the_same_lease() {
    let host = Host::new();
    let handler = host.handler();
    let started = handler.start_vpn(json!({"peer": null}));
    let before = host.gateway().unwrap();
    kill_process(Pid::from_raw(before.pid).unwrap(), Signal::KILL).unwrap();
    let after = eventually("another gateway runs", || {
        host.gateway().filter(|holder| holder.pid != before.pid)
    });
    assert_eq!(after.lease, before.lease);
    eventually("it is ready", || {
        (handler.status()["state"] == "running").then_some(())
    });
    assert_eq!(
        handler.status()["serverPublicKey"],
        started["serverPublicKey"]
    );
}

#[test]
fn a_gateway_survives_a_killed_handler_and_the_next_one_adopts_it() {
    let host = Host::new();
    let first = host.handler();
    let started = first.start_vpn(json!({"peer": {"name": "phone"}}));
    let gateway = host.gateway().unwrap();
    first.crash();
    assert_eq!(host.gateway(), Some(gateway.clone()));
    let second = host.handler();
    let status = second.status();
    assert_eq!(
        (&status["state"], &status["leaseId"]),
        (&json!("running"), &started["leaseId"])
    );
    let laptop = second.start_vpn(json!({"peer": {"name": "laptop"}}));
    assert_eq!(laptop["status"], "VPN already running");
    assert_eq!(host.gateway(), Some(gateway), "the same process");
    second.call("POST /api/stop-vpn", None).expect(200);
    assert_eq!(host.gateway(), None);
}

#[test]
fn an_adopted_gateway_that_is_killed_comes_back_too() {
    let host = Host::new();
    let first = host.handler();
    first.start_vpn(json!({"peer": null}));
    first.crash();
    let second = host.handler();
    let before = host.gateway().unwrap();
    kill_process(Pid::from_raw(before.pid).unwrap(), Signal::KILL).unwrap();
    eventually("another gateway runs", || {
        host.gateway()
            .filter(|holder| holder.pid != before.pid && holder.lease == before.lease)
    });
    drop(second);
}

#[test]
fn a_handler_that_is_asked_to_end_ends_its_gateway_and_says_so() {
    let host = Host::new();
    let handler = host.handler();
    handler.start_vpn(json!({"peer": {"name": "phone"}}));
    assert_eq!(handler.end(), Some(0));
    assert_eq!(host.gateway(), None);
    let next = host.handler();
    let status = next.status();
    assert_eq!(status["state"], "stopped");
    assert_eq!(status["lastStop"]["reason"], "handler_stopped");
    assert_eq!(status["peers"][0]["name"], "phone");
}

#[test]
fn a_handler_that_adopted_a_gateway_ends_it_and_a_bystander_does_not() {
    let host = Host::new();
    let first = host.handler();
    first.start_vpn(json!({"peer": null}));
    let bystander = host.handler();
    bystander.start_vpn(json!({"peer": {"name": "phone"}}));
    assert_eq!(bystander.end(), Some(0));
    assert!(host.gateway().is_some(), "it was the first handler's");
    first.crash();
    let heir = host.handler();
    eventually("the heir answers for the gateway", || {
        let path = host.state().join("local.handler.lock");
        RunLock::holder(&path).unwrap()
    });
    assert_eq!(heir.end(), Some(0));
    assert_eq!(host.gateway(), None);
}

#[test]
fn a_port_in_use_is_told_and_leaves_nothing() {
    let host = Host::new();
    let _taken = UdpSocket::bind(("0.0.0.0", host.udp_port)).unwrap();
    let handler = host.handler();
    let answer = handler.call("POST /api/start-vpn", None);
    answer.expect_error(500, "GatewayFailed");
    assert!(
        answer.body.contains(&host.udp_port.to_string()),
        "{answer:?}"
    );
    let status = eventually("it is over", || {
        Some(handler.status()).filter(|status| status["state"] == "failed")
    });
    assert_eq!(status["lastStop"]["reason"], "failed");
    assert!(status["peers"].as_array().unwrap().is_empty());
    assert_eq!(host.gateway(), None);
}

#[test]
fn a_missing_gateway_is_told_with_its_cure() {
    let host = Host::new();
    let handler = host.handler_with(&[("POPUP_GATEWAY", "/nonexistent/popup-gateway")]);
    let answer = handler.call("POST /api/start-vpn", None);
    answer.expect_error(500, "GatewayFailed");
    assert!(
        answer.body.contains("/nonexistent/popup-gateway"),
        "{answer:?}"
    );
}

#[test]
fn a_wrong_setting_ends_a_handler_of_ones_own_and_is_told_by_one_of_the_functions_host() {
    let host = Host::new();
    let output = Command::new(HANDLER)
        .env_clear()
        .env("HOME", host.directory.path())
        .env("VPN_PORT", "x")
        .env("SUBSCRIPTION_ID", "x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("VPN_PORT: ") && text.contains("SUBSCRIPTION_ID: "),
        "{text}"
    );

    let functions = [
        ("FUNCTIONS_WORKER_RUNTIME", "custom"),
        ("LOG_FORMAT", "text"),
        ("SUBSCRIPTION_ID", "x"),
    ];
    let handler = host.handler_with(&functions);
    handler
        .call("POST /api/start-vpn", None)
        .expect_error(500, "ConfigurationInvalid");
}
