//! The status document, and what is carried over from the one before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use popup_gateway_core::{FlowCounts, PeerReport, PeerSpec};
use popup_model::document::{End, Extra, SCHEMA};
use popup_model::{
    Control as _, LeaseId, PeerStatus, PublicKey, Region, ServerConfig, StatusDocument,
};
use popup_store::{Container, DocumentStore, Expect, StoreError, Version};

use super::ending::Ending;
use crate::io::Snapshot;
use crate::settings::Settings;

/// How often the status is written when nothing that matters changes.
const INTERVAL: Duration = Duration::from_secs(15);

/// Writes the status document.
#[derive(Debug)]
pub(super) struct Reporter {
    store: Arc<dyn DocumentStore>,
    name: String,
    region: Region,
    lease_id: LeaseId,
    /// How packets leave, and why so.
    pub(super) mode: (&'static str, String),
    boot_id: LeaseId,
    started_at: Timestamp,
    pub(super) public_key: Option<PublicKey>,
    version: Option<Version>,
    /// What peers had used, and when they were last heard, before this start or before they were
    /// last away.
    before: HashMap<PublicKey, PeerStatus>,
    active_before: Option<Timestamp>,
    /// What the data path is to go on counting from: received, sent.
    not_yet_added: HashMap<PublicKey, (u64, u64)>,
    used: HashMap<PublicKey, u64>,
    written: Option<(Instant, Vec<Landmark>, u64)>,
    complained: bool,
}

/// The core's counters, and what never reached the core.
fn drops(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let mut drops = snapshot.drops.by_name();
    if snapshot.lost_frames > 0 {
        drops.insert("lost_frames".to_owned(), snapshot.lost_frames);
    }
    drops
}

/// When by the clock, which says `now`, something happened that a snapshot reports.
fn wall_clock(snapshot: &Snapshot, now: Timestamp) -> impl Fn(Instant) -> Timestamp + use<> {
    let taken = snapshot.at;
    move |at| {
        let ago = taken.saturating_duration_since(at);
        now - SignedDuration::try_from(ago).unwrap_or(SignedDuration::ZERO)
    }
}

/// What in a peer's report is worth an immediate write.
type Landmark = (PublicKey, Option<std::net::SocketAddr>, Option<Instant>);

impl Reporter {
    pub(super) fn new(store: Arc<dyn DocumentStore>, settings: &Settings) -> Self {
        Self {
            store,
            name: format!("{}.status.json", settings.region),
            region: settings.region.clone(),
            lease_id: settings.lease_id.clone(),
            mode: ("none", "the gateway has not come so far".to_owned()),
            boot_id: LeaseId::generate(),
            started_at: Timestamp::now(),
            public_key: None,
            version: None,
            before: HashMap::new(),
            active_before: None,
            not_yet_added: HashMap::new(),
            used: HashMap::new(),
            written: None,
            complained: false,
        }
    }

    /// Reads what the last gateway of this region has counted.
    pub(super) async fn load_counters(&mut self) {
        let stored = match self.store.read(Container::Status, &self.name).await {
            Ok(stored) => stored,
            Err(error) => return tracing::warn!("counters begin at zero: {error}"),
        };
        let Some(stored) = stored else { return };
        self.version = Some(stored.version);
        match StatusDocument::from_json(&stored.bytes) {
            Ok(status) => {
                self.not_yet_added = status
                    .peers
                    .iter()
                    .map(|peer| (peer.public_key, (peer.rx_bytes, peer.tx_bytes)))
                    .collect();
                self.used = status
                    .peers
                    .iter()
                    .map(|peer| (peer.public_key, peer.rx_bytes + peer.tx_bytes))
                    .collect();
                self.before = status
                    .peers
                    .into_iter()
                    .map(|peer| (peer.public_key, peer))
                    .collect();
                if status.lease_id == self.lease_id {
                    self.active_before = status.active_at;
                }
            }
            Err(error) => tracing::warn!("counters begin at zero: {error}"),
        }
    }

