//! Which way packets leave, and why that one.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::time::Duration;

use popup_gateway_core::{Limits, Shard, WayOut};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::io::{self, Proof, RawPath, RawSockets, Unavailable, WireGuardSocket};
use crate::privileges::{self, PortOpener, User};
use crate::settings::{Mode, ProbeTarget, Settings};

/// How long the name of the self-test's target is looked up.
const LOOKUP: Duration = Duration::from_secs(2);

/// Flows that the NAT keeps: they cost memory, not descriptors.
const RAW_FLOWS: usize = 65_536;

/// What needs a privilege, or no other thread, done while that is so.
pub(crate) struct Prepared {
    /// One for each loop.
    raw: Result<Vec<RawSockets>, String>,
    ports: PortOpener,
    /// How many the process may have.
    descriptors: usize,
}

impl Prepared {
    /// Opens what `raw` mode needs, and gives up what the process does not need any more. To be
    /// called before there is another thread.
    pub(crate) fn new(settings: &Settings) -> std::io::Result<Self> {
        // First: opening ports takes a thread where the process may open privileged ones.
        let descriptors = io::make_room_for_descriptors();
        let raw = match settings.mode {
            Mode::Raw | Mode::Auto => Shard::all(settings.threads)
                .map(|_| RawSockets::open())
                .collect::<Result<_, _>>()
                .map_err(|error| not_raw(&error)),
            Mode::Socket => Err("asked for by name".to_owned()),
            Mode::Kernel(_) => Err(String::new()),
        };
        let ports = match settings.mode {
            Mode::Kernel(_) => PortOpener::unprivileged(),
            _ => privileges::give_up(User::for_directory(settings.directory()))?,
        };
        Ok(Self {
            raw,
            ports,
            descriptors,
        })
    }
}

/// The way that was found, open.
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) reason: String,
    pub(super) limits: Limits,
    pub(super) shares: Vec<Share>,
}

/// What one loop gets of it.
pub(super) struct Share {
    pub(super) shard: Shard,
    pub(super) core: WayOut,
    pub(super) wireguard: Vec<WireGuardSocket>,
    pub(super) raw: Option<RawPath>,
}

/// Opens the ports that peers speak to, and the best way out that works.
pub(super) async fn open(
    prepared: Prepared,
    settings: &Settings,
    ports: &[u16],
) -> anyhow::Result<Way> {
    let descriptors = prepared.descriptors;
    let shards: Vec<Shard> = Shard::all(settings.threads).collect();
    let opened = prepared.ports.open(ports, shards.len());
    let mut wireguard: Vec<Vec<WireGuardSocket>> = shards.iter().map(|_| Vec::new()).collect();
    for (port, sockets) in ports.iter().zip(opened) {
        let sockets = sockets
            .map_err(|error| anyhow::anyhow!("UDP port {port} cannot be opened: {error}"))?;
        for (share, socket) in wireguard.iter_mut().zip(sockets) {
            share.push(socket);
        }
    }
    let raw = match prepared.raw {
        Ok(sockets) => {
            let (target, ports) = (settings.probe_target.clone(), ports.to_vec());
            let (target, shards) = (resolve(target).await, shards.clone());
            spawn_blocking(move || prepare(sockets, &shards, &ports, descriptors, target))
                .await?
                .map_err(|error| not_raw(&error))
        }
        Err(reason) => Err(reason),
    };
    let limits = Limits::for_descriptors(descriptors, shards.len());
    let sockets = shards.iter().copied().zip(wireguard);
    Ok(match raw {
        Ok((paths, proof)) => Way {
            name: "raw",
            reason: match proof {
                Proof::Passed => "CAP_NET_RAW, and the self-test has passed".to_owned(),
                Proof::Untested(why) => format!("CAP_NET_RAW, untested: {why}"),
            },
            limits: Limits {
                flows: RAW_FLOWS,
                flows_per_peer: RAW_FLOWS - RAW_FLOWS / 4,
                ..limits
            },
            shares: sockets
                .zip(paths)
                .map(|((shard, wireguard), raw)| Share {
                    shard,
                    core: WayOut::Raw(raw.settings()),
                    wireguard,
                    raw: Some(raw),
                })
                .collect(),
        },
        Err(reason) => {
            if matches!(settings.mode, Mode::Raw) {
                tracing::warn!("raw mode was asked for and cannot be had: {reason}");
            }
            let echo = io::echo_available();
            Way {
                name: "socket",
                reason,
                limits,
                shares: sockets
                    .map(|(shard, wireguard)| Share {
                        shard,
                        core: WayOut::Sockets { echo },
                        wireguard,
                        raw: None,
                    })
                    .collect(),
            }
        }
    })
}

/// Makes every loop's sockets ready; the first tests the way for all.
fn prepare(
    sockets: Vec<RawSockets>,
    shards: &[Shard],
    ports: &[u16],
    descriptors: usize,
    target: Option<SocketAddrV4>,
) -> Result<(Vec<RawPath>, Proof), Unavailable> {
    let mut paths = Vec::new();
    let mut first = None;
    for (sockets, shard) in sockets.into_iter().zip(shards) {
        let target = target.filter(|_| first.is_none());
        let (path, proof) = sockets.prepare(*shard, ports, descriptors, target)?;
        paths.push(path);
        first.get_or_insert(proof);
    }
    let proof = first.unwrap_or(Proof::Untested("there is no loop"));
    Ok((paths, proof))
}

fn not_raw(why: &Unavailable) -> String {
    format!("not raw: {why}")
}

/// The target's address, unless it is this host.
async fn resolve(target: Option<ProbeTarget>) -> Option<SocketAddrV4> {
    let ProbeTarget { host, port } = target?;
    let lookup = spawn_blocking(move || (host.as_str(), port).to_socket_addrs());
    let found = timeout(LOOKUP, lookup).await.ok()?.ok()?.ok()?;
    let own = io::own_ipv4_addresses().unwrap_or_default();
    found
        .filter_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        })
        .find(|address| is_elsewhere(*address.ip(), &own))
}

fn is_elsewhere(address: Ipv4Addr, own: &[Ipv4Addr]) -> bool {
    !address.is_loopback() && !own.contains(&address)
}
