//! The kernel data path: WireGuard, forwarding and translation by the kernel, set up and torn
//! down by `container/scripts/kernel-path.sh`.
//!
//! It takes the same inputs as the packet loop and gives the same reports, so the control loop
//! does not see the difference. Invariant: once it is up, `down` runs before the thread ends,
//! whatever ends it.

mod dump;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use popup_gateway_core::{DropCounters, FlowCounts, PeerReport, PeerSpec};
use popup_model::{PrivateKey, PublicKey, ServerConfig};

use crate::io::{Input, Inputs, LoopHandle, Snapshot};
use crate::settings::KernelSettings;
use dump::Dumped;

/// How much of a failed script's words is passed on.
const LAST_WORDS: usize = 400;

/// Brings the interface up and follows inputs on a thread of its own.
pub(crate) fn start(
    settings: &KernelSettings,
    interface: &str,
    key: &PrivateKey,
    config: &ServerConfig,
    peers: &[PeerSpec],
) -> anyhow::Result<LoopHandle> {
    let run_dir = settings.run_dir.clone();
    std::fs::create_dir_all(&run_dir)?;
    let script = Script {
        program: settings.script.clone(),
        variables: variables(settings, interface, config),
    };
    let mut path = KernelPath {
        interface: interface.to_owned(),
        script,
        run_dir,
        peers: Vec::new(),
        used: HashMap::new(),
    };
    write_private(&path.run_dir.join(KEY_FILE), key.to_base64().as_bytes())?;
    path.set_peers(peers.to_vec(), "up")
        .inspect_err(|_| path.down())?;
    tracing::info!("the kernel's data path is up");
    Ok(LoopHandle::spawn("kernel-path", move |inputs| {
        path.run(&inputs)
    })?)
}

const KEY_FILE: &str = "private.key";
const PEERS_FILE: &str = "peers.conf";

/// What the script is told, beside what it inherits (`EGRESS_ALLOW`, `PEER_TO_PEER`).
fn variables(
    settings: &KernelSettings,
    interface: &str,
    config: &ServerConfig,
) -> Vec<(&'static str, String)> {
    let [ipv4, ipv6] = config.networks.gateway();
    let ports: Vec<String> = config.ports.iter().map(u16::to_string).collect();
    let file = |name| settings.run_dir.join(name).display().to_string();
    vec![
        ("SERVER_INTERFACE", interface.to_owned()),
        ("SERVER_NETWORK", config.networks.ipv4().to_string()),
        (
            "SERVER_ADDRESSES",
            format!("{ipv4}/{}, {ipv6}/64", config.networks.ipv4().prefix_len()),
        ),
        ("SERVER_PORT", ports[0].clone()),
        ("SERVER_PORTS", ports.join(",")),
        ("SERVER_KEY_FILE", file(KEY_FILE)),
        ("PEERS_FILE", file(PEERS_FILE)),
        ("RUN_DIR", settings.run_dir.display().to_string()),
    ]
}

struct Script {
    program: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Script {
    fn run(&self, verb: &str, revoked: &str) -> io::Result<()> {
        let output = Command::new(&self.program)
            .arg(verb)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("REVOKED", revoked)
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim();
        let from = words.len().saturating_sub(LAST_WORDS);
        let words = words.get(from..).unwrap_or(words).replace('\n', "; ");
        Err(io::Error::other(format!("kernel-path.sh {verb}: {words}")))
    }
}

/// What is kept of a peer between two looks at the interface.
#[derive(Debug, Clone, Default)]
struct Used {
    /// Counted before this start, or before the peer was last away.
    before: (u64, u64),
    seen: Option<Dumped>,
    active_at: Option<Instant>,
}

struct KernelPath {
    interface: String,
    script: Script,
    run_dir: PathBuf,
    peers: Vec<PeerSpec>,
    used: HashMap<PublicKey, Used>,
}

impl KernelPath {
    fn run(mut self, inputs: &Inputs) {
        while let Some(input) = inputs.wait() {
            match input {
                Input::SetPeers(peers) if peers != self.peers => {
                    if let Err(error) = self.set_peers(peers, "sync") {
                        tracing::error!("the peers could not be changed: {error}");
                    }
                }
                Input::AddToCounters(counters) => {
                    for (key, rx_bytes, tx_bytes) in counters {
                        let before = &mut self.used.entry(key).or_default().before;
                        *before = (before.0 + rx_bytes, before.1 + tx_bytes);
                    }
                }
                Input::Report(reply) => match self.report() {
                    Ok(snapshot) => drop(reply.send(snapshot)),
                    Err(error) => tracing::error!("wg show: {error}"),
                },
                Input::Stop => break,
                // The rules match whatever is local at the moment.
                Input::SetPeers(_) | Input::SetOwnAddresses(_) => {}
            }
        }
        self.down();
    }

