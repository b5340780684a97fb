//! The control loop: reads what the handler wants, reports what the gateway does, and ends the
//! process when its time has come.
//!
//! Invariant: the gateway runs only under its own lease. Another lease, the lease's end or a
//! signal ends it; an outage of the store does not, until the lease's end.

mod documents;
mod ending;
mod identity;
mod key_dir;
mod lease_clock;
mod report;
mod storage;
mod way_out;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use popup_gateway_core::{BoringInterface, Gateway, PeerSpec, Settings as CoreSettings};
use popup_model::{PrivateKey, ServerConfig};
use rand::TryRngCore as _;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep, timeout};

use crate::io::{self, Input, LoopHandle};
use crate::kernel_path;
use crate::settings::{Mode, Settings};
use crate::uapi;
use documents::Documents;
use ending::{Ending, Signals};
use lease_clock::LeaseClock;
use report::Reporter;
use storage::Storage;
pub(crate) use way_out::Prepared;

/// How often peers' expiry, quotas and the need to report are looked at.
const POLL: Duration = Duration::from_millis(500);

/// How often the host's own addresses are read again.
const ADDRESSES: Duration = Duration::from_secs(5);

/// How long the last report may take. The whole end must fit into 2 s.
const LAST_REPORT: Duration = Duration::from_secs(1);

/// How long to look for an extension of a lease that seems to be over.
const EXTENSION: Duration = Duration::from_secs(10);

/// Runs until there is a reason to end.
pub(crate) async fn run(settings: Settings, prepared: Prepared) -> anyhow::Result<()> {
    let mut signals = Signals::new();
    let lease = Arc::new(LeaseClock::new(settings.lease_expires_at));
    let opening = spawn_blocking(move || (Storage::open(&settings), settings));
    let (storage, settings) = tokio::select! {
        opened = opening => opened?,
        ending = signals.terminated() => {
            tracing::info!(reason = ending.name(), "the gateway ends before it has its documents");
            return Ok(());
        }
        () = async { sleep(EXTENSION).await; lease.over().await } => {
            tracing::warn!("the lease is over, and its documents cannot be opened");
            return Ok(());
        }
    };
    let Some(storage) = storage? else {
        tracing::warn!("another gateway runs in this region; this one ends");
        return Ok(());
    };
    let mut control = Control {
        documents: Documents::new(storage.documents.clone(), &settings),
        reporter: Reporter::new(storage.documents.clone(), &settings),
        storage,
        lease: lease.clone(),
        settings,
        prepared: Some(prepared),
        packets: None,
    };
    if lease.left().is_zero() {
        // A container that is started again after an extension has the first deadline in its
        // environment still.
        let ending = tokio::select! {
            looked = timeout(EXTENSION, control.follow_lease()) => looked.ok().flatten(),
            ending = signals.terminated() => Some(ending),
        };
        if let Some(ending) = ending {
            control.end(&ending).await;
            return Ok(());
        }
    }
    let ending = tokio::select! {
        ending = control.serve() => ending,
        () = lease.over() => Ending::LeaseOver,
        ending = signals.terminated() => ending,
    };
    control.end(&ending).await;
    Ok(())
}

struct Control {
    settings: Settings,
    storage: Storage,
    documents: Documents,
    reporter: Reporter,
    lease: Arc<LeaseClock>,
    /// Until the packet loop has it.
    prepared: Option<Prepared>,
    packets: Option<LoopHandle>,
}

impl Control {
    async fn serve(&mut self) -> Ending {
        let key = match self.documents.interface_key().await {
            Ok(key) => key,
            Err(error) => return Ending::BadConfiguration(error.to_string()),
        };
        let config = loop {
            if let Some(ending) = self.follow_lease().await {
                return ending;
            }
            if let Some(config) = self.documents.changed_config().await {
                break config;
            }
            sleep(POLL).await;
        };
        self.reporter.load_counters().await;
        self.reporter.public_key = Some(key.public_key());
        match self.start(&key, &config).await {
            Ok(packets) => self.packets = Some(packets),
            Err(error) => return Ending::BadConfiguration(format!("{error:#}")),
        }
        self.follow(config).await
    }

