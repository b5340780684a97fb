//! The control loop's end of the packet loops: what it asks of them, and what they report.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::Waker;
use popup_gateway_core::{DropCounters, FlowCounts, PeerReport, PeerSpec};
use popup_model::PublicKey;

/// How long a report may take.
const REPORT: Duration = Duration::from_secs(1);

/// What the control loop asks of the packet loops. Each is told the same, and serves its share.
#[derive(Clone)]
pub(crate) enum Input {
    /// Make these the peers.
    SetPeers(Vec<PeerSpec>),
    /// Add what was counted before a restart: received, sent.
    AddToCounters(Vec<(PublicKey, u64, u64)>),
    /// These are the host's own addresses, now.
    SetOwnAddresses(Vec<Ipv4Addr>),
    /// Report.
    Report(SyncSender<Snapshot>),
    /// End.
    Stop,
}

/// What is known at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    pub(crate) peers: Vec<PeerReport>,
    pub(crate) drops: DropCounters,
    pub(crate) flows: FlowCounts,
    /// Frames that arrived faster than they were read, since the start.
    pub(crate) lost_frames: u64,
}

impl Snapshot {
    /// Adds what another loop knows.
    fn add(&mut self, other: Self) {
        self.peers.extend(other.peers);
        self.drops.add(&other.drops);
        self.flows.tcp += other.flows.tcp;
        self.flows.udp += other.flows.udp;
        self.flows.icmp += other.flows.icmp;
        self.lost_frames += other.lost_frames;
    }
}

/// One loop, as others see it.
#[derive(Clone)]
pub(super) struct LoopEnd {
    pub(super) inputs: Sender<Input>,
    /// Of a loop that waits for sockets too; another waits for inputs alone.
    pub(super) waker: Option<Arc<Waker>>,
}

/// The control loop's end of all loops.
pub(crate) struct LoopHandle {
    ends: Vec<LoopEnd>,
    threads: Vec<JoinHandle<()>>,
}

/// The inputs of a loop that waits for nothing else.
pub(crate) struct Inputs(Receiver<Input>);

impl Inputs {
    /// The next input; `None` when nobody can send any more.
    pub(crate) fn wait(&self) -> Option<Input> {
        self.0.recv().ok()
    }
}

impl LoopHandle {
    pub(super) fn new(ends: Vec<LoopEnd>, threads: Vec<JoinHandle<()>>) -> Self {
        Self { ends, threads }
    }

    /// Runs a loop that waits for inputs alone on a thread of its own.
    pub(crate) fn spawn(name: &str, run: impl FnOnce(Inputs) + Send + 'static) -> io::Result<Self> {
        let (inputs, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(Inputs(receiver)))?;
        let waker = None;
        Ok(Self::new(vec![LoopEnd { inputs, waker }], vec![thread]))
    }

    /// Gives an input to every loop.
    pub(crate) fn send(&self, input: Input) {
        for end in &self.ends {
            // Both fail only when the loop has ended, which `is_alive` tells.
            let _ = end.inputs.send(input.clone());
            if let Some(waker) = &end.waker {
                let _ = waker.wake();
            }
        }
    }

    /// Asks for a report; `None` when a loop has ended or hangs.
    pub(crate) fn report(&self) -> Option<Snapshot> {
        let (reply, reports) = std::sync::mpsc::sync_channel(self.ends.len());
        self.send(Input::Report(reply));
        let mut sum: Option<Snapshot> = None;
        let deadline = Instant::now() + REPORT;
        for _ in &self.ends {
            let patience = deadline.saturating_duration_since(Instant::now());
            let report = reports.recv_timeout(patience).ok()?;
            match &mut sum {
                Some(sum) => sum.add(report),
                None => sum = Some(report),
            }
        }
        sum
    }

    /// Whether every loop runs.
    pub(crate) fn is_alive(&self) -> bool {
        !self.threads.is_empty() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Another way to ask for reports, for another thread.
    pub(crate) fn reporter(&self) -> Self {
        Self::new(self.ends.clone(), Vec::new())
    }

    /// Ends the loops and waits for them.
    pub(crate) fn stop(self) {
        self.send(Input::Stop);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}
