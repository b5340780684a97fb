//! What the API says about a region.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use popup_model::{
    LastStop, LeaseId, Peer, PeerName, PeerStatus, PublicKey, Region, ServerConfig, StatusDocument,
    StopReason,
};
use serde::Serialize;

use super::backend::Group;
use super::plan::{Action, plan};
use super::service::{View, endpoint};

/// A session is dropped 180 s after its handshake (REJECT_AFTER_TIME in the WireGuard paper).
const SESSION: SignedDuration = SignedDuration::from_secs(180);

/// The state of a VPN in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing runs.
    Stopped,
    /// Asked for, and not ready yet.
    Starting,
    /// Ready.
    Running,
    /// On its way out.
    Stopping,
    /// Gave up, and nobody has started or stopped it since.
    Failed,
}

/// The answer of `GET /api/vpn-status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// In one word.
    pub state: State,
    /// Where.
    pub region: Region,
    /// `host:port`.
    pub endpoint: Option<String>,
    /// The address behind it.
    pub public_ip: Option<IpAddr>,
    /// The interface's public key.
    pub server_public_key: Option<PublicKey>,
    /// How packets leave.
    pub mode: Option<String>,
    /// Why that mode and not a better one.
    pub mode_reason: Option<String>,
    /// The lease in force.
    pub lease_id: Option<LeaseId>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// After how many idle minutes it ends before that; `null` for never, or when nothing runs.
    pub idle_minutes: Option<u64>,
    /// How the one before ended.
    pub last_stop: Option<LastStopView>,
    /// Everybody who may connect.
    pub peers: Vec<PeerView>,
}

/// How a VPN ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastStopView {
    /// Which lease.
    pub lease_id: LeaseId,
    /// When.
    pub at: Timestamp,
    /// Why, in one word.
    pub reason: StopReason,
    /// More, for a person.
    pub detail: Option<String>,
}

/// A peer, and what the gateway knows of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Its name.
    pub name: PeerName,
    /// Its tunnel address.
    pub address: IpAddr,
    /// Its identity.
    pub public_key: PublicKey,
    /// When it was added.
    pub created_at: Timestamp,
    /// The resolvers in its configuration.
    pub dns: Vec<IpAddr>,
    /// What its configuration routes into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// The MTU in its configuration.
    pub mtu: u16,
    /// When it last completed a handshake.
    pub latest_handshake: Option<Timestamp>,
    /// Bytes received from it, as the gateway sees it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// Whether it has a session.
    pub connected: bool,
}

impl StatusView {
    pub(crate) fn new(view: &View, config: &ServerConfig) -> Self {
        let document = &view.lease.document;
        let lease = document.lease.as_ref();
        let status = lease.and_then(|lease| view.observed.status_of(lease));
        let state = state(view);
        let reachable = lease.is_some();
        Self {
            state,
            region: document.region.clone(),
            endpoint: endpoint(view, config.ports.first().copied()).filter(|_| reachable),
            public_ip: view.sighting.public_ip.filter(|_| reachable),
            server_public_key: status.and_then(|status| status.public_key),
            mode: status.map(|status| status.mode.clone()),
            mode_reason: status.map(|status| status.mode_reason.clone()),
            lease_id: lease.map(|lease| lease.id.clone()),
            started_at: lease.map(|lease| seconds(lease.started_at)),
            expires_at: lease.map(|lease| seconds(lease.expires_at)),
            idle_minutes: lease
                .and_then(|lease| lease.idle_timeout_s)
                .map(|s| s.div_ceil(60)),
            last_stop: document.last_stop.as_ref().map(LastStopView::new),
            peers: config
                .peers
                .iter()
                .map(|peer| PeerView::new(peer, status, view.now))
                .collect(),
        }
    }
}

impl LastStopView {
    fn new(stop: &LastStop) -> Self {
        let LastStop {
            lease_id,
            at,
            reason,
            detail,
        } = stop.clone();
        Self {
            lease_id,
            at: seconds(at),
            reason,
            detail,
        }
    }
}

impl PeerView {
    pub(crate) fn new(peer: &Peer, status: Option<&StatusDocument>, now: Timestamp) -> Self {
        let known: Option<&PeerStatus> = status.and_then(|s| {
            s.peers
                .iter()
                .find(|known| known.public_key == peer.public_key)
        });
        let latest_handshake = known.and_then(|known| known.latest_handshake);
        let connected = latest_handshake.is_some_and(|at| now.duration_since(at) < SESSION);
        Self {
            name: peer.name.clone(),
            address: peer.addresses()[0],
            public_key: peer.public_key,
            created_at: seconds(peer.created_at),
            dns: peer.client.dns.clone(),
            allowed_ips: peer.client.allowed_ips.clone(),
            mtu: peer.client.mtu,
            latest_handshake: latest_handshake.map(seconds),
            rx_bytes: known.map_or(0, |known| known.rx_bytes),
            tx_bytes: known.map_or(0, |known| known.tx_bytes),
            connected,
        }
    }
}

fn state(view: &View) -> State {
    let document = &view.lease.document;
    if document.lease.is_some() {
        return match plan(document, &view.observed, view.now) {
            Action::Finish(StopReason::Failed, _) => State::Failed,
            Action::Finish(..) => State::Stopping,
            _ if view.is_ready(0) => State::Running,
            _ => State::Starting,
        };
    }
    let failed = |stop: &LastStop| stop.reason == StopReason::Failed;
    match view.observed.group {
        Group::Present { .. } => State::Stopping,
        Group::Absent if view.is_claimed() => State::Starting,
        Group::Absent if document.last_stop.as_ref().is_some_and(failed) => State::Failed,
        Group::Absent => State::Stopped,
    }
}

/// People read these; fractions of a second tell them nothing.
pub(crate) fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
