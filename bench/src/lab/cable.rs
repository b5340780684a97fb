//! A cable that behaves like one between two network cards.
//!
//! A bare veth pair delivers in the sender's time: what receiving costs would be charged to the
//! wrong machine. With NAPI in a thread of its own for each end, pinned to its machine's core,
//! receiving is paid for by the receiver, as with a card. A queue in front of each end holds the
//! sender back when the other's ring of 256 is full.

use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Namespace, cores};

/// What crosses the cable, and so who cuts and joins packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// 1500-byte packets come in; the server's card cuts TCP for it (TSO) but not UDP (no USO).
    /// What most clouds give.
    Card,
    /// As `Card`, and the card cuts UDP as well.
    CardWithUso,
    /// Nobody cuts anything: 64 KiB cross the cable in one piece, as between virtual machines of
    /// one host.
    Virtual,
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "card" => Ok(Self::Card),
            "card-uso" => Ok(Self::CardWithUso),
            "virtual" => Ok(Self::Virtual),
            _ => Err("card, card-uso or virtual".to_owned()),
        }
    }
}

impl Path {
    /// For the report.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Card => {
                "1500-byte packets arrive at the server and are joined by its GRO; its own card cuts TCP (TSO), UDP is cut in software (no USO)"
            }
            Self::CardWithUso => {
                "1500-byte packets arrive at the server and are joined by its GRO; its own card cuts TCP and UDP (TSO, USO)"
            }
            Self::Virtual => "super-packets of up to 64 KiB cross uncut in both directions",
        }
    }

    fn server_offloads(self) -> &'static str {
        match self {
            Self::Card => "gro on tso on tx-udp-segmentation off",
            Self::CardWithUso | Self::Virtual => "gro on tso on tx-udp-segmentation on",
        }
    }

    fn neighbour_offloads(self) -> &'static str {
        match self {
            Self::Card | Self::CardWithUso => "gro on tso off tx-udp-segmentation off",
            Self::Virtual => "gro on tso on tx-udp-segmentation on",
        }
    }
}

/// Whose end of the cable.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Server,
    Neighbour,
    /// The end of a cable to the relay, which needs whole frames with their checksums.
    Relayed,
}

/// Makes `device` in `namespace` a card of a machine that runs on `core`. Returns the number of
/// the thread that receives.
pub(super) fn plug_in(
    namespace: &Namespace,
    device: &str,
    path: Path,
    end: End,
    core: &str,
) -> Result<u32> {
    let offloads = match end {
        End::Server => path.server_offloads(),
        End::Neighbour => path.neighbour_offloads(),
        End::Relayed => "gro on tso off gso off tx-udp-segmentation off tx off",
    };
    namespace.shell(&format!(
        "ethtool -K {device} {offloads}
         tc qdisc replace dev {device} root pfifo limit 1000
         ip link set {device} up
         echo 1 >/sys/class/net/{device}/threaded"
    ))?;
    let thread = receiving_thread(device)?;
    cores::pin(thread, core)?;
    let nice = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(
        rustix::process::Pid::from_raw(thread.cast_signed()),
        nice,
    )?;
    Ok(thread)
}

/// The kernel names it after the device, and the bench's devices are named after the bench.
fn receiving_thread(device: &str) -> Result<u32> {
    let prefix = format!("napi/{device}-");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.starts_with(&prefix) {
                return Ok(pid);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("no thread receives for {device}: the bench needs Linux 6.1 or newer")
}

/// A counter of a device.
pub(crate) fn counter(namespace: &Namespace, device: &str, name: &str) -> Result<u64> {
    let text = namespace.shell(&format!("cat /sys/class/net/{device}/statistics/{name}"))?;
    text.trim().parse().context("a counter")
}
