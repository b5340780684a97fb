//! Which machine runs on which cores.

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The machines' cores, as lists that `taskset` reads.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    /// The server's, which runs nothing else.
    pub(crate) server: String,
    pub(crate) client: String,
    pub(crate) internet: String,
}

impl Cores {
    /// The first for the server; the client and the internet share what is left, or have one each
    /// when there are enough.
    pub(crate) fn of_this_machine() -> Result<Self> {
        // Not how many this process may use: the bench pins itself.
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
        let online = parse(online.trim())?;
        Ok(match online.as_slice() {
            [] | [_] => anyhow::bail!("the bench needs two cores or more"),
            [server, rest] => Self::new(server, rest.to_string(), rest),
            [server, client, internet] => Self::new(server, client.to_string(), internet),
            [server, client @ .., internet] => {
                let client: Vec<String> = client.iter().map(usize::to_string).collect();
                Self::new(server, client.join(","), internet)
            }
        })
    }

    fn new(server: &usize, client: String, internet: &usize) -> Self {
        Self {
            server: server.to_string(),
            client,
            internet: internet.to_string(),
        }
    }

    /// All machines on the same cores.
    pub(crate) fn all_on(list: &str) -> Self {
        Self {
            server: list.to_owned(),
            client: list.to_owned(),
            internet: list.to_owned(),
        }
    }

    /// How many the server has.
    pub(crate) fn server_count(&self) -> Result<usize> {
        Ok(parse(&self.server)?.len())
    }
}

/// The cores in a list such as `0,2-3`.
pub(crate) fn parse(list: &str) -> Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let wrong = || format!("{list:?} is no list of cores such as 0,2-3");
        let first: usize = first.trim().parse().with_context(wrong)?;
        let last: usize = last.trim().parse().with_context(wrong)?;
        cores.extend(first..=last);
    }
    Ok(cores)
}

/// Keeps a thread on `cores`.
pub(crate) fn pin(thread: u32, cores: &str) -> Result<()> {
    set(Pid::from_raw(thread.cast_signed()), cores)
}

/// Keeps the calling thread, and those it starts, on `cores`.
pub(crate) fn pin_self(cores: &str) -> Result<()> {
    set(None, cores)
}

fn set(thread: Option<Pid>, cores: &str) -> Result<()> {
    let mut set = CpuSet::new();
    for core in parse(cores)? {
        set.set(core);
    }
    sched_setaffinity(thread, &set).with_context(|| format!("cannot pin to {cores}"))
}
