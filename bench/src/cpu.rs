//! What the server has cost.
//!
//! Counted in nanoseconds that the scheduler gave to: the server's processes, the threads that
//! receive for its cards, and the server's cores' softirq threads. Interrupt work in between is
//! charged to whichever of these it interrupted, so nothing of the server's work is left out; the
//! busy time of its cores by `/proc/stat` is read as a check.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::lab::cores;

/// Reads the counters of one server.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    processes: Vec<u32>,
    /// Of its cards, and the softirq threads of its cores.
    kernel_threads: Vec<u32>,
    cores: Vec<usize>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    process: Duration,
    kernel: Duration,
    core_busy: Duration,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) elapsed: Duration,
    /// By its processes.
    pub(crate) process: Duration,
    /// By the threads of its cards.
    pub(crate) kernel: Duration,
    /// By everything on its cores.
    pub(crate) core_busy: Duration,
}

impl Used {
    /// All that the server has used, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        (self.process + self.kernel).as_secs_f64()
    }

    /// Of the time its one core had.
    pub(crate) fn share(&self) -> f64 {
        self.seconds() / self.elapsed.as_secs_f64()
    }
}

impl Meter {
    pub(crate) fn new(processes: &[u32], nics: &[u32], server_cores: &str) -> Result<Self> {
        let cores = cores::parse(server_cores)?;
        let mut kernel_threads = nics.to_vec();
        for core in &cores {
            kernel_threads.extend(softirq_thread(*core)?);
        }
        Ok(Self {
            processes: processes.to_vec(),
            kernel_threads,
            cores,
        })
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        let (mut process, mut kernel) = (Duration::ZERO, Duration::ZERO);
        for pid in &self.processes {
            process += run_time_of_process(*pid).context("the server has ended")?;
        }
        for pid in &self.kernel_threads {
            kernel += run_time(&format!("/proc/{pid}/schedstat"))?;
        }
        Ok(Reading {
            at: Instant::now(),
            process,
            kernel,
            core_busy: busy(&self.cores)?,
        })
    }

    pub(crate) fn since(&self, before: Reading) -> Result<Used> {
        let now = self.read()?;
        Ok(Used {
            elapsed: now.at - before.at,
            process: now.process.saturating_sub(before.process),
            kernel: now.kernel.saturating_sub(before.kernel),
            core_busy: now.core_busy.saturating_sub(before.core_busy),
        })
    }
}

/// Of all threads of a process.
pub(crate) fn run_time_of_process(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while the directory is read.
        sum += run_time(&format!("{}/schedstat", task?.path().display())).unwrap_or_default();
    }
    Ok(sum)
}

fn run_time(path: &str) -> Result<Duration> {
    let text = fs::read_to_string(path)?;
    let nanoseconds = text.split_whitespace().next().context("a schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn softirq_thread(core: usize) -> Result<Option<u32>> {
    let name = format!("ksoftirqd/{core}");
    process_named(|comm| comm == name)
}

/// The first process, or thread of the kernel, with such a name.
pub(crate) fn process_named(wanted: impl Fn(&str) -> bool) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if wanted(comm.trim_end()) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// user, nice, system, irq and softirq, in ticks of 10 ms (proc_stat(5)).
fn busy(cores: &[usize]) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let mut ticks = 0;
    for core in cores {
        let prefix = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&prefix));
        let columns: Vec<u64> = line
            .context("no such core")?
            .split_whitespace()
            .map_while(|column| column.parse().ok())
            .collect();
        ticks += [0, 1, 2, 5, 6]
            .iter()
            .filter_map(|index| columns.get(*index))
            .sum::<u64>();
    }
    Ok(Duration::from_millis(ticks * 10))
}
