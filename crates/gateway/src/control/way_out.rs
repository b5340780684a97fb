//! Which way packets leave, and why that one.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::time::Duration;

use popup_gateway_core::{Limits, WayOut};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::io::{self, Proof, RawPath, RawSockets, Unavailable, WireGuardSocket};
use crate::privileges::{self, PortOpener, User};
use crate::settings::{Mode, ProbeTarget, Settings};

/// How long the name of the self-test's target is looked up.
const LOOKUP: Duration = Duration::from_secs(2);

/// Flows that the NAT keeps: they cost memory, not descriptors.
const RAW_FLOWS: usize = 65_536;

/// What needs a privilege, done before the process has given it up.
pub(crate) struct Prepared {
    raw: Result<RawSockets, String>,
    ports: PortOpener,
}

impl Prepared {
    /// Opens what `raw` mode needs, and gives up what the process does not need any more. To be
    /// called before there is another thread.
    pub(crate) fn new(settings: &Settings) -> std::io::Result<Self> {
        let raw = match settings.mode {
            Mode::Raw | Mode::Auto => RawSockets::open().map_err(|error| not_raw(&error)),
            Mode::Socket => Err("asked for by name".to_owned()),
            Mode::Kernel(_) => Err(String::new()),
        };
        let ports = match raw {
            Ok(_) => privileges::give_up(User::for_directory(settings.directory()))?,
            Err(_) => PortOpener::unprivileged(),
        };
        Ok(Self { raw, ports })
    }
}

/// The way that was found, open.
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) reason: String,
    pub(super) core: WayOut,
    pub(super) limits: Limits,
    pub(super) wireguard: Vec<WireGuardSocket>,
    pub(super) raw: Option<RawPath>,
}

/// Opens the ports that peers speak to, and the best way out that works.
pub(super) async fn open(
    prepared: Prepared,
    settings: &Settings,
    ports: &[u16],
) -> anyhow::Result<Way> {
    let descriptors = io::raise_descriptor_limit();
    let opened = ports.iter().zip(prepared.ports.open(ports));
    let wireguard = opened
        .map(|(port, socket)| {
            socket.map_err(|error| anyhow::anyhow!("UDP port {port} cannot be opened: {error}"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let raw = match prepared.raw {
        Ok(sockets) => {
            let (target, ports) = (settings.probe_target.clone(), ports.to_vec());
            let target = resolve(target).await;
            spawn_blocking(move || sockets.prepare(&ports, descriptors, target))
                .await?
                .map_err(|error| not_raw(&error))
        }
        Err(reason) => Err(reason),
    };
    let limits = Limits::for_descriptors(descriptors);
    Ok(match raw {
        Ok((raw, proof)) => Way {
            name: "raw",
            reason: match proof {
                Proof::Passed => "CAP_NET_RAW, and the self-test has passed".to_owned(),
                Proof::Untested(why) => format!("CAP_NET_RAW, untested: {why}"),
            },
            core: WayOut::Raw(raw.settings()),
            limits: Limits {
                flows: RAW_FLOWS,
                flows_per_peer: RAW_FLOWS / 2,
                ..limits
            },
            wireguard,
            raw: Some(raw),
        },
        Err(reason) => {
            if matches!(settings.mode, Mode::Raw) {
                tracing::warn!("raw mode was asked for and cannot be had: {reason}");
            }
            Way {
                name: "socket",
                reason,
                core: WayOut::Sockets {
                    echo: io::echo_available(),
                },
                limits,
                wireguard,
                raw: None,
            }
        }
    })
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