    /// Opens the sockets and starts the packet loop.
    async fn start(
        &mut self,
        key: &PrivateKey,
        config: &ServerConfig,
    ) -> anyhow::Result<LoopHandle> {
        if let Mode::Kernel(kernel) = &self.settings.mode {
            self.reporter.mode = (
                "kernel",
                "NET_ADMIN and WireGuard by wg-quick work here".to_owned(),
            );
            let peers = self.reporter.admitted(config, Timestamp::now());
            return kernel_path::start(kernel, &self.settings.interface, key, config, &peers);
        }
        let prepared = self.prepared.take().context("started twice")?;
        let way = way_out::open(prepared, &self.settings, &config.ports).await?;
        tracing::info!(mode = way.name, "packets leave: {}", way.reason);
        self.reporter.mode = (way.name, way.reason);
        let mut policy = self.settings.policy.clone();
        policy.set_own_addresses(io::own_ipv4_addresses()?);
        let interface = BoringInterface::new(key);
        let limits = way.limits.shared_by(way.shares.len());
        let mut parts = Vec::new();
        for share in way.shares {
            let mut seed = [0; 32];
            rand::rngs::OsRng.try_fill_bytes(&mut seed)?;
            let settings = CoreSettings {
                networks: config.networks,
                policy: policy.clone(),
                limits,
                peer_to_peer: self.settings.peer_to_peer,
                way_out: share.core,
                shard: share.shard,
                seed,
            };
            parts.push(io::LoopParts {
                gateway: Gateway::new(interface.clone(), settings),
                wireguard: share.wireguard,
                raw: share.raw,
            });
        }
        let packets = io::start(parts)?;
        if let Some(directory) = &self.settings.uapi_dir
            && let Err(error) = uapi::start(
                directory,
                &self.settings.interface,
                config.ports[0],
                packets.reporter(),
            )
        {
            tracing::warn!("no UAPI socket: {error}");
        }
        Ok(packets)
    }

    /// Follows the documents, and reports.
    async fn follow(&mut self, mut config: ServerConfig) -> Ending {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut applied: Vec<PeerSpec> = Vec::new();
        let mut addresses_at = Instant::now();
        let mut counters_loaded = false;
        let mut look_at = Instant::now();
        loop {
            ticks.tick().await;
            if Instant::now() >= look_at {
                if let Some(ending) = self.follow_lease().await {
                    return ending;
                }
                if let Some(changed) = self.documents.changed_config().await {
                    if changed.networks != config.networks || changed.ports != config.ports {
                        tracing::warn!("networks and ports take effect at the next start");
                    }
                    config = changed;
                }
                look_at = Instant::now() + self.storage.until_next_look();
            }
            let Some(packets) = &self.packets else {
                continue;
            };
            let wanted = self.reporter.admitted(&config, Timestamp::now());
            if wanted != applied || !counters_loaded {
                if !applied.is_empty()
                    && let Some(snapshot) = packets.report()
                {
                    let forgets = !matches!(self.settings.mode, Mode::Kernel(_));
                    self.reporter
                        .keep_leaving(&applied, &wanted, &snapshot, forgets);
                }
                packets.send(Input::SetPeers(wanted.clone()));
                packets.send(Input::AddToCounters(self.reporter.take_counters(&wanted)));
                applied = wanted;
                counters_loaded = true;
            }
            if addresses_at.elapsed() >= ADDRESSES {
                addresses_at = Instant::now();
                refresh_addresses(packets);
            }
            match packets.report() {
                Some(snapshot) => self.reporter.report(&config, &snapshot).await,
                None if packets.is_alive() => tracing::warn!("the packet loop is slow to report"),
                None => panic!("the packet loop has ended"),
            }
        }
    }

    /// Obeys the lease document: extensions are taken over, another lease ends this gateway.
    async fn follow_lease(&mut self) -> Option<Ending> {
        let document = self.documents.changed_lease().await?;
        match document.lease {
            Some(lease) if lease.id == self.settings.lease_id => {
                self.lease.set(lease.expires_at);
                if let Some(access) = &document.access {
                    self.storage.renew(access);
                }
                None
            }
            _ => Some(Ending::Fenced),
        }
    }

    async fn end(mut self, ending: &Ending) {
        tracing::info!(
            reason = ending.name(),
            detail = ending.detail(),
            "the gateway ends"
        );
        let snapshot = self.packets.as_ref().and_then(LoopHandle::report);
        let packets = self.packets.take();
        // To take the kernel's data path down may take longer than the report may.
        let stopped = async {
            if let Some(packets) = packets {
                let _ = spawn_blocking(move || packets.stop()).await;
            }
        };
        let reported = async {
            // A fenced gateway no longer owns the status document: it belongs to the next lease.
            if matches!(ending, Ending::Fenced) {
                return;
            }
            let report = self.reporter.last_report(snapshot.as_ref(), ending);
            if timeout(LAST_REPORT, report).await.is_err() {
                tracing::warn!("the last status could not be written in time");
            }
        };
        tokio::join!(stopped, reported);
    }
}

fn refresh_addresses(packets: &LoopHandle) {
    match io::own_ipv4_addresses() {
        Ok(own) => packets.send(Input::SetOwnAddresses(own)),
        Err(error) => tracing::warn!("cannot read the host's addresses: {error}"),
    }
}

/// The IPv4 address among a peer's.
fn ipv4_of(peer: &popup_model::Peer) -> Ipv4Addr {
    match peer.addresses()[0] {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(_) => unreachable!("a valid configuration has the IPv4 address first"),
    }
}