    /// Counters of these peers that the packet loop has not been told yet.
    pub(super) fn take_counters(&mut self, peers: &[PeerSpec]) -> Vec<(PublicKey, u64, u64)> {
        let take = |spec: &PeerSpec| {
            let (rx_bytes, tx_bytes) = self.not_yet_added.remove(&spec.public_key)?;
            Some((spec.public_key, rx_bytes, tx_bytes))
        };
        peers.iter().filter_map(take).collect()
    }

    /// Keeps what is known of peers that are about to go, or to begin anew because they are not
    /// what they were. `forgets`: the data path does not count on by itself when they come back.
    pub(super) fn keep_leaving(
        &mut self,
        applied: &[PeerSpec],
        wanted: &[PeerSpec],
        snapshot: &Snapshot,
        forgets: bool,
    ) {
        let wanted: HashMap<PublicKey, &PeerSpec> =
            wanted.iter().map(|spec| (spec.public_key, spec)).collect();
        let leaving: HashSet<PublicKey> = applied
            .iter()
            .filter(|spec| wanted.get(&spec.public_key) != Some(spec))
            .map(|spec| spec.public_key)
            .collect();
        let wall = wall_clock(snapshot, Timestamp::now());
        self.note_used(snapshot);
        for peer in &snapshot.peers {
            if !leaving.contains(&peer.public_key) {
                continue;
            }
            self.active_before = self.active_before.max(peer.active_at.map(&wall));
            let status = self.status_of(peer, &wall);
            if forgets {
                let counted = (status.rx_bytes, status.tx_bytes);
                self.not_yet_added.insert(peer.public_key, counted);
            }
            self.before.insert(peer.public_key, status);
        }
    }

    /// What counts against quotas only grows.
    fn note_used(&mut self, snapshot: &Snapshot) {
        for peer in &snapshot.peers {
            let used = self.used.entry(peer.public_key).or_default();
            *used = (*used).max(peer.rx_bytes + peer.tx_bytes);
        }
    }

    /// The peers who may connect now: not expired, and within their quota.
    pub(super) fn admitted(&self, config: &ServerConfig, now: Timestamp) -> Vec<PeerSpec> {
        config
            .peers
            .iter()
            .filter(|peer| peer.expires_at.is_none_or(|at| now < at))
            .filter(|peer| {
                let used = self.used.get(&peer.public_key).copied().unwrap_or(0);
                peer.quota_bytes.is_none_or(|quota| used < quota)
            })
            .map(|peer| PeerSpec {
                public_key: peer.public_key,
                preshared_key: peer.preshared_key.clone(),
                ipv4: super::ipv4_of(peer),
                ipv6: match peer.addresses()[1] {
                    std::net::IpAddr::V6(address) => address,
                    std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
                },
                mtu: peer.client.mtu,
            })
            .collect()
    }

    /// Writes the status if it is due, or if something that matters has changed.
    pub(super) async fn report(&mut self, config: &ServerConfig, snapshot: &Snapshot) {
        self.note_used(snapshot);
        let landmarks: Vec<Landmark> = snapshot
            .peers
            .iter()
            .map(|peer| (peer.public_key, peer.endpoint, peer.latest_handshake))
            .collect();
        let due = self.written.as_ref().is_none_or(|(at, last, revision)| {
            at.elapsed() >= INTERVAL || *last != landmarks || *revision != config.revision
        });
        if !due {
            return;
        }
        let document = self.document(config.revision, Some(snapshot), None);
        if self.write(&document).await {
            self.written = Some((Instant::now(), landmarks, config.revision));
        }
    }

    /// Writes that the gateway ends, and why.
    pub(super) async fn last_report(&mut self, snapshot: Option<&Snapshot>, ending: &Ending) {
        let end = End {
            at: Timestamp::now(),
            reason: ending.name().to_owned(),
            detail: ending.detail().map(str::to_owned),
        };
        let revision = self
            .written
            .as_ref()
            .map_or(0, |(_, _, revision)| *revision);
        let document = self.document(revision, snapshot, Some(end));
        if !self.write(&document).await {
            // The end may have come in the middle of a write that has succeeded.
            self.write(&document).await;
        }
    }

