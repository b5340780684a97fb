//! The documents, read and written as the other plane would, and a gateway without a handler.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use popup_model::document::Control;
use popup_model::{
    ClientSettings, Lease, LeaseDocument, LeaseId, Peer, PrivateKey, Region, ServerConfig,
    StatusDocument, TunnelNetworks,
};
use popup_store::{Container, DirectoryStore, DocumentStore as _, Expect};
use rustix::process::Signal;

use super::host::as_nobody;
use super::namespace::kill;
use super::{Conf, Host, Internet, OUTER, Rights, UDP_PORT, eventually};

/// The documents in the host's state directory.
#[derive(Debug, Clone)]
pub struct Documents {
    root: PathBuf,
}

impl Documents {
    /// The documents of the gateway on this host.
    pub fn of(host: &Host) -> Self {
        Self { root: host.state() }
    }

    /// `config.json`.
    pub fn config(&self) -> ServerConfig {
        self.read(Container::Control, "config.json")
            .expect("there is a config.json")
    }

    /// `local.status.json`.
    pub fn status(&self) -> Option<StatusDocument> {
        self.read(Container::Status, "local.status.json")
    }

    /// A drop counter of the gateway; 0 when it has none of this name.
    pub fn drops(&self, reason: &str) -> u64 {
        self.status()
            .and_then(|status| status.drops.get(reason).copied())
            .unwrap_or(0)
    }

    /// Changes `config.json`, or begins with `new`.
    pub fn change_config(
        &self,
        new: impl Fn() -> ServerConfig + Sync,
        change: impl Fn(&mut ServerConfig) + Sync,
    ) {
        self.change("config.json", new, |config| {
            change(config);
            config.revision += 1;
        });
    }

    /// Changes the lease document.
    pub fn change_lease(&self, change: impl Fn(&mut LeaseDocument) + Sync) {
        self.change("local.lease.json", || LeaseDocument::new(region()), change);
    }

    fn read<T: Control + Send>(&self, container: Container, name: &str) -> Option<T> {
        as_nobody(|| {
            let store = DirectoryStore::open(&self.root).unwrap();
            let stored = wait_for(store.read(container, name)).unwrap()?;
            Some(T::from_json(&stored.bytes).unwrap())
        })
    }

    fn change<T: Control>(
        &self,
        name: &str,
        new: impl Fn() -> T + Sync,
        change: impl Fn(&mut T) + Sync,
    ) {
        as_nobody(|| {
            let store = DirectoryStore::open(&self.root).unwrap();
            eventually(Duration::from_secs(5), "a write without conflict", || {
                let (mut document, expect) =
                    match wait_for(store.read(Container::Control, name)).unwrap() {
                        Some(stored) => (
                            T::from_json(&stored.bytes).unwrap(),
                            Expect::Version(stored.version),
                        ),
                        None => (new(), Expect::Absent),
                    };
                change(&mut document);
                let bytes = document.to_json().unwrap();
                wait_for(store.write(Container::Control, name, &bytes, &expect)).ok()
            });
        });
    }
}

/// A gateway that the test has started by itself, over documents that the test writes.
#[derive(Debug)]
pub struct Gateway<'host> {
    host: &'host Host,
    process: Child,
    pub documents: Documents,
    pub lease: LeaseId,
}

impl<'host> Gateway<'host> {
    /// Starts one with a lease of this length and waits until it is ready.
    pub fn start(host: &'host Host, lifetime: Duration) -> Self {
        Self::start_with(host, lifetime, Rights::Nothing, &[])
    }

    /// The same with these rights and further environment variables.
    pub fn start_with(
        host: &'host Host,
        lifetime: Duration,
        rights: Rights,
        environment: &[(&str, &str)],
    ) -> Self {
        let documents = Documents::of(host);
        let (lease, now) = (LeaseId::generate(), Timestamp::now());
        let expires_at = now + SignedDuration::try_from(lifetime).unwrap();
        documents.change_lease(|document| {
            document.lease = Some(Lease {
                id: lease.clone(),
                started_at: now,
                expires_at,
                idle_timeout_s: None,
                extra: Default::default(),
            });
        });
        documents.change_config(|| config_for(UDP_PORT), |_| {});
        let log = File::create(host.directory().join("gateway.log")).unwrap();
        let process = host
            .with_rights("popup-gateway", rights)
            .env("VPN_STATE_DIR", "/mnt/state")
            .env("REGION", "local")
            .env("LEASE_ID", lease.as_str())
            .env("LEASE_EXPIRES_AT", expires_at.to_string())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let gateway = Self {
            host,
            process,
            documents,
            lease,
        };
        eventually(Duration::from_secs(20), "the gateway is ready", || {
            gateway
                .documents
                .status()
                .filter(|status| status.ready && status.lease_id == gateway.lease)
        });
        gateway
    }

    /// Adds a peer and waits until it is in force.
    pub fn add_peer(&self, name: &str) -> Conf {
        let key = PrivateKey::generate();
        let new = || config_for(UDP_PORT);
        self.documents.change_config(new, |config| {
            let assigned: Vec<_> = config.assigned().copied().collect();
            let allowed_ips = config.networks.lowest_free(&assigned).unwrap();
            config.peers.push(Peer {
                name: name.parse().unwrap(),
                public_key: key.public_key(),
                preshared_key: None,
                allowed_ips,
                created_at: Timestamp::now(),
                expires_at: None,
                quota_bytes: None,
                owner: None,
                client: ClientSettings::default(),
                extra: Default::default(),
            });
        });
        let config = self.documents.config();
        let status = eventually(Duration::from_secs(10), "the peer is in force", || {
            self.documents
                .status()
                .filter(|status| status.config_revision >= config.revision)
        });
        let peer = config.peer(&name.parse().unwrap()).unwrap();
        Conf(format!(
            "[Interface]\nPrivateKey = {}\nAddress = {}, {}\nDNS = {}\nMTU = 1420\n\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {OUTER}:{}\nPersistentKeepalive = 25\n",
            *key.to_base64(),
            peer.allowed_ips[0],
            peer.allowed_ips[1],
            Internet::DNS,
            status.public_key.expect("a ready gateway has a key"),
            config.ports[0],
        ))
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        eventually(patience, "the gateway ends", || {
            self.process.try_wait().unwrap()
        })
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        for pid in self.host.namespace.processes("popup-gateway") {
            kill(pid, signal);
        }
        if signal == Signal::CONT {
            // `nsenter` stops with the process it waits for.
            kill(self.process.id(), signal);
        }
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.host.directory().join("gateway.log")).unwrap_or_default()
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the gateway\n{}", self.log());
        }
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        self.process.wait().ok();
    }
}

fn region() -> Region {
    "local".parse().unwrap()
}

/// A configuration without peers.
pub fn config_for(port: u16) -> ServerConfig {
    let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse().unwrap()).unwrap();
    ServerConfig::new(networks, vec![port])
}

fn wait_for<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work)
}
