//! `popup-bench`: the same work through our gateway and through what a user would pick instead,
//! in one run.

mod burn;
mod cpu;
mod crowd;
mod internet;
mod lab;
mod limits;
mod load;
mod options;
mod report;
mod results;
mod rows;
mod scheduling;
mod servers;
mod setting;
mod soak;
mod tools;

use std::io::Write as _;

use anyhow::{Result, ensure};

use options::{Action, Options};
use results::{Figures, Results};
use rows::{Bench, Row};
use scheduling::{Awake, WithoutAutogroups};
use servers::Kind;
use tools::Tools;

fn main() -> Result<()> {
    let (action, options) = options::parse()?;
    match action {
        Action::Help => say(&help()),
        Action::Internet => internet::serve(&options.plan.congestion),
        Action::Burn(share) => burn::burn(share),
        Action::Report => report::publish(&Results::read(&options.results)?, &options),
        Action::Measure => measure_all(&options),
        Action::Soak(gigabytes) => {
            let _quiet = prepare(&options)?;
            soak::run(gigabytes, &options, &Tools::new(options.tools.clone()))
        }
    }
}

/// The whole run: round after round, in each row after row, and each row of one server after the
/// other, so that what drifts in the machine hits all alike.
fn measure_all(options: &Options) -> Result<()> {
    let _quiet = prepare(options)?;
    let tools = Tools::new(options.tools.clone());
    let mut results = if options.add {
        Results::read(&options.results)?
    } else {
        Results::default()
    };
    let setting = setting::describe(options, &tools)?;
    results.setting = match options.add {
        true => setting::with_added(std::mem::take(&mut results.setting), setting),
        false => setting,
    };
    for round in 1..=options.rounds {
        for row in &options.rows {
            for kind in in_turn(&options.servers, round) {
                if row.applies_to(kind) {
                    let figures = measure(kind, *row, round, options, &tools);
                    results.add(kind, round, figures);
                }
            }
            results.write(&options.results)?;
        }
    }
    report::publish(&results, options)
}

/// Another server begins each round.
fn in_turn(servers: &[Kind], round: u32) -> impl Iterator<Item = Kind> {
    let first = round as usize % servers.len().max(1);
    let (before, from) = servers.split_at(first);
    from.iter().chain(before).copied()
}

/// One row of a server that is started for it. One that fails is noted.
fn measure(kind: Kind, row: Row, round: u32, options: &Options, tools: &Tools) -> Figures {
    let mut figures = Figures::default();
    let measured = Bench::new(kind, row, options, tools)
        .and_then(|bench| bench.measure(row, options, &mut figures));
    for (name, value) in figures.iter() {
        progress(kind, round, &format!("{name} {value:.3}"));
    }
    if let Err(error) = measured {
        figures.note(&format!("{}: {error:#}", row.name()));
        progress(kind, round, &format!("{}: {error:#}", row.name()));
    }
    figures
}

fn prepare(options: &Options) -> Result<(WithoutAutogroups, Awake)> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the bench makes network namespaces and so needs root: run `sudo make bench`"
    );
    lab::sweep()?;
    limits::raise_files()?;
    rustix::process::setpriority_process(None, options.nice)?;
    Ok((WithoutAutogroups::new()?, Awake::new()))
}

fn help() -> String {
    format!(
        "{}{}\nservers: {}",
        options::USAGE,
        Row::ALL.map(Row::name).join(", "),
        Kind::ALL.map(Kind::name).join(", ")
    )
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// For whoever watches.
fn progress(kind: Kind, round: u32, text: &str) {
    writeln!(std::io::stderr(), "{round} {} {text}", kind.name()).ok();
}
