//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::lab::{Cores, Path, Plan};
use crate::rows::Row;
use crate::servers::Kind;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Measure, and write the results.
    Measure,
    /// Only write the document again, from results that are there.
    Report,
    /// Carry this many GB through our gateway and check every byte.
    Soak(u64),
    /// Play the internet; the bench starts itself so.
    Internet,
    /// Take a core, but for this share; the bench starts itself so.
    Burn(f64),
    /// Say what can be asked for.
    Help,
}

/// How it is to be done.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) plan: Plan,
    pub(crate) rounds: u32,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// Of the server's core, for the rows with a slowed one.
    pub(crate) share: f64,
    pub(crate) servers: Vec<Kind>,
    pub(crate) rows: Vec<Row>,
    /// Of everything that is measured; below 0 when others work on the machine.
    pub(crate) nice: i32,
    pub(crate) flows: usize,
    pub(crate) peers: usize,
    /// Directories with the programs.
    pub(crate) tools: Vec<PathBuf>,
    pub(crate) results: PathBuf,
    pub(crate) document: Option<PathBuf>,
    /// Whether figures are added to those that are there.
    pub(crate) add: bool,
}

/// For people.
pub(crate) const USAGE: &str = "\
popup-bench [OPTIONS]          measure every server, print a table, write the results
popup-bench report [OPTIONS]   write the table and the document from results that are there
popup-bench soak GB [OPTIONS]  carry GB through our gateway and check every byte

  --rounds N        rounds; a figure is their median (5)
  --quick           one round of short rows
  --window SECONDS  how long a transfer is measured (4)
  --only A,B        only these rows or servers
  --add             add to the results that are there
  --share PERCENT   of the server's core in the rows with a slowed one (20)
  --nice N          priority of all that is measured, when others use the machine (0)
  --flows N         concurrent flows (10000)
  --peers N         peers in the fairness row (32)
  --path PATH       card (TSO, no USO), or card-uso (with USO)
  --congestion NAME of the kernels' TCP at both ends (cubic)
  --server-cores, --client-cores, --internet-cores LIST
  --tools DIR       where the programs are; can be repeated
  --results FILE    (target/bench/results.json)
  --document FILE   write this document, such as docs/BENCHMARKS.md

rows:    ";

/// Reads the command line.
pub(crate) fn parse() -> Result<(Action, Options)> {
    use lexopt::prelude::{Long, Short, Value, ValueExt as _};

    let mut options = Options {
        plan: Plan {
            cores: Cores::of_this_machine()?,
            path: Path::Card,
            congestion: "cubic".to_owned(),
        },
        rounds: 5,
        warm_up: Duration::from_secs(1),
        window: Duration::from_secs(4),
        share: 0.2,
        servers: Kind::ALL.into(),
        rows: Row::ALL.into(),
        nice: 0,
        flows: 10_000,
        peers: 32,
        tools: Vec::new(),
        results: "target/bench/results.json".into(),
        document: None,
        add: false,
    };
    let mut action = Action::Measure;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => {
                action = match word.string()?.as_str() {
                    "report" => Action::Report,
                    "soak" => Action::Soak(parser.value()?.parse()?),
                    "internet" => Action::Internet,
                    "burn" => Action::Burn(parser.value()?.parse()?),
                    other => bail!("{other}: no such command\n\n{USAGE}"),
                };
            }
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("quick") => {
                options.rounds = 1;
                options.window = Duration::from_secs(2);
            }
            Long("window") => {
                options.window = Duration::from_secs_f64(parser.value()?.parse()?);
            }
            Long("only") => only(&mut options, &parser.value()?.string()?)?,
            Long("add") => options.add = true,
            Long("share") => options.share = parser.value()?.parse::<f64>()? / 100.0,
            Long("nice") => options.nice = parser.value()?.parse()?,
            Long("flows") => options.flows = parser.value()?.parse()?,
            Long("peers") => options.peers = parser.value()?.parse()?,
            Long("path") => options.plan.path = parser.value()?.parse()?,
            Long("congestion") => options.plan.congestion = parser.value()?.string()?,
            Long("server-cores") => options.plan.cores.server = parser.value()?.string()?,
            Long("client-cores") => options.plan.cores.client = parser.value()?.string()?,
            Long("internet-cores") => options.plan.cores.internet = parser.value()?.string()?,
            Long("tools") => options.tools.push(parser.value()?.into()),
            Long("results") => options.results = parser.value()?.into(),
            Long("document") => options.document = Some(parser.value()?.into()),
            Long("help") | Short('h') => action = Action::Help,
            other => bail!("{}\n\n{USAGE}", other.unexpected()),
        }
    }
    Ok((action, options))
}

/// Names of rows narrow the rows, names of servers the servers.
fn only(options: &mut Options, names: &str) -> Result<()> {
    let (mut rows, mut servers) = (Vec::new(), Vec::new());
    for name in names.split(',') {
        match (name.parse::<Row>(), name.parse::<Kind>()) {
            (Ok(row), _) => rows.push(row),
            (_, Ok(server)) => servers.push(server),
            (Err(rows), Err(servers)) => bail!("{name}: {rows}; {servers}"),
        }
    }
    if !rows.is_empty() {
        options.rows.retain(|row| rows.contains(row));
    }
    if !servers.is_empty() {
        options.servers.retain(|server| servers.contains(server));
    }
    Ok(())
}
