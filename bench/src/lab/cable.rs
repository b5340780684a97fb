//! A cable that behaves like one between two network cards.
//!
//! A bare veth pair delivers in the sender's time: what receiving costs would be charged to the
//! wrong machine. So the server's ends receive by NAPI in threads of their own, pinned to its
//! cores, as a card's interrupts would be. A veth does that only for a sender without TSO
//! (`veth_skb_is_eligible_for_gro`), which the server's neighbours are, since they are to send
//! 1500-byte packets. The server itself has TSO; what it sends is received by NAPI where GRO of
//! UDP is on, and else handed to the neighbour's core by RPS.
//!
//! A queue in front of each end holds the sender back when the other's ring of 256 is full.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Namespace, cores};
use crate::cpu::process_named;

/// What the server's cards can do. Towards the server cross 1500-byte packets in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// They cut TCP (TSO) but not UDP (no USO). What most clouds give.
    Card,
    /// They cut UDP as well.
    CardWithUso,
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "card" => Ok(Self::Card),
            "card-uso" => Ok(Self::CardWithUso),
            _ => Err("card or card-uso".to_owned()),
        }
    }
}

impl Path {
    /// For the report.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Card => {
                "1500-byte packets arrive at the server and are joined by its GRO; its own cards cut TCP (TSO), UDP is cut in software (no USO)"
            }
            Self::CardWithUso => {
                "1500-byte packets arrive at the server and are joined by its GRO; its own cards cut TCP and UDP (TSO, USO)"
            }
        }
    }
}

/// Whose end of the cable.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Server,
    Neighbour,
    /// The end of a cable to the relay, which needs whole frames with their checksums.
    ToRelay,
}

/// Makes `device` in `namespace` a card of a machine that runs on `cores`. Returns the number of
/// the thread that receives.
pub(super) fn plug_in(
    namespace: &Namespace,
    device: &str,
    path: Path,
    end: End,
    cores: &str,
) -> Result<u32> {
    let offloads = match (end, path) {
        (End::Server, Path::Card) => "tso on tx-udp-segmentation off",
        (End::Server, Path::CardWithUso) => "tso on tx-udp-segmentation on",
        (End::Neighbour, _) => "tso off tx-udp-segmentation off rx-udp-gro-forwarding on",
        (End::ToRelay, _) => "tso off gso off tx-udp-segmentation off tx off",
    };
    let steer = match end {
        End::Server => String::new(),
        End::Neighbour | End::ToRelay => steer_to(device, cores)?,
    };
    namespace.shell(&format!(
        "ethtool -K {device} gro on {offloads}
         tc qdisc replace dev {device} root pfifo limit 1000
         ip link set {device} up
         echo 1 >/sys/class/net/{device}/threaded
         {steer}"
    ))?;
    let thread = receiving_thread(device)?;
    cores::pin(thread, cores)?;
    let pid = rustix::process::Pid::from_raw(thread.cast_signed());
    let nice = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(pid, nice)?;
    Ok(thread)
}

/// Makes `device` in `namespace` an end that the relay, on `cores`, can watch: nothing is joined,
/// and nothing received in the sender's time.
pub(super) fn plug_into_relay(namespace: &Namespace, device: &str, cores: &str) -> Result<()> {
    let steer = steer_to(device, cores)?;
    namespace
        .shell(&format!(
            "ethtool -K {device} gro off tso off gso off tx-udp-segmentation off
             tc qdisc replace dev {device} root pfifo limit 1000
             ip link set {device} up
             {steer}"
        ))
        .map(drop)
}

/// Shell commands that have `cores` receive what arrives at `device`.
fn steer_to(device: &str, cores: &str) -> Result<String> {
    let mask = cores::parse(cores)?
        .into_iter()
        .fold(0_u64, |mask, core| mask | 1 << core);
    Ok(format!(
        "echo {mask:x} >/sys/class/net/{device}/queues/rx-0/rps_cpus"
    ))
}

/// The kernel names it after the device, and the bench's devices are named after the bench.
fn receiving_thread(device: &str) -> Result<u32> {
    let prefix = format!("napi/{device}-");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        if let Some(pid) = process_named(|comm| comm.starts_with(&prefix))? {
            return Ok(pid);
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
