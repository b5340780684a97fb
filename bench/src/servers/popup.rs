//! Our gateway, over documents as the handler would write them.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use popup_model::document::Control;
use popup_model::{
    ClientSettings, Lease, LeaseDocument, LeaseId, Peer as Document, ServerConfig, StatusDocument,
    TunnelNetworks,
};
use popup_store::{Container, DirectoryStore, DocumentStore as _, Expect};

use super::{Peer, Started, unprivileged};
use crate::lab::{Lab, PORT, eventually};
use crate::tools::Tools;

/// How the gateway carries packets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Raw,
    Socket,
}

impl Mode {
    /// For `GATEWAY_MODE`.
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Socket => "socket",
        }
    }

    /// For `setpriv`.
    fn capabilities(self) -> &'static str {
        match self {
            Self::Raw => "+net_raw",
            Self::Socket => "",
        }
    }
}

const NOBODY: u32 = 65534;

pub(super) fn start(lab: &Lab, tools: &Tools, peers: &[Peer], mode: Mode) -> Result<Started> {
    let state = lab.directory().join("state");
    let program = tools.copy_to("popup-gateway", lab.directory())?;
    let (lease, expires_at) = (
        LeaseId::generate(),
        Timestamp::now() + SignedDuration::from_hours(6),
    );
    write_documents(&state, peers, &lease, expires_at)?;
    let log_path = lab.directory().join("gateway.log");
    let log = fs::File::create(&log_path)?;
    let process = lab
        .server
        .command(&lab.plan.cores.server, "setpriv")
        .args(unprivileged(mode.capabilities()))
        .arg(program)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("VPN_STATE_DIR", &state)
        .env("REGION", "local")
        .env("GATEWAY_MODE", mode.name())
        .env("LEASE_ID", lease.as_str())
        .env("LEASE_EXPIRES_AT", expires_at.to_string())
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let ready = eventually(Duration::from_secs(10), "the gateway is ready", || {
        read::<StatusDocument>(&state, Container::Status, "local.status.json")
            .ok()
            .flatten()
            .filter(|status| status.ready && status.lease_id == lease)
    });
    let status = ready.with_context(|| fs::read_to_string(&log_path).unwrap_or_default())?;
    // A gateway that fell back to another mode would be measured under a false name.
    ensure!(
        status.mode == mode.name(),
        "its mode is {}: {}",
        status.mode,
        status.mode_reason
    );
    Ok(Started {
        process: Some(process),
        program: Some("popup-gateway"),
        public_key: status.public_key,
    })
}

/// What the gateway has refused, as it says itself.
pub(super) fn drops(lab: &Lab) -> Option<String> {
    let state = lab.directory().join("state");
    let status = read::<StatusDocument>(&state, Container::Status, "local.status.json");
    let drops = status.ok()??.drops;
    (!drops.is_empty()).then(|| format!("the gateway's drops so far: {drops:?}"))
}

fn write_documents(
    state: &Path,
    peers: &[Peer],
    lease: &LeaseId,
    expires_at: Timestamp,
) -> Result<()> {
    let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse()?)?;
    let mut config = ServerConfig::new(networks, vec![PORT]);
    for (index, peer) in peers.iter().enumerate() {
        let assigned: Vec<_> = config.assigned().copied().collect();
        let allowed_ips = config
            .networks
            .lowest_free(&assigned)
            .context("too many peers")?;
        ensure!(
            allowed_ips[0].addr() == peer.address,
            "the peer's address is not the expected {}",
            peer.address
        );
        config.peers.push(Document {
            name: format!("peer{index}").parse()?,
            public_key: peer.key.public_key(),
            preshared_key: None,
            allowed_ips,
            created_at: Timestamp::now(),
            expires_at: None,
            quota_bytes: None,
            owner: None,
            client: ClientSettings::default(),
            extra: Default::default(),
        });
    }
    let mut document = LeaseDocument::new("local".parse()?);
    document.lease = Some(Lease {
        id: lease.clone(),
        started_at: Timestamp::now(),
        expires_at,
        idle_timeout_s: None,
        extra: Default::default(),
    });
    fs::create_dir_all(state)?;
    write(state, "local.lease.json", &document)?;
    write(state, "config.json", &config)?;
    give_away(state)
}

fn write<T: Control>(state: &Path, name: &str, document: &T) -> Result<()> {
    let store = DirectoryStore::open(state)?;
    let bytes = document.to_json()?;
    wait_for(store.write(Container::Control, name, &bytes, &Expect::Absent))??;
    Ok(())
}

fn read<T: Control>(state: &Path, container: Container, name: &str) -> Result<Option<T>> {
    let store = DirectoryStore::open(state)?;
    match wait_for(store.read(container, name))?? {
        None => Ok(None),
        Some(stored) => Ok(Some(T::from_json(&stored.bytes)?)),
    }
}

fn wait_for<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(work))
}

/// Makes everything in `path` the gateway's.
fn give_away(path: &Path) -> Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}
