//! Long TCP transfers.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cpu::{Meter, Used};
use crate::internet::{BULK, Internet, Request};
use crate::lab::Lab;

/// Seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
}

/// What a transfer came to.
#[derive(Debug)]
pub(crate) struct Transferred {
    /// That arrived, of each stream; of the whole when they go up.
    pub(crate) bytes: Vec<u64>,
    pub(crate) used: Used,
    /// By the client and the internet.
    pub(crate) used_by_ends: Used,
}

impl Transferred {
    pub(crate) fn gbit_per_second(&self) -> f64 {
        self.total() * 8.0 / 1e9 / self.used.elapsed.as_secs_f64()
    }

    pub(crate) fn cpu_seconds_per_gb(&self) -> f64 {
        self.used.seconds() / (self.total() / 1e9)
    }

    /// The part of the cost that is the receiving threads' of the server's cards.
    pub(crate) fn kernel_seconds_per_gb(&self) -> f64 {
        self.used.kernel.as_secs_f64() / (self.total() / 1e9)
    }

    fn total(&self) -> f64 {
        self.bytes.iter().sum::<u64>() as f64
    }
}

/// Streams that run.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: Vec<TcpStream>,
    counters: Vec<Arc<AtomicU64>>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    /// One stream from each source.
    pub(crate) fn start(
        lab: &Lab,
        request: Request,
        sources: Vec<Option<Ipv4Addr>>,
    ) -> Result<Self> {
        let congestion = lab.plan.congestion.clone();
        let streams = lab.client.enter(move || {
            let mut streams = Vec::new();
            for (index, source) in sources.iter().enumerate() {
                let mut stream = super::connect(&congestion, *source, index, BULK)
                    .with_context(|| format!("stream {index} does not connect"))?;
                stream.write_all(&request.to_bytes())?;
                streams.push(stream);
            }
            Ok(streams)
        })?;
        let ending = Arc::new(AtomicBool::new(false));
        let (mut counters, mut threads) = (Vec::new(), Vec::new());
        for stream in &streams {
            let (mut stream, counter) = (stream.try_clone()?, Arc::new(AtomicU64::new(0)));
            counters.push(Arc::clone(&counter));
            let ending = Arc::clone(&ending);
            threads.push(std::thread::spawn(move || match request {
                Request::Receive => {
                    let bytes = vec![0x5a; 128 << 10];
                    while !ending.load(Ordering::Relaxed) && stream.write_all(&bytes).is_ok() {}
                }
                _ => drop(crate::internet::receive(&stream, &counter)),
            }));
        }
        Ok(Self {
            streams,
            counters,
            ending,
            threads,
        })
    }

    /// Bytes received so far, of each stream.
    pub(crate) fn received(&self) -> Vec<u64> {
        let counters = self.counters.iter();
        counters
            .map(|counter| counter.load(Ordering::Relaxed))
            .collect()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for stream in &self.streams {
            stream.shutdown(Shutdown::Both).ok();
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Runs streams for `warm_up`, and then measures for `window`.
pub(crate) fn run(
    lab: &Lab,
    internet: &Internet,
    [meter, ends]: [&Meter; 2],
    direction: Direction,
    sources: Vec<Option<Ipv4Addr>>,
    [warm_up, window]: [Duration; 2],
) -> Result<Transferred> {
    let request = match direction {
        Direction::Down => Request::Send,
        Direction::Up => Request::Receive,
    };
    let streams = Streams::start(lab, request, sources)?;
    let received = || match direction {
        Direction::Down => Ok(streams.received()),
        Direction::Up => anyhow::Ok(vec![internet.arrived()?.0]),
    };
    std::thread::sleep(warm_up);
    let (before, reading, reading_ends) = (received()?, meter.read()?, ends.read()?);
    std::thread::sleep(window);
    let (after, used) = (received()?, meter.since(reading)?);
    let used_by_ends = ends.since(reading_ends)?;
    let bytes = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before);
    Ok(Transferred {
        bytes: bytes.collect(),
        used,
        used_by_ends,
    })
}
