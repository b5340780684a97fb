//! What a caller asks for, in types that hold nothing unparsed.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use popup_model::{PeerName, PublicKey, Region};

/// How long a VPN may run when nothing is said: a working day.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(480 * 60);
/// How long it may idle when nothing is said.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(30 * 60);

/// A start, or a change of what runs.
#[derive(Debug, Clone, Default)]
pub struct StartRequest {
    /// Where; the first allowed region when absent.
    pub region: Option<Region>,
    /// For whom.
    pub peer: PeerRequest,
    /// What shapes that peer's configuration.
    pub client: ClientWish,
    /// How long from now; unchanged or the default when absent.
    pub lifetime: Option<Duration>,
    /// How long it may idle, `Some(None)` for ever; unchanged or the default when absent.
    pub idle_timeout: Option<Option<Duration>>,
    /// The caller can take nothing but a configuration: fail where there is none to give.
    pub config_required: bool,
    /// The caller does not want to wait for the gateway.
    pub respond_async: bool,
}

/// The `peer` of a start.
#[derive(Debug, Clone, Default)]
pub enum PeerRequest {
    /// Nothing was said: a new peer if this request starts the VPN, else none.
    #[default]
    Unsaid,
    /// `null`: none.
    Nobody,
    /// This one.
    Wanted(PeerWish),
}

/// A peer that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerWish {
    /// Its name; `peer-N` when absent.
    pub name: Option<PeerName>,
    /// The caller's own key: no private key is made.
    pub public_key: Option<PublicKey>,
    /// Whether a preshared key is made. On unless declined: every WireGuard client knows it, it
    /// costs nothing, and recorded traffic stays closed should Curve25519 ever fall.
    pub preshared_key: bool,
    /// Whether an existing peer of this name gets new keys.
    pub replace: bool,
}

impl Default for PeerWish {
    fn default() -> Self {
        Self {
            name: None,
            public_key: None,
            preshared_key: true,
            replace: false,
        }
    }
}

/// What goes into a peer's configuration; what is absent is the default, or stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientWish {
    /// Resolvers.
    pub dns: Option<Vec<IpAddr>>,
    /// What the client routes into the tunnel.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// The tunnel MTU in bytes.
    pub mtu: Option<u16>,
}
