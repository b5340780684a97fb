//! The handler, run as a stranger would run it, without privileges.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::namespace::kill;
use super::{
    Answer, Client, Conf, Documents, Host, Internet, OUTER, Request, UDP_PORT, eventually,
};

/// A running handler.
#[derive(Debug)]
pub struct Handler<'host> {
    host: &'host Host,
    process: Child,
    log: PathBuf,
}

impl<'host> Handler<'host> {
    /// The HTTP port.
    pub const PORT: u16 = 7071;

    /// Starts the handler and waits until it answers.
    pub fn start(host: &'host Host) -> Self {
        Self::start_with(host, &[])
    }

    /// The same with further environment variables.
    pub fn start_with(host: &'host Host, environment: &[(&str, &str)]) -> Self {
        let log = host.directory().join("handler.log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let process = host
            .unprivileged("popup-vpn")
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", Self::PORT.to_string())
            .env("VPN_BACKEND", "local")
            .env("VPN_STATE_DIR", "/mnt/state")
            .env("VPN_PORT", UDP_PORT.to_string())
            .env("VPN_ENDPOINT_HOST", OUTER)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let handler = Self { host, process, log };
        eventually(Duration::from_secs(20), "the handler answers", || {
            Request::get("/api/vpn-status").send(&host.namespace, Self::PORT)
        });
        handler
    }

    /// Sends a request, which must be answered.
    #[track_caller]
    pub fn call(&self, request: Request) -> Answer {
        request
            .send(&self.host.namespace, Self::PORT)
            .unwrap_or_else(|| panic!("no answer to {request:?}"))
    }

    /// `POST /api/start-vpn`; the answer must be 200.
    #[track_caller]
    pub fn start_vpn(&self, body: &Value) -> Value {
        self.call(Request::post("/api/start-vpn").json(body))
            .expect(200)
            .json()
    }

    /// Starts the VPN if need be and adds a peer that asks the lab's resolver.
    #[track_caller]
    pub fn add_peer(&self, name: &str) -> Conf {
        let answer = self.start_vpn(&json!({"peer": {"name": name}, "dns": [Internet::DNS]}));
        Conf(
            answer["clientConfig"]
                .as_str()
                .unwrap_or_else(|| panic!("no clientConfig in {answer:#}"))
                .to_owned(),
        )
    }

    /// `POST /api/stop-vpn`; the answer must be 200.
    #[track_caller]
    pub fn stop_vpn(&self) -> Value {
        self.call(Request::post("/api/stop-vpn")).expect(200).json()
    }

    /// `GET /api/vpn-status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.call(Request::get("/api/vpn-status"))
            .expect(200)
            .json()
    }

    /// The documents this handler writes.
    pub fn documents(&self) -> Documents {
        Documents::of(self.host)
    }

    /// Asks the handler to end, and waits until it has.
    pub fn terminate(mut self) {
        self.signal(Signal::TERM);
        let process = &mut self.process;
        let status = eventually(Duration::from_secs(20), "the handler ends", || {
            process.try_wait().unwrap()
        });
        assert_eq!(status.code(), Some(0));
    }

    /// Ends the handler as an emergency would.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.process.wait().ok();
    }

    fn signal(&self, signal: Signal) {
        for pid in self.host.namespace.processes("popup-vpn") {
            kill(pid, signal);
        }
    }

    /// Kills the gateway that the handler has started.
    pub fn kill_gateway(&self) {
        let gateways = self.host.namespace.processes("popup-gateway");
        assert!(!gateways.is_empty(), "a gateway is running");
        for pid in gateways {
            kill(pid, Signal::KILL);
        }
    }

    /// What handler and gateway have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs `popup-vpn check` on a client's machine as an unprivileged user.
    pub fn check(&self, client: &Client, conf: &Conf, arguments: &[&str]) -> super::Finished {
        let file = client.directory().join("check.conf");
        fs::write(&file, &conf.0).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(client.directory(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        client.namespace.shell(&format!(
            "mountpoint -q /mnt || {{ mount -t tmpfs -o mode=755 tmpfs /mnt; cp '{}' /mnt/popup-vpn; }}",
            env!("CARGO_BIN_EXE_popup-vpn")
        ));
        let file = file.display().to_string();
        let mut all = vec![
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ];
        all.extend_from_slice(&[
            "--inh-caps=-all",
            "--no-new-privs",
            "--",
            "/mnt/popup-vpn",
            "check",
            &file,
        ]);
        all.extend_from_slice(arguments);
        client.run(60, &all)
    }
}

impl Drop for Handler<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of handler and gateway\n{}", self.log());
        }
        // The box ends whatever is left.
        self.signal(Signal::KILL);
        self.process.wait().ok();
    }
}
