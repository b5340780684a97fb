//! What is shown, what it means, and what it is to be.

use std::fmt::Write as _;

use anyhow::Result;

use crate::results::Results;
use crate::servers::Kind;

/// A line of the table.
#[derive(Debug)]
pub(super) struct Figure {
    /// In the results.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// Whether a ratio to wireguard-go says something.
    pub(super) ratio: bool,
    /// For the document; empty where the line before has said it.
    pub(super) meaning: &'static str,
}

const fn figure(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    ratio: bool,
    meaning: &'static str,
) -> Figure {
    Figure {
        name,
        title,
        unit,
        ratio,
        meaning,
    }
}

/// In the order of the table.
pub(super) const FIGURES: [Figure; 50] = [
    figure(
        "tcp-down-1",
        "TCP down, 1 stream",
        "Gbit/s",
        true,
        "long transfers as fast as they go. With two cores the client and the internet share one, and are the bottleneck wherever the server's core is not used up.",
    ),
    figure(
        "tcp-down-1-cpu",
        "TCP down, 1 stream: cost",
        "server CPU-s/GB",
        true,
        "what the server's processes, its cards' receiving threads and its core's softirq thread have used for each GB that arrived.",
    ),
    figure(
        "tcp-down-1-core",
        "TCP down, 1 stream: server's core",
        "% used",
        false,
        "how much of the server's core that was; below about 95 the server was not the bottleneck.",
    ),
    figure("tcp-up-1", "TCP up, 1 stream", "Gbit/s", true, ""),
    figure(
        "tcp-up-1-cpu",
        "TCP up, 1 stream: cost",
        "server CPU-s/GB",
        true,
        "",
    ),
    figure(
        "tcp-up-1-core",
        "TCP up, 1 stream: server's core",
        "% used",
        false,
        "",
    ),
    figure("tcp-down-8", "TCP down, 8 streams", "Gbit/s", true, ""),
    figure(
        "tcp-down-8-cpu",
        "TCP down, 8 streams: cost",
        "server CPU-s/GB",
        true,
        "",
    ),
    figure(
        "tcp-down-8-core",
        "TCP down, 8 streams: server's core",
        "% used",
        false,
        "",
    ),
    figure("tcp-up-8", "TCP up, 8 streams", "Gbit/s", true, ""),
    figure(
        "tcp-up-8-cpu",
        "TCP up, 8 streams: cost",
        "server CPU-s/GB",
        true,
        "",
    ),
    figure(
        "tcp-up-8-core",
        "TCP up, 8 streams: server's core",
        "% used",
        false,
        "",
    ),
    figure(
        "share-down-1",
        "TCP down, 1 stream, slowed core",
        "Gbit/s",
        true,
        "the same while a real-time thread takes the rest of the server's core in every millisecond, so that the server is the bottleneck: throughput of a saturated server. The kernel's part of the server is slowed alike.",
    ),
    figure(
        "share-down-1-core",
        "TCP down, 1 stream, slowed core: share",
        "% used",
        false,
        "how much of what it was left the server has used.",
    ),
    figure(
        "share-up-1",
        "TCP up, 1 stream, slowed core",
        "Gbit/s",
        true,
        "",
    ),
    figure(
        "share-up-1-core",
        "TCP up, 1 stream, slowed core: share",
        "% used",
        false,
        "",
    ),
    figure(
        "share-down-8",
        "TCP down, 8 streams, slowed core",
        "Gbit/s",
        true,
        "",
    ),
    figure(
        "share-down-8-core",
        "TCP down, 8 streams, slowed core: share",
        "% used",
        false,
        "",
    ),
    figure(
        "share-up-8",
        "TCP up, 8 streams, slowed core",
        "Gbit/s",
        true,
        "",
    ),
    figure(
        "share-up-8-core",
        "TCP up, 8 streams, slowed core: share",
        "% used",
        false,
        "",
    ),
    figure(
        "udp-loss",
        "UDP up at 500 Mbit/s: loss",
        "%",
        true,
        "of 1200-byte datagrams that left the client's tunnel, those that did not arrive.",
    ),
    figure(
        "udp-offered",
        "UDP up: left the client",
        "Mbit/s",
        false,
        "",
    ),
    figure("udp-core", "UDP up: server's core", "% used", false, ""),
    figure(
        "udp-idle-p50",
        "UDP echo, idle, p50",
        "µs",
        true,
        "64 bytes there and back, one each 4 ms; loaded: beside a TCP download paced to 200 Mbit/s.",
    ),
    figure("udp-idle-p99", "UDP echo, idle, p99", "µs", true, ""),
    figure("udp-loaded-p50", "UDP echo, loaded, p50", "µs", true, ""),
    figure("udp-loaded-p99", "UDP echo, loaded, p99", "µs", true, ""),
    figure(
        "tcp-idle-p50",
        "TCP connect and first byte, idle, p50",
        "µs",
        true,
        "one connection after the other.",
    ),
    figure(
        "tcp-idle-p99",
        "TCP connect and first byte, idle, p99",
        "µs",
        true,
        "",
    ),
    figure(
        "tcp-loaded-p50",
        "TCP connect and first byte, loaded, p50",
        "µs",
        true,
        "",
    ),
    figure(
        "tcp-loaded-p99",
        "TCP connect and first byte, loaded, p99",
        "µs",
        true,
        "",
    ),
    figure("loaded-mbit", "the load beside it", "Mbit/s", false, ""),
    figure(
        "http-rate",
        "new HTTP connections",
        "1/s",
        true,
        "connect, one request, one answer, the end; 64 at a time, to 16 addresses.",
    ),
    figure("http-failed", "new HTTP connections: failed", "", false, ""),
    figure(
        "http-cpu",
        "new HTTP connections: cost",
        "server CPU-µs each",
        true,
        "",
    ),
    figure(
        "http-core",
        "new HTTP connections: server's core",
        "% used",
        false,
        "",
    ),
    figure(
        "http-rss",
        "new HTTP connections: memory at most",
        "MiB",
        false,
        "peak resident memory of the server's processes so far in the round.",
    ),
    figure(
        "flows-failed",
        "10,000 flows: failed",
        "",
        false,
        "TCP connections opened in bursts of 500 to 16 addresses and kept; one counts when a byte has come through.",
    ),
    figure("flows-seconds", "10,000 flows: opened in", "s", false, ""),
    figure("flows-rss", "10,000 flows: memory", "MiB", false, ""),
    figure(
        "far-down",
        "40 ms, TCP down, 1 stream",
        "Mbit/s",
        true,
        "a relay between the client and the server delays every packet by 20 ms each way.",
    ),
    figure("far-up", "40 ms, TCP up, 1 stream", "Mbit/s", true, ""),
    figure(
        "lossy-down",
        "40 ms and 0.5 % loss, TCP down",
        "Mbit/s",
        true,
        "the relay also loses 0.5 % of all packets, in both directions.",
    ),
    figure(
        "lossy-up",
        "40 ms and 0.5 % loss, TCP up",
        "Mbit/s",
        true,
        "",
    ),
    figure(
        "fair-mbit",
        "32 peers down, slowed core: together",
        "Mbit/s",
        true,
        "32 WireGuard peers with one TCP download each. The client is one thread with 32 sessions.",
    ),
    figure(
        "fair-min",
        "32 peers: the slowest",
        "% of the mean",
        false,
        "",
    ),
    figure(
        "fair-max",
        "32 peers: the fastest",
        "% of the mean",
        false,
        "",
    ),
    figure(
        "fair-core",
        "32 peers, slowed core: share",
        "% used",
        false,
        "",
    ),
    figure(
        "idle-cpu",
        "idle: CPU",
        "% of a core",
        false,
        "of the server's processes, with one peer that has nothing to say.",
    ),
    figure("idle-rss", "idle: memory", "MiB", false, ""),
];

pub(super) const INTRODUCTION: &str = "";

pub(super) fn goals(results: &Results) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", results.notes.len())?;
    let _ = Kind::ALL;
    Ok(text)
}