    fn document(
        &self,
        revision: u64,
        snapshot: Option<&Snapshot>,
        ended: Option<End>,
    ) -> StatusDocument {
        let now = Timestamp::now();
        let active = snapshot.and_then(|snapshot| {
            let times = snapshot.peers.iter().filter_map(|peer| peer.active_at);
            times.max().map(wall_clock(snapshot, now))
        });
        let FlowCounts { tcp, udp, icmp } =
            snapshot.map(|snapshot| snapshot.flows).unwrap_or_default();
        let flows = [("tcp", tcp), ("udp", udp), ("icmp", icmp)];
        StatusDocument {
            schema: SCHEMA,
            region: self.region.clone(),
            lease_id: self.lease_id.clone(),
            boot_id: self.boot_id.clone(),
            started_at: self.started_at,
            updated_at: now,
            public_key: self.public_key,
            mode: self.mode.0.to_owned(),
            mode_reason: self.mode.1.clone(),
            ready: snapshot.is_some() && ended.is_none(),
            config_revision: revision,
            active_at: active.max(self.active_before),
            peers: self.peers(snapshot, now),
            drops: snapshot.map(drops).unwrap_or_default(),
            flows: flows
                .map(|(kind, count)| (kind.to_owned(), count as u64))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ended,
            extra: Extra::new(),
        }
    }

    /// Every peer of the loop, and those that are not connected, so that their counters survive.
    fn peers(&self, snapshot: Option<&Snapshot>, now: Timestamp) -> Vec<PeerStatus> {
        let live: Vec<PeerStatus> = snapshot.map_or_else(Vec::new, |snapshot| {
            let wall = wall_clock(snapshot, now);
            let reports = snapshot.peers.iter();
            reports.map(|peer| self.status_of(peer, &wall)).collect()
        });
        let known: HashSet<PublicKey> = live.iter().map(|peer| peer.public_key).collect();
        let gone = self
            .before
            .values()
            .filter(|peer| !known.contains(&peer.public_key))
            .cloned();
        live.into_iter()
            .chain(gone)
            .take(popup_model::MAX_PEERS)
            .collect()
    }

    fn status_of(&self, peer: &PeerReport, wall: impl Fn(Instant) -> Timestamp) -> PeerStatus {
        let before = self.before.get(&peer.public_key);
        PeerStatus {
            public_key: peer.public_key,
            endpoint: peer.endpoint,
            latest_handshake: peer
                .latest_handshake
                .map(wall)
                .or_else(|| before.and_then(|before| before.latest_handshake)),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        }
    }

    fn is_of_a_successor(&self, bytes: &[u8]) -> bool {
        StatusDocument::from_json(bytes).is_ok_and(|status| {
            status.lease_id != self.lease_id && status.started_at > self.started_at
        })
    }

