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
            let Some(verdict) = judge(results, goal, name) else {
                continue;
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                goal.server.name(),
                figure_named(name).title,
                verdict.demand,
                verdict.is,
                if verdict.met { "yes" } else { "**no**" },
            )?;
        }
    }
    Ok(text)
}

struct Verdict {
    /// In words.
    demand: String,
    /// The figure, and how many times the other it is where it is held against one.
    is: String,
    met: bool,
}

fn judge(results: &Results, goal: &Goal, figure: &str) -> Option<Verdict> {
    let own = results.rounds(goal.server, figure)?.median;
    let is = format!("{} {}", number(own), figure_named(figure).unit);
    let alone = |demand: String, met: bool| {
        let is = is.clone();
        Some(Verdict { demand, is, met })
    };
    let (at_least, factor, other, named) = match goal.bound {
        Least(bound) => return alone(format!("at least {bound}"), own >= bound),
        Most(bound) => return alone(format!("at most {bound}"), own <= bound),
        LeastTimes(factor, kind) => (true, factor, (kind, figure), kind.name()),
        MostTimes(factor, kind) => (false, factor, (kind, figure), kind.name()),
        LeastTimesOwn(factor, name) => {
            let other = (goal.server, name);
            (true, factor, other, figure_named(name).title)
        }
    };
    let reference = results.rounds(other.0, other.1)?.median;
    let ratio = results.ratio((goal.server, figure), other);
    let (has, wanted) = ratio.map_or((own, factor * reference), |ratio| (ratio, factor));
    let (bound, met) = match at_least {
        true => ("least", has >= wanted),
        false => ("most", has <= wanted),
    };
    Some(Verdict {
        demand: format!("at {bound} {factor:.2} x {named}"),
        is: ratio.map_or(is.clone(), |ratio| format!("{}x: {is}", number(ratio))),
        met,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Figures;

    #[test]
    fn a_goal_beside_another_server_is_judged_by_the_ratio() {
        let verdict = |goal: &Goal, name: &str, own: f64, other: f64| {
            let mut results = Results::default();
            for (kind, value) in [(PopupRaw, own), (WireguardGo, other)] {
                let mut figures = Figures::default();
                figures.add(name, value);
                results.add(kind, 1, figures);
            }
            judge(&results, goal, name).map(|verdict| (verdict.is, verdict.met))
        };
        let of = |text: &str, met: bool| Some((text.to_owned(), met));
        let [rate, cost] = [&GOALS[0], &GOALS[1]];
        assert_eq!(
            verdict(rate, "share-up-1", 0.9, 0.3),
            of("3.00x: 0.90 Gbit/s", true)
        );
        assert_eq!(
            verdict(rate, "share-up-1", 0.8, 0.3),
            of("2.67x: 0.80 Gbit/s", false)
        );
        let unit = "server CPU-s/GB";
        let cheap = of(&format!("0.25x: 2.00 {unit}"), true);
        assert_eq!(verdict(cost, "share-up-1-cpu", 2.0, 8.0), cheap);
        // What the other has none of, there must be none of.
        let loss = &GOALS[6];
        assert_eq!(verdict(loss, "udp-loss", 0.0, 0.0), of("0 %", true));
        assert_eq!(verdict(loss, "udp-loss", 0.1, 0.0), of("0.10 %", false));
        assert_eq!(
            verdict(loss, "udp-loss", 0.2, 0.8),
            of("0.25x: 0.20 %", true)
        );
    }

    #[test]
    fn every_goal_is_about_a_figure_of_the_table() {
        for goal in &GOALS {
            for name in goal.figures {
                assert_eq!(figure_named(name).name, *name);
            }
        }
    }
}
