//! What is measured: our gateway in its modes, what a user would pick instead, and the ceiling.

mod popup;
mod tun;
mod wgslirpy;

pub(crate) use tun::Client;

use std::net::Ipv4Addr;
use std::process::Child;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use popup_model::{PrivateKey, PublicKey};

use crate::lab::{Lab, eventually};
use crate::tools::Tools;

/// A server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Our gateway with `CAP_NET_RAW` and nothing else.
    PopupRaw,
    /// Our gateway without any privilege.
    PopupSocket,
    /// wireguard-go, a TUN device, and the kernel's NAT.
    WireguardGo,
    /// boringtun-cli, a TUN device, and the kernel's NAT.
    Boringtun,
    /// The nearest neighbour without privileges.
    Wgslirpy,
    /// The kernel's NAT alone, without a VPN: what no server can exceed.
    KernelNat,
}

impl Kind {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 6] = [
        Self::PopupRaw,
        Self::PopupSocket,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Wgslirpy,
        Self::KernelNat,
    ];

    /// As in options, results and the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PopupRaw => "popup-raw",
            Self::PopupSocket => "popup-socket",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Wgslirpy => "wgslirpy",
            Self::KernelNat => "kernel-nat",
        }
    }

    /// Whether the client needs a tunnel to it.
    pub(crate) fn is_vpn(self) -> bool {
        self != Self::KernelNat
    }

    /// How many peers it can serve.
    pub(crate) fn peers(self) -> usize {
        match self {
            Self::Wgslirpy => 1,
            Self::KernelNat => 0,
            _ => 200,
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name() == text)
            .ok_or_else(|| format!("servers are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A peer of the server.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: PrivateKey,
    /// In the tunnel.
    pub(crate) address: Ipv4Addr,
}

/// `count` peers with the addresses that the server will give them.
pub(crate) fn peers(count: usize) -> Vec<Peer> {
    (0..count)
        .map(|index| Peer {
            key: PrivateKey::generate(),
            address: Ipv4Addr::new(10, 8, 0, 2 + index as u8),
        })
        .collect()
}

/// A server that runs. It ends when this is dropped, at the latest with its box.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    /// None without a VPN.
    pub(crate) public_key: Option<PublicKey>,
    /// Its processes, as numbered outside the box.
    pub(crate) pids: Vec<u32>,
    process: Option<Child>,
}

impl Server {
    /// Starts it and waits until it can be used.
    pub(crate) fn start(kind: Kind, lab: &Lab, tools: &Tools, peers: &[Peer]) -> Result<Self> {
        let start = || match kind {
            Kind::PopupRaw => popup::start(lab, tools, peers, popup::Mode::Raw),
            Kind::PopupSocket => popup::start(lab, tools, peers, popup::Mode::Socket),
            Kind::WireguardGo => tun::start(lab, tools, peers, tun::Program::WireguardGo),
            Kind::Boringtun => tun::start(lab, tools, peers, tun::Program::Boringtun),
            Kind::Wgslirpy => wgslirpy::start(lab, tools, peers),
            Kind::KernelNat => {
                tun::translate(lab)?;
                Ok(Started {
                    process: None,
                    program: None,
                    public_key: None,
                })
            }
        };
        let started = start().with_context(|| format!("{} does not start", kind.name()))?;
        let pids = match started.program {
            None => Vec::new(),
            Some(program) => lab.server.processes(program)?,
        };
        ensure!(
            pids.is_empty() == started.program.is_none(),
            "{} has ended at once",
            kind.name()
        );
        Ok(Self {
            kind,
            public_key: started.public_key,
            pids,
            process: started.process,
        })
    }

    /// What its processes have in memory, in bytes: now, or at most since they started.
    pub(crate) fn memory(&self, field: Memory) -> Result<u64> {
        let mut sum = 0;
        for pid in &self.pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("{} has ended", self.kind.name()))?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(field.name()));
            let kib = line.and_then(|line| line.split_whitespace().next());
            sum += kib.context("no such field")?.parse::<u64>()? * 1024;
        }
        Ok(sum)
    }
}

/// What the server says of packets that it has refused, if it says anything.
pub(crate) fn drops(kind: Kind, lab: &Lab) -> Option<String> {
    matches!(kind, Kind::PopupRaw | Kind::PopupSocket)
        .then(|| popup::drops(lab))
        .flatten()
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        for pid in &self.pids {
            if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            }
        }
        let ended = eventually(Duration::from_secs(3), "the server ends", || {
            process.try_wait().ok().flatten()
        });
        if ended.is_err() {
            process.kill().ok();
        }
    }
}

/// Which memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    Now,
    Peak,
}

impl Memory {
    fn name(self) -> &'static str {
        match self {
            Self::Now => "VmRSS:",
            Self::Peak => "VmHWM:",
        }
    }
}

/// What starting a server gives.
struct Started {
    process: Option<Child>,
    /// The name of its processes.
    program: Option<&'static str>,
    public_key: Option<PublicKey>,
}

/// The options of `setpriv` for the unprivileged user, who keeps only these capabilities.
fn unprivileged(capabilities: &str) -> Vec<String> {
    let sets = |set: &str| match capabilities {
        "" => format!("--{set}=-all"),
        some => format!("--{set}=-all,{some}"),
    };
    let mut options: Vec<String> = ["--reuid=65534", "--regid=65534", "--clear-groups"]
        .map(str::to_owned)
        .into();
    options.extend([sets("bounding-set"), sets("inh-caps")]);
    if !capabilities.is_empty() {
        options.push(sets("ambient-caps"));
    }
    options.extend(["--no-new-privs".to_owned(), "--".to_owned()]);
    options
}
