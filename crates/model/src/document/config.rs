//! `config.json`: the server configuration, shared by all regions. The handler writes it.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Control, Extra, SCHEMA};
use crate::{
    DEFAULT_MTU, MAX_MTU, MAX_PEERS, MIN_MTU, PeerName, PresharedKey, PublicKey, TunnelNetworks,
};

/// The server configuration: tunnel networks and peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// The schema major, [`SCHEMA`].
    pub schema: u32,
    /// Counts writes. The gateway reports the revision it has applied, so that a new peer can be
    /// known to be live.
    pub revision: u64,
    /// The networks inside the tunnel.
    pub networks: TunnelNetworks,
    /// UDP ports the gateway listens on; the first is the one in a client's `Endpoint`.
    pub ports: Vec<u16>,
    /// Everybody who may connect.
    pub peers: Vec<Peer>,
    /// Those among them whose start has not been answered yet: if it never is, nobody has their
    /// private key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Unanswered>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A peer that was made for a start which is still under way, or died.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unanswered {
    /// Whose.
    pub public_key: PublicKey,
    /// From when on there is no answer to wait for any more.
    pub until: Timestamp,
    /// What was there before under its name, and comes back if there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Peer>,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One peer: who it is and what its client configuration says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What the person calls it; unique.
    pub name: PeerName,
    /// Its identity; unique.
    pub public_key: PublicKey,
    /// Mixed into its handshakes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    /// The assigned tunnel addresses, one /32 and one /128: the sources accepted from this peer
    /// and the destinations sent to it. Never from a caller.
    pub allowed_ips: [IpNet; 2],
    /// When it was added.
    pub created_at: Timestamp,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// After how many bytes, both directions together, it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Whose device it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What goes into this peer's `.conf` only.
    pub client: ClientSettings,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The part of a peer that shapes its `.conf` and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSettings {
    /// Resolvers.
    pub dns: Vec<IpAddr>,
    /// What the client routes into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// The tunnel MTU in bytes.
    pub mtu: u16,
    /// Fields of a later minor version.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            dns: vec![IpAddr::from([1, 1, 1, 1]), IpAddr::from([8, 8, 8, 8])],
            allowed_ips: vec![
                IpNet::new_assert(IpAddr::from([0; 4]), 0),
                IpNet::new_assert(IpAddr::from([0_u16; 8]), 0),
            ],
            mtu: DEFAULT_MTU,
            extra: Extra::new(),
        }
    }
}

impl ServerConfig {
    /// A configuration without peers.
    pub fn new(networks: TunnelNetworks, ports: Vec<u16>) -> Self {
        Self {
            schema: SCHEMA,
            revision: 0,
            networks,
            ports,
            peers: Vec::new(),
            unanswered: Vec::new(),
            extra: Extra::new(),
        }
    }

    /// The peer of this name.
    pub fn peer(&self, name: &PeerName) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name == *name)
    }

    /// Every address given to a peer.
    pub fn assigned(&self) -> impl Iterator<Item = &IpNet> {
        self.peers.iter().flat_map(|peer| &peer.allowed_ips)
    }
}

impl Peer {
    /// Its assigned tunnel addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.allowed_ips.map(|net| net.addr())
    }
}

impl Control for ServerConfig {
    const KIND: &'static str = "config.json";

    fn validate(&self) -> Result<(), String> {
        if self.peers.len() > MAX_PEERS {
            return Err(format!(
                "it has {} peers, at most {MAX_PEERS} are possible",
                self.peers.len()
            ));
        }
        if self.ports.is_empty() || self.ports.contains(&0) {
            return Err("it must name at least one UDP port, and none may be 0".to_owned());
        }
        let (mut names, mut keys, mut addresses) = (HashSet::new(), HashSet::new(), HashSet::new());
        let gateway = self.networks.gateway();
        for peer in &self.peers {
            let name = &peer.name;
            if !names.insert(name) {
                return Err(format!("two peers are named {name}"));
            }
            if !keys.insert(peer.public_key) {
                return Err(format!("peer {name} has the public key of another peer"));
            }
            let [ipv4, ipv6] = peer.allowed_ips;
            let inside = match (ipv4, ipv6) {
                (IpNet::V4(v4), IpNet::V6(v6)) => {
                    v4.prefix_len() == 32
                        && v6.prefix_len() == 128
                        && self.networks.ipv4().contains(&v4.addr())
                        && self.networks.ipv6().contains(&v6.addr())
                }
                _ => false,
            };
            if !inside {
                return Err(format!(
                    "peer {name} must have one /32 and one /128 inside the tunnel networks"
                ));
            }
            for address in peer.addresses() {
                if gateway.contains(&address) || !addresses.insert(address) {
                    return Err(format!(
                        "peer {name} has an address that is taken: {address}"
                    ));
                }
            }
            if !(MIN_MTU..=MAX_MTU).contains(&peer.client.mtu) {
                return Err(format!(
                    "peer {name} has an MTU outside {MIN_MTU} to {MAX_MTU}"
                ));
            }
        }
        Ok(())
    }
}
