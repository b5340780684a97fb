//! What the figures are to be, and whether they are.

use std::fmt::Write as _;

use anyhow::Result;

use super::figures::figure_named;
use super::number;
use crate::results::Results;
use crate::servers::Kind;

/// What a median is held against.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
    LeastTimes(f64, Kind),
    MostTimes(f64, Kind),
    /// Of another figure of the same server.
    LeastTimesOwn(f64, &'static str),
}

/// One demand on some figures of one server.
struct Goal {
    server: Kind,
    figures: &'static [&'static str],
    bound: Bound,
}

const fn goal(server: Kind, figures: &'static [&'static str], bound: Bound) -> Goal {
    Goal {
        server,
        figures,
        bound,
    }
}

const THROUGHPUT: &[&str] = &["share-down-1", "share-up-1", "share-down-8", "share-up-8"];

/// Of a server that is the bottleneck.
const COST: &[&str] = &[
    "share-down-1-cpu",
    "share-up-1-cpu",
    "share-down-8-cpu",
    "share-up-8-cpu",
];

const NEW_CONNECTIONS: &[&str] = &["http-rate", "http-slow-rate"];

const FAILED_CONNECTIONS: &[&str] = &["http-failed", "http-slow-failed"];

const LATENCY: &[&str] = &[
    "udp-idle-p50",
    "udp-idle-p99",
    "udp-loaded-p50",
    "udp-loaded-p99",
    "tcp-idle-p50",
    "tcp-idle-p99",
    "tcp-loaded-p50",
    "tcp-loaded-p99",
];

use Bound::{Least, LeastTimes, LeastTimesOwn, Most, MostTimes};
use Kind::{PopupRaw, PopupSocket, Wgslirpy, WireguardGo};

const GOALS: [Goal; 29] = [
    goal(PopupRaw, THROUGHPUT, LeastTimes(3.0, WireguardGo)),
    goal(PopupRaw, COST, MostTimes(1.0 / 3.0, WireguardGo)),
    goal(PopupSocket, THROUGHPUT, LeastTimes(1.5, WireguardGo)),
    goal(PopupSocket, THROUGHPUT, LeastTimes(4.0, Wgslirpy)),
    goal(PopupRaw, LATENCY, MostTimes(1.0, WireguardGo)),
    goal(PopupSocket, LATENCY, MostTimes(1.0, WireguardGo)),
    goal(PopupRaw, &["udp-loss"], MostTimes(1.0 / 3.0, WireguardGo)),
    goal(PopupRaw, &["udp-loss"], Most(1.0)),
    goal(
        PopupSocket,
        &["udp-loss"],
        MostTimes(1.0 / 3.0, WireguardGo),
    ),
    goal(PopupSocket, &["udp-loss"], Most(1.0)),
    goal(PopupRaw, NEW_CONNECTIONS, LeastTimes(1.0, WireguardGo)),
    goal(PopupSocket, NEW_CONNECTIONS, LeastTimes(3.0, Wgslirpy)),
    goal(PopupRaw, FAILED_CONNECTIONS, Most(0.0)),
    goal(PopupSocket, FAILED_CONNECTIONS, Most(0.0)),
    goal(PopupRaw, &["http-rss", "flows-rss"], Most(64.0)),
    goal(PopupSocket, &["http-rss", "flows-rss"], Most(256.0)),
    goal(PopupRaw, &["flows-failed"], Most(0.0)),
    goal(PopupSocket, &["flows-failed"], Most(0.0)),
    goal(PopupSocket, &["far-down", "far-up"], Least(300.0)),
    goal(PopupRaw, &["fair-min"], Least(80.0)),
    goal(PopupRaw, &["fair-max"], Most(120.0)),
    goal(PopupSocket, &["fair-min"], Least(80.0)),
    goal(PopupSocket, &["fair-max"], Most(120.0)),
    goal(
        PopupRaw,
        &["two-cores-mbit"],
        LeastTimesOwn(1.6, "one-core-mbit"),
    ),
    goal(
        PopupSocket,
        &["two-cores-mbit"],
        LeastTimesOwn(1.6, "one-core-mbit"),
    ),
    goal(PopupRaw, &["idle-cpu"], Most(0.2)),
    goal(PopupSocket, &["idle-cpu"], Most(0.2)),
    goal(PopupRaw, &["idle-rss"], Most(12.0)),
    goal(PopupSocket, &["idle-rss"], Most(12.0)),
];

/// A Markdown table of every demand whose figures were measured.
pub(super) fn table(results: &Results) -> Result<String> {
    let mut text = "| server | figure | is to be | is | met |\n|---|---|---|---|---|\n".to_owned();
    for goal in &GOALS {
        for name in goal.figures {
            let (Some(own), Some((demand, met))) = (
                results.rounds(goal.server, name),
                judge(results, goal, name),
            ) else {
                continue;
            };
            let figure = figure_named(name);
            writeln!(
                text,
                "| {} | {} | {demand} | {} {} | {} |",
                goal.server.name(),
                figure.title,
                number(own.median),
                figure.unit,
                if met { "yes" } else { "**no**" },
            )?;
        }
    }
    Ok(text)
}

/// The demand in words, and whether it is met.
fn judge(results: &Results, goal: &Goal, figure: &str) -> Option<(String, bool)> {
    let own = results.rounds(goal.server, figure)?.median;
    let of = |kind: Kind| results.rounds(kind, figure).map(|summary| summary.median);
    let times = |factor: f64, kind: Kind| format!("{factor:.2} x {}", kind.name());
    Some(match goal.bound {
        Least(bound) => (format!("at least {bound}"), own >= bound),
        Most(bound) => (format!("at most {bound}"), own <= bound),
        LeastTimes(factor, kind) => (
            format!("at least {}", times(factor, kind)),
            own >= factor * of(kind)?,
        ),
        MostTimes(factor, kind) => (
            format!("at most {}", times(factor, kind)),
            own <= factor * of(kind)?,
        ),
        LeastTimesOwn(factor, name) => (
            format!("at least {factor:.2} x {}", figure_named(name).title),
            own >= factor * results.rounds(goal.server, name)?.median,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_about_a_figure_of_the_table() {
        for goal in &GOALS {
            for name in goal.figures {
                assert_eq!(figure_named(name).name, *name);
            }
        }
    }
}
