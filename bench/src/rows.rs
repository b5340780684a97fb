//! What is measured, one function for each kind of row.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::burn::Brake;
use crate::cpu::Meter;
use crate::internet::{Internet, Request};
use crate::lab::{Cores, Impairment, Lab};
use crate::load::bulk::{self, Direction, Streams};
use crate::load::{flows, http, latency, udp};
use crate::options::Options;
use crate::results::Figures;
use crate::servers::{Client, Kind, Memory, Peer, Server, drops, peers};
use crate::tools::Tools;

/// A kind of row. Some give more than one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// A server with nothing to do.
    Idle,
    /// Round trips, alone and beside 200 Mbit/s.
    Latency,
    /// TCP as fast as it goes.
    Tcp,
    /// TCP with a slowed server.
    Share,
    /// UDP at 500 Mbit/s.
    Udp,
    /// New connections.
    Http,
    /// Concurrent flows.
    Flows,
    /// TCP over 40 ms.
    Far,
    /// TCP over 40 ms with loss.
    Lossy,
    /// Many peers at once.
    Fair,
    /// Everything on one core.
    OneCore,
    /// Everything on two cores.
    TwoCores,
}

impl Row {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 12] = [
        Self::Idle,
        Self::Latency,
        Self::Tcp,
        Self::Share,
        Self::Udp,
        Self::Http,
        Self::Flows,
        Self::Far,
        Self::Lossy,
        Self::Fair,
        Self::OneCore,
        Self::TwoCores,
    ];

    /// As in options.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Latency => "latency",
            Self::Tcp => "tcp",
            Self::Share => "share",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Flows => "flows",
            Self::Far => "far",
            Self::Lossy => "lossy",
            Self::Fair => "fair",
            Self::OneCore => "one-core",
            Self::TwoCores => "two-cores",
        }
    }

    /// What the row does to the client's cable.
    pub(crate) fn impairment(self) -> Option<Impairment> {
        let losses_in_100_000 = match self {
            Self::Far => 0,
            Self::Lossy => 500,
            _ => return None,
        };
        Some(Impairment {
            round_trip: Duration::from_millis(40),
            losses_in_100_000,
        })
    }

    /// Whether the client is a crowd and not wireguard-go.
    pub(crate) fn has_crowd(self) -> bool {
        matches!(self, Self::Fair | Self::OneCore | Self::TwoCores)
    }

    /// How many peers the crowd has.
    fn peers(self, options: &Options) -> usize {
        match self {
            Self::OneCore | Self::TwoCores => SCALING_PEERS,
            _ => options.peers,
        }
    }

    /// Where everything runs, if not where the options say. With the client on the server's cores,
    /// and as parallel as they are, whatever the server gains from the second core is seen; two
    /// machines of two cores would have to be told apart otherwise.
    fn cores(self) -> Option<Cores> {
        match self {
            Self::OneCore => Some(Cores::all_on("0")),
            Self::TwoCores => Some(Cores::all_on("0,1")),
            _ => None,
        }
    }

    /// Whether the row says something about this server.
    pub(crate) fn applies_to(self, kind: Kind) -> bool {
        match self {
            Self::Idle => kind.is_vpn(),
            Self::Fair | Self::OneCore | Self::TwoCores => kind.peers() > 1,
            _ => true,
        }
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|row| row.name() == text)
            .ok_or_else(|| format!("rows are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A server with its client and the internet, ready for rows. Ends in the order of its fields.
#[derive(Debug)]
pub(crate) struct Bench {
    crowd: Option<crate::crowd::Crowd>,
    _client: Option<Client>,
    pub(crate) server: Server,
    pub(crate) internet: Internet,
    pub(crate) meter: Meter,
    /// Of the client and the internet, this process among them.
    pub(crate) ends: Meter,
    pub(crate) lab: Lab,
}

impl Bench {
    /// Sets everything up for rows like `row`.
    pub(crate) fn new(kind: Kind, row: Row, options: &Options, tools: &Tools) -> Result<Self> {
        let mut plan = options.plan.clone();
        if let Some(cores) = row.cores() {
            plan.cores = cores;
        }
        crate::lab::cores::pin_self(&plan.cores.client)?;
        let lab = Lab::new(&plan, row.impairment())?;
        let internet = Internet::start(&lab)?;
        let peers = peers(if row.has_crowd() {
            row.peers(options).min(kind.peers())
        } else {
            1
        });
        let server = Server::start(kind, &lab, tools, &peers)?;
        let meter = Meter::new(&server.pids, &lab.server_nics, &plan.cores.server)?;
        let mut others = vec![std::process::id(), internet.pid()?];
        let (mut client, mut crowd) = (None, None);
        match server.public_key {
            None => {
                let via = crate::lab::SERVER;
                lab.client
                    .shell(&format!("ip route add 203.0.113.0/24 via {via}"))?;
            }
            Some(key) if row.has_crowd() => {
                crowd = Some(crate::crowd::Crowd::start(&lab, &peers, key)?);
            }
            Some(key) => {
                client = Some(Client::start(&lab, tools, &peers[0], key)?);
                others.extend(lab.client.processes("wireguard-go")?);
            }
        }
        let ends = Meter::new(&others, &lab.neighbour_nics, &plan.cores.client)?;
        let bench = Self {
            crowd,
            _client: client,
            server,
            internet,
            meter,
            ends,
            lab,
        };
        latency::tcp(&bench.lab, Duration::from_millis(24)).context("nothing gets through")?;
        Ok(bench)
    }

    /// Measures one row.
    pub(crate) fn measure(&self, row: Row, options: &Options, figures: &mut Figures) -> Result<()> {
        match row {
            Row::Idle => self.idle(options, figures),
            Row::Latency => self.latency(options, figures),
            Row::Tcp => self.tcp(options, figures),
            Row::Share => self.share(options, figures),
            Row::Udp => self.udp(options, figures),
            Row::Http => self.http(options, figures),
            Row::Flows => self.flows(options, figures),
            Row::Far => self.far(options, figures, "far"),
            Row::Lossy => self.far(options, figures, "lossy"),
            Row::Fair => self.fair(options, figures),
            Row::OneCore => self.crowded(options, figures, "one-core"),
            Row::TwoCores => self.crowded(options, figures, "two-cores"),
        }
    }

    fn idle(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        std::thread::sleep(Duration::from_secs(1));
        let reading = self.meter.read()?;
        std::thread::sleep(options.window * 2);
        let used = self.meter.since(reading)?;
        let percent = used.process.as_secs_f64() * 100.0 / used.elapsed.as_secs_f64();
        figures.add("idle-cpu", percent);
        figures.add("idle-rss", mebibytes(self.server.memory(Memory::Now)?));
        Ok(())
    }

    fn latency(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        let window = options.window * 2;
        let mut both = |state: &str| -> Result<()> {
            let times = [
                ("udp", latency::udp(&self.lab, window)?),
                ("tcp", latency::tcp(&self.lab, window)?),
            ];
            for (protocol, times) in times {
                figures.add(&format!("{protocol}-{state}-p50"), times.percentile(50));
                figures.add(&format!("{protocol}-{state}-p99"), times.percentile(99));
                if times.lost > 0 {
                    let lost = times.lost;
                    figures.note(&format!("latency, {protocol} {state}: {lost} unanswered"));
                }
            }
            Ok(())
        };
        both("idle")?;
        let load = Streams::start(&self.lab, Request::SendPaced(25_000_000), vec![None])?;
        std::thread::sleep(Duration::from_millis(500));
        let before = load.received()[0];
        let begun = std::time::Instant::now();
        both("loaded")?;
        let bits = (load.received()[0] - before) as f64 * 8.0;
        figures.add("loaded-mbit", bits / 1e6 / begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn tcp(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        for (direction, streams) in TRANSFERS {
            let name = transfer_name("tcp", direction, streams);
            let done = self.transfer(direction, streams, options)?;
            figures.add(&name, done.gbit_per_second());
            figures.add(&format!("{name}-cpu"), done.cpu_seconds_per_gb());
            figures.add(&format!("{name}-nic"), done.kernel_seconds_per_gb());
            figures.add(&format!("{name}-core"), done.used.share() * 100.0);
            figures.add(&format!("{name}-ends"), done.used_by_ends.share() * 100.0);
            let (busy, ours) = (done.used.core_busy.as_secs_f64(), done.used.seconds());
            if busy > ours * 1.15 + 0.1 {
                figures.note(&format!(
                    "{name}: the server's core was busy for {busy:.2} s, the server for {ours:.2} s: somebody else was there"
                ));
            }
        }
        Ok(())
    }

    fn share(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        let brake = Brake::new(&options.plan.cores.server, options.share)?;
        for (direction, streams) in TRANSFERS {
            let name = transfer_name("share", direction, streams);
            let burnt = brake.burnt()?;
            let begun = std::time::Instant::now();
            let done = self.transfer(direction, streams, options)?;
            let burnt = (brake.burnt()? - burnt).as_secs_f64() / begun.elapsed().as_secs_f64();
            let cores = options.plan.cores.server_count()? as f64;
            figures.add(&name, done.gbit_per_second());
            figures.add(&format!("{name}-cpu"), done.cpu_seconds_per_gb());
            let left = cores - burnt;
            figures.add(&format!("{name}-core"), done.used.share() * 100.0 / left);
        }
        Ok(())
    }

    fn transfer(
        &self,
        direction: Direction,
        streams: usize,
        options: &Options,
    ) -> Result<bulk::Transferred> {
        bulk::run(
            &self.lab,
            &self.internet,
            [&self.meter, &self.ends],
            direction,
            vec![None; streams],
            [options.warm_up, options.window],
        )
    }

    fn udp(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        let done = udp::run(&self.lab, &self.internet, &self.meter, 500, options.window)?;
        figures.add("udp-loss", done.loss_percent());
        figures.add("udp-offered", done.offered_mbit());
        figures.add("udp-core", done.used.share() * 100.0);
        Ok(())
    }

    fn http(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        http::run(&self.lab, 64, options.warm_up)?;
        let reading = self.meter.read()?;
        let done = http::run(&self.lab, 64, options.window)?;
        let used = self.meter.since(reading)?;
        ensure!(done.complete > 0, "not one connection succeeded");
        figures.add("http-rate", done.per_second());
        figures.add("http-failed", done.failed as f64);
        let microseconds = used.seconds() * 1e6 / done.complete as f64;
        figures.add("http-cpu", microseconds);
        figures.add("http-core", used.share() * 100.0);
        if done.failed > 0 {
            self.explain("http", figures);
        }
        if self.server.kind.is_vpn() {
            figures.add("http-rss", mebibytes(self.server.memory(Memory::Peak)?));
        }
        let brake = Brake::new(&options.plan.cores.server, options.share)?;
        http::run(&self.lab, 64, options.warm_up)?;
        let done = http::run(&self.lab, 64, options.window)?;
        drop(brake);
        figures.add("http-slow-rate", done.per_second());
        figures.add("http-slow-failed", done.failed as f64);
        Ok(())
    }

    fn flows(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        let done = flows::open(&self.lab, options.flows, 500)?;
        std::thread::sleep(Duration::from_secs(1));
        figures.add("flows-failed", done.failed as f64);
        figures.add("flows-seconds", done.elapsed.as_secs_f64());
        if self.server.kind.is_vpn() {
            figures.add("flows-rss", mebibytes(self.server.memory(Memory::Now)?));
        }
        let failed = done.failed;
        drop(done.open);
        if failed > 0 {
            self.explain("flows", figures);
        }
        Ok(())
    }

    /// Notes why connections have failed. The gateway reports every few seconds.
    fn explain(&self, row: &str, figures: &mut Figures) {
        std::thread::sleep(Duration::from_secs(6));
        if let Some(drops) = drops(self.server.kind, &self.lab) {
            figures.note(&format!("{row}: {drops}"));
        }
    }

    fn far(&self, options: &Options, figures: &mut Figures, name: &str) -> Result<()> {
        debug_assert!(self.lab.has_relay());
        // Slow start over 40 ms, and then more than a few recoveries.
        let times = [options.warm_up * 3, options.window * 2];
        for direction in [Direction::Down, Direction::Up] {
            let none = vec![None];
            let (lab, internet, meters) = (&self.lab, &self.internet, [&self.meter, &self.ends]);
            let done = bulk::run(lab, internet, meters, direction, none, times)?;
            let way = direction_name(direction);
            figures.add(&format!("{name}-{way}"), done.gbit_per_second() * 1000.0);
        }
        let lost = self.lab.lost_by_relay();
        if lost > 0 {
            figures.note(&format!("{name}: the relay was too slow for {lost} frames"));
        }
        Ok(())
    }

    /// A download of every peer, as fast as it goes.
    fn crowded(&self, options: &Options, figures: &mut Figures, name: &str) -> Result<()> {
        let crowd = self.crowd.as_ref().context("a crowd")?;
        let sources = crowd.addresses().map(Some).collect();
        let times = [options.warm_up, options.window];
        let (lab, internet, down) = (&self.lab, &self.internet, Direction::Down);
        let done = bulk::run(
            lab,
            internet,
            [&self.meter, &self.ends],
            down,
            sources,
            times,
        )?;
        figures.add(&format!("{name}-mbit"), done.gbit_per_second() * 1000.0);
        Ok(())
    }

    fn fair(&self, options: &Options, figures: &mut Figures) -> Result<()> {
        let crowd = self.crowd.as_ref().context("a crowd")?;
        let brake = Brake::new(&options.plan.cores.server, options.share)?;
        let sources = crowd.addresses().map(Some).collect();
        let times = [options.warm_up * 2, options.window * 2];
        let (lab, internet, down) = (&self.lab, &self.internet, Direction::Down);
        let meters = [&self.meter, &self.ends];
        let done = bulk::run(lab, internet, meters, down, sources, times)?;
        drop(brake);
        let mean = done.bytes.iter().sum::<u64>() as f64 / done.bytes.len() as f64;
        let [min, max] = [done.bytes.iter().min(), done.bytes.iter().max()]
            .map(|bytes| bytes.copied().unwrap_or(0) as f64);
        figures.add("fair-mbit", done.gbit_per_second() * 1000.0);
        figures.add("fair-min", min * 100.0 / mean);
        figures.add("fair-max", max * 100.0 / mean);
        figures.add("fair-core", done.used.share() * 100.0 / options.share);
        Ok(())
    }
}

/// Peers in the rows that compare one core with two.
const SCALING_PEERS: usize = 8;

const TRANSFERS: [(Direction, usize); 4] = [
    (Direction::Down, 1),
    (Direction::Up, 1),
    (Direction::Down, 8),
    (Direction::Up, 8),
];

fn transfer_name(row: &str, direction: Direction, streams: usize) -> String {
    format!("{row}-{}-{streams}", direction_name(direction))
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Down => "down",
        Direction::Up => "up",
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The peers' addresses, for whoever needs only them.
pub(crate) fn addresses(peers: &[Peer]) -> Vec<std::net::Ipv4Addr> {
    peers.iter().map(|peer| peer.address).collect()
}
