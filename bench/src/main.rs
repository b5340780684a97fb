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
use scheduling::WithoutAutogroups;
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
            let _without_autogroups = prepare(&options)?;
            soak::run(gigabytes, &options, &Tools::new(options.tools.clone()))
        }
    }
}

/// The whole run: round after round, and in each round server after server, so that what drifts
/// in the machine hits all alike.
fn measure_all(options: &Options) -> Result<()> {
    let _without_autogroups = prepare(options)?;
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
        for kind in &options.servers {
            let figures = measure_server(*kind, round, options, &tools);
            results.add(*kind, round, figures);
            results.write(&options.results)?;
        }
    }
    report::publish(&results, options)
}

/// All rows of one server. A row that fails is noted, and the next begins with a new server.
fn measure_server(kind: Kind, round: u32, options: &Options, tools: &Tools) -> Figures {
    let mut figures = Figures::default();
    let mut bench: Option<(Row, Bench)> = None;
    for row in options.rows.iter().filter(|row| row.applies_to(kind)) {
        let fits = |other: Row| {
            row.impairment().is_none() == other.impairment().is_none()
                && !row.has_crowd()
                && !other.has_crowd()
                && row.impairment().is_none()
        };
        if !bench.as_ref().is_some_and(|(made_for, _)| fits(*made_for)) {
            // The old one's devices must be gone before the new one's are named the same.
            drop(bench.take());
            match Bench::new(kind, *row, options, tools) {
                Ok(made) => bench = Some((*row, made)),
                Err(error) => {
                    figures.note(&format!("{}: {error:#}", row.name()));
                    progress(kind, round, &format!("{}: {error:#}", row.name()));
                    continue;
                }
            }
        }
        let Some((_, ready)) = &bench else { continue };
        let seen = figures.iter().count();
        if let Err(error) = ready.measure(*row, options, &mut figures) {
            figures.note(&format!("{}: {error:#}", row.name()));
            progress(kind, round, &format!("{}: {error:#}", row.name()));
            bench = None;
        }
        for (name, value) in figures.iter().skip(seen) {
            progress(kind, round, &format!("{name} {value:.3}"));
        }
    }
    figures
}

fn prepare(options: &Options) -> Result<WithoutAutogroups> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the bench makes network namespaces and so needs root: run `sudo make bench`"
    );
    lab::sweep()?;
    limits::raise_files()?;
    rustix::process::setpriority_process(None, options.nice)?;
    WithoutAutogroups::new()
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