    /// Writes; true when it has worked.
    async fn write(&mut self, document: &StatusDocument) -> bool {
        let bytes = match document.to_json() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!("cannot write the status: {error}");
                return false;
            }
        };
        let expect = self.version.clone().map_or(Expect::Absent, Expect::Version);
        match self
            .store
            .write(Container::Status, &self.name, &bytes, &expect)
            .await
        {
            Ok(version) => {
                self.version = Some(version);
                self.complained = false;
                true
            }
            Err(StoreError::Conflict { .. }) => {
                // Only gateways write here: the version is older than our first look, or an
                // answer was lost, or the document was removed. Or this one has been succeeded
                // and does not know it yet; then it has nothing more to say.
                let stored = self.store.read(Container::Status, &self.name).await;
                let stored = stored.ok().flatten();
                let ours = stored.filter(|stored| !self.is_of_a_successor(&stored.bytes));
                self.version = ours.map(|stored| stored.version);
                false
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!("cannot write the status: {error}");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use popup_gateway_core::DropCounters;
    use popup_store::DirectoryStore;

    use super::*;
    use crate::kernel_path::tests::spec;

    fn reporter(directory: &std::path::Path) -> Reporter {
        let lookup = |name: &str| match name {
            "VPN_STATE_DIR" => Some(directory.display().to_string()),
            "LEASE_ID" => Some(LeaseId::generate().to_string()),
            "LEASE_EXPIRES_AT" => Some("2026-01-02T03:04:05Z".to_owned()),
            _ => None,
        };
        let settings = Settings::from_environment(&lookup).unwrap();
        let store = DirectoryStore::open(directory).unwrap();
        Reporter::new(Arc::new(store), &settings)
    }

    fn snapshot(peers: &[(&PeerSpec, u64, u64)]) -> Snapshot {
        let at = Instant::now();
        let report = |(spec, rx_bytes, tx_bytes): &(&PeerSpec, u64, u64)| PeerReport {
            public_key: spec.public_key,
            ipv4: spec.ipv4,
            ipv6: spec.ipv6,
            endpoint: None,
            latest_handshake: Some(at),
            active_at: Some(at),
            rx_bytes: *rx_bytes,
            tx_bytes: *tx_bytes,
        };
        Snapshot {
            at,
            peers: peers.iter().map(report).collect(),
            drops: DropCounters::default(),
            flows: FlowCounts::default(),
            lost_frames: 0,
        }
    }

    fn counters(document: &StatusDocument, spec: &PeerSpec) -> (u64, u64) {
        let of_spec = |peer: &&PeerStatus| peer.public_key == spec.public_key;
        let peer = document.peers.iter().find(of_spec).unwrap();
        assert!(peer.latest_handshake.is_some());
        (peer.rx_bytes, peer.tx_bytes)
    }

    #[test]
    fn what_a_peer_has_used_stays_while_it_is_away_and_when_it_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut reporter = reporter(directory.path());
        let (stays, goes) = (spec(2), spec(3));
        let both = [stays.clone(), goes.clone()];
        let before = snapshot(&[(&stays, 1, 2), (&goes, 10, 20)]);
        reporter.keep_leaving(&both, &both[..1], &before, true);
        let after = snapshot(&[(&stays, 3, 4)]);
        let document = reporter.document(1, Some(&after), None);
        assert_eq!(counters(&document, &stays), (3, 4));
        assert_eq!(counters(&document, &goes), (10, 20));
        assert_eq!(reporter.take_counters(&both), [(goes.public_key, 10, 20)]);
        assert_eq!(reporter.take_counters(&both), [], "once");
        assert_eq!(reporter.used[&goes.public_key], 30);
        let returned = snapshot(&[(&stays, 3, 4), (&goes, 0, 0)]);
        reporter.note_used(&returned);
        assert_eq!(
            reporter.used[&goes.public_key], 30,
            "quotas do not begin anew"
        );
    }

    #[test]
    fn a_peer_that_is_changed_goes_on_counting() {
        let directory = tempfile::tempdir().unwrap();
        let mut reporter = reporter(directory.path());
        let old = spec(2);
        let new = PeerSpec {
            mtu: 1280,
            ..old.clone()
        };
        let before = snapshot(&[(&old, 10, 20)]);
        let (old, new) = ([old], [new]);
        reporter.keep_leaving(&old, &old, &before, true);
        assert_eq!(reporter.take_counters(&old), [], "nothing has changed");
        reporter.keep_leaving(&old, &new, &before, true);
        assert_eq!(reporter.take_counters(&new), [(new[0].public_key, 10, 20)]);
        // The kernel's path remembers by itself.
        reporter.keep_leaving(&new, &[], &before, false);
        assert_eq!(reporter.take_counters(&new), []);
        let nobody = snapshot(&[]);
        let document = reporter.document(1, Some(&nobody), None);
        assert_eq!(counters(&document, &new[0]), (10, 20));
        assert!(document.active_at.is_some(), "somebody was active");
    }
}
