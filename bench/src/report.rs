//! The table, and the document around it.

mod figures;
mod goals;

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::options::Options;
use crate::results::{Results, Summary};
use crate::servers::Kind;
use figures::FIGURES;

/// Prints the table, and writes the document if one was asked for.
pub(crate) fn publish(results: &Results, options: &Options) -> Result<()> {
    crate::say(&table(results)?)?;
    for note in &results.notes {
        crate::say(&format!("note: {note}"))?;
    }
    if let Some(path) = &options.document {
        let mut text = document(results)?;
        // What was found out about the figures is written by people.
        if let Ok(old) = fs::read_to_string(path)
            && let Some(at) = old.find(BY_HAND)
        {
            text.truncate(text.find(BY_HAND).unwrap_or(text.len()));
            text += &old[at..];
        }
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn measured(results: &Results) -> Vec<Kind> {
    let known = |kind: &Kind| results.servers.contains_key(kind.name());
    Kind::ALL.into_iter().filter(known).collect()
}

/// Markdown that can be read as it is.
fn table(results: &Results) -> Result<String> {
    let kinds = measured(results);
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(kinds.iter().map(|kind| kind.name().to_owned()));
    for figure in &FIGURES {
        let summaries: Vec<_> = kinds
            .iter()
            .map(|kind| results.rounds(*kind, figure.name))
            .collect();
        if summaries.iter().any(Option::is_some) {
            let mut row = vec![format!("{}, {}", figure.title, figure.unit)];
            row.extend(summaries.iter().zip(&kinds).map(|(summary, kind)| {
                let reference = (Kind::WireguardGo, figure.name);
                let ratio = (figure.ratio && *kind != Kind::WireguardGo)
                    .then(|| results.ratio((*kind, figure.name), reference));
                cell(*summary, ratio.flatten())
            }));
            rows.push(row);
        }
    }
    let columns = rows[0].len();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "| {cell:width$} ")?;
        }
        text += "|\n";
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(width + 1);
                write!(text, "|{line}{}", if column == 0 { "-" } else { ":" })?;
            }
            text += "|\n";
        }
    }
    Ok(text)
}

/// `median [min-max] (ratio to wireguard-go)`.
fn cell(summary: Option<Summary>, ratio: Option<f64>) -> String {
    let Some(summary) = summary else {
        return "–".to_owned();
    };
    let mut text = number(summary.median);
    if summary.rounds > 1 && summary.min < summary.max {
        text += &format!(" [{}-{}]", number(summary.min), number(summary.max));
    }
    if let Some(ratio) = ratio {
        text += &format!(" ({}x)", number(ratio));
    }
    text
}

/// Three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        0.0..0.0005 => "0".to_owned(),
        0.0..9.995 => format!("{value:.2}"),
        0.0..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn document(results: &Results) -> Result<String> {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## Measured on\n\n| | |\n|---|---|\n";
    for (name, value) in &results.setting {
        writeln!(text, "| {name} | {} |", value.replace('|', "/"))?;
    }
    text += "\n## Figures\n\nMedian [least-most of the rounds] (median of the rounds' ratios to \
             wireguard-go).\n\n";
    text += &table(results)?;
    text += "\n## What the rows mean\n\n";
    for figure in FIGURES.iter().filter(|figure| !figure.meaning.is_empty()) {
        writeln!(text, "* **{}**: {}", figure.title, figure.meaning)?;
    }
    text += "\n## Goals\n\n";
    text += &goals::table(results)?;
    if !results.notes.is_empty() {
        text += "\n## Notes of this run\n\n";
        for note in &results.notes {
            writeln!(text, "* {}", note.replace('\n', " "))?;
        }
    }
    text += BY_HAND;
    Ok(text)
}

/// Where the generated part ends.
const BY_HAND: &str = "\n<!-- What follows is written by hand. -->\n";

const INTRODUCTION: &str = "# Benchmarks

`make bench` measures all servers in one run and writes this page; `make bench ARGS=--help` names its
options. It needs root and Linux 6.1 or newer, and touches nothing outside network namespaces of its
own but `kernel.sched_autogroup_enabled` and `/dev/cpu_dma_latency`, while it runs. `make bench-soak`
carries 20 GB and looks at every byte.

```text
 [client] wireguard-go + TUN ── 1500-byte cable ── [server] ── 1500-byte cable ── [internet]
```

* The client is the same for all: a current wireguard-go, with UDP GSO and GRO. Older ones, such as
  Debian 12's, have neither, and would flatter us.
* The server's core runs the server and the threads that receive for its network cards (threaded
  NAPI), nothing else of the bench. What receiving costs is thus paid for by the receiver, as with
  real cards. The bench's bulk receivers take bytes without copying them.
* Server CPU time is what the scheduler gave to the server's processes, to its cards' threads and to
  its core's softirq thread.
* Autogroups (sched(7)) are off: with them a receiving thread at times waits for seconds behind the
  programs that it receives for, which no card's interrupt does, and what is lost meanwhile is blamed
  on the server.
* Idle cores stay awake (a latency of 0 by `/dev/cpu_dma_latency`), where the kernel has a driver for
  it: waking a virtual core takes an interrupt through its hypervisor, and the server would pay for
  waking the machines it sends to, which no network makes it do.
* Each row goes from server to server before the next, beginning with another server each round, so
  that what drifts in the machine hits all alike; a ratio is the median of the rounds' ratios.
* popup-raw runs as an unprivileged user with CAP_NET_RAW, popup-socket and wgslirpy as one without
  any capability, the others as root with a TUN device and iptables MASQUERADE.
";