    /// Makes these the peers. The flows of those who went, or whose key changed, end at once.
    fn set_peers(&mut self, peers: Vec<PeerSpec>, verb: &str) -> io::Result<()> {
        let stays = |old: &&PeerSpec| {
            peers
                .iter()
                .any(|new| new.public_key == old.public_key && new.ipv4 == old.ipv4)
        };
        let mut revoked = String::new();
        for gone in self.peers.iter().filter(|old| !stays(old)) {
            let _ = write!(revoked, "{} ", gone.ipv4);
            // The interface goes on counting for a key that stays.
            let key_stays = peers.iter().any(|new| new.public_key == gone.public_key);
            if !key_stays && let Some(used) = self.used.get_mut(&gone.public_key) {
                used.settle();
            }
        }
        write_private(&self.run_dir.join(PEERS_FILE), sections(&peers).as_bytes())?;
        self.script.run(verb, revoked.trim_end())?;
        self.peers = peers;
        Ok(())
    }

    fn report(&mut self) -> io::Result<Snapshot> {
        let output = Command::new("wg")
            .args(["show", &self.interface, "dump"])
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        let dumped = dump::parse(&String::from_utf8_lossy(&output.stdout));
        let (at, wall) = (Instant::now(), SystemTime::now());
        let peers = self.peers.iter().map(|spec| {
            let used = self.used.entry(spec.public_key).or_default();
            let now = dumped.get(&spec.public_key).cloned().unwrap_or_default();
            used.look(&now, at);
            PeerReport {
                public_key: spec.public_key,
                ipv4: spec.ipv4,
                ipv6: spec.ipv6,
                endpoint: now.endpoint,
                latest_handshake: now
                    .latest_handshake
                    .and_then(|then| at.checked_sub(wall.duration_since(then).unwrap_or_default())),
                active_at: used.active_at,
                rx_bytes: used.before.0 + now.rx_bytes,
                tx_bytes: used.before.1 + now.tx_bytes,
            }
        });
        Ok(Snapshot {
            at,
            peers: peers.collect(),
            drops: DropCounters::default(),
            flows: FlowCounts::default(),
            lost_frames: 0,
        })
    }

    fn down(&self) {
        if let Err(error) = self.script.run("down", "") {
            tracing::error!("{error}");
        }
        for name in [KEY_FILE, PEERS_FILE] {
            let _ = std::fs::remove_file(self.run_dir.join(name));
        }
    }
}

impl Used {
    /// Takes over what the interface says now.
    fn look(&mut self, now: &Dumped, at: Instant) {
        if let Some(seen) = &self.seen
            && now.rx_bytes.saturating_sub(seen.rx_bytes) > dump::LARGEST_IDLE_BYTES
        {
            self.active_at = Some(at);
        }
        self.seen = Some(now.clone());
    }

    /// The interface forgets a peer's counters when the peer goes; they stay here.
    fn settle(&mut self) {
        if let Some(seen) = self.seen.take() {
            self.before = (self.before.0 + seen.rx_bytes, self.before.1 + seen.tx_bytes);
        }
    }
}

/// The peers as `wg` reads them.
fn sections(peers: &[PeerSpec]) -> String {
    let mut text = String::new();
    for peer in peers {
        let _ = writeln!(text, "[Peer]\nPublicKey = {}", peer.public_key);
        if let Some(preshared_key) = &peer.preshared_key {
            let _ = writeln!(text, "PresharedKey = {}", &*preshared_key.to_base64());
        }
        let allowed: [IpAddr; 2] = [peer.ipv4.into(), peer.ipv6.into()];
        let _ = writeln!(text, "AllowedIPs = {}/32, {}/128", allowed[0], allowed[1]);
    }
    text
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
