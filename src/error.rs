//! Everything a caller can be told to have gone wrong.
//!
//! Invariant: `Display` is for the caller, says what to do, and holds no text of a caller's that
//! has not been parsed or shortened; the cause (`source`) is for the log only.

use ipnet::Ipv4Net;
use popup_model::{DocumentError, MAX_PEERS, NetworkError, PeerName, Region};
use popup_store::StoreError;

/// A failed request. The variant is the stable `code` of the answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body is not a JSON object, or a member has the wrong type.
    #[error("{0}")]
    InvalidJson(String),
    /// The body has members that mean nothing here.
    #[error("unknown field {fields}: the fields possible here are {known}")]
    UnknownField {
        /// Their names, shortened.
        fields: String,
        /// What there could be.
        known: String,
    },
    /// The body says that it is something else.
    #[error("a body must be sent as Content-Type: application/json; a POST without a body is fine")]
    UnsupportedMediaType,
    /// More than anybody could mean.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// How many are accepted.
        limit: usize,
    },
    /// The body did not arrive.
    #[error("the body did not arrive in time, or not in full: send it again")]
    BodyIncomplete,
    /// `peer` does not make sense as a whole.
    #[error("{0}")]
    InvalidPeer(&'static str),
    /// `peer.name`, or the name in the path.
    #[error("{0}")]
    InvalidPeerName(String),
    /// `peer.publicKey`.
    #[error("peer.publicKey: {0}")]
    InvalidPublicKey(String),
    /// `dns`.
    #[error("dns: {0}")]
    InvalidDns(String),
    /// `allowedIps`.
    #[error("allowedIps: {0}")]
    InvalidAllowedIps(String),
    /// `mtu`.
    #[error("mtu: {0}")]
    InvalidMtu(String),
    /// `lifetimeMinutes`.
    #[error("lifetimeMinutes: {0}")]
    InvalidLifetime(String),
    /// `idleMinutes`.
    #[error("idleMinutes: {0}")]
    InvalidIdle(String),
    /// `region` is not a region's name.
    #[error("region: {0}")]
    InvalidRegion(String),
    /// `format` in the query.
    #[error("format must be json or conf")]
    InvalidFormat,
    /// `region` is not among those this installation may use.
    #[error("the region {region} is not allowed here; REGIONS allows {allowed}")]
    RegionNotAllowed {
        /// Which was asked for.
        region: Region,
        /// Which there are.
        allowed: String,
    },
    /// No address is left for a new peer.
    #[error(
        "the tunnel network {0} has no free address: delete a peer, or set a larger SERVER_NETWORK"
    )]
    NetworkExhausted(Ipv4Net),
    /// No room is left for a new peer.
    #[error(
        "there is no room for this peer: {MAX_PEERS} are possible at most, and fewer the longer their \
         lists of networks and resolvers are; delete one"
    )]
    TooManyPeers,
    /// Nobody of that name.
    #[error("there is no peer {0}; GET /api/vpn-peers lists them")]
    PeerNotFound(PeerName),
    /// The public key is in use.
    #[error(
        "this public key belongs to the peer {0}: use that name, delete it, or send another key"
    )]
    PeerExists(PeerName),
    /// Somebody else has replaced or removed the peer of this start.
    #[error(
        "the peer {0} was replaced or removed while this start was under way, so its new \
         configuration is worth nothing: start again if you want it"
    )]
    PeerChanged(PeerName),
    /// A bare configuration was asked for and there is none to give.
    #[error("{0}")]
    NoConfigToReturn(String),
    /// Somebody stopped the VPN while this request was starting it.
    #[error("the VPN was stopped while it was starting: start it again if you want it")]
    Interrupted,
    /// Too many others change the same things.
    #[error("other requests keep changing the same things: try again in a few seconds")]
    Busy,
    /// The documents cannot be reached.
    #[error(
        "the storage cannot be used now: try again; the log has the reason under this request id"
    )]
    StorageUnavailable(#[from] StoreError),
    /// A document is there but cannot be used.
    #[error(
        "a stored document cannot be used: update this program if a newer one wrote it; the log \
         has more under this request id"
    )]
    DocumentUnusable(#[from] DocumentError),
    /// The gateway gave up, or could not be started.
    #[error("the gateway could not run: {detail}")]
    GatewayFailed {
        /// What it said.
        detail: String,
    },
    /// The gateway's surroundings do not answer.
    #[error(
        "the gateway cannot be reached or changed now: try again; the log has the reason under this request id"
    )]
    BackendUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gateway's surroundings say no, and will again.
    #[error("the gateway cannot be looked at or changed: {0}")]
    BackendRefused(String),
    /// The gateway's surroundings want to be left alone for a while.
    #[error(
        "Azure limits how often gateways may be looked at and changed: try again in {after_s} s"
    )]
    Throttled {
        /// For how long.
        after_s: u64,
    },
    /// Settings that cannot work.
    #[error("{0}")]
    ConfigurationInvalid(String),
    /// The request was made by a page of another site.
    #[error("requests from web pages of other origins are refused")]
    ForeignOrigin,
    /// The request was made under another name than this machine's own.
    #[error("this handler answers only as localhost, 127.0.0.1 or [::1]")]
    ForeignHost,
    /// No such route.
    #[error(
        "there is no such route; there are POST /api/start-vpn, POST /api/stop-vpn, \
         GET /api/vpn-status, GET /api/vpn-peers and DELETE /api/vpn-peers/{{name}}"
    )]
    RouteNotFound,
    /// The route exists, for another method.
    #[error("this route does not have that method; the Allow header names those it has")]
    MethodNotAllowed,
    /// A bug.
    #[error("something went wrong inside; the log has more under this request id")]
    Internal(String),
}

impl Error {
    /// The stable code: the variant's name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson(_) => "InvalidJson",
            Self::UnknownField { .. } => "UnknownField",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::BodyTooLarge { .. } => "BodyTooLarge",
            Self::BodyIncomplete => "BodyIncomplete",
            Self::InvalidPeer(_) => "InvalidPeer",
            Self::InvalidPeerName(_) => "InvalidPeerName",
            Self::InvalidPublicKey(_) => "InvalidPublicKey",
            Self::InvalidDns(_) => "InvalidDns",
            Self::InvalidAllowedIps(_) => "InvalidAllowedIps",
            Self::InvalidMtu(_) => "InvalidMtu",
            Self::InvalidLifetime(_) => "InvalidLifetime",
            Self::InvalidIdle(_) => "InvalidIdle",
            Self::InvalidRegion(_) => "InvalidRegion",
            Self::InvalidFormat => "InvalidFormat",
            Self::RegionNotAllowed { .. } => "RegionNotAllowed",
            Self::NetworkExhausted(_) => "NetworkExhausted",
            Self::TooManyPeers => "TooManyPeers",
            Self::PeerNotFound(_) => "PeerNotFound",
            Self::PeerExists(_) => "PeerExists",
            Self::PeerChanged(_) => "PeerChanged",
            Self::NoConfigToReturn(_) => "NoConfigToReturn",
            Self::Interrupted => "Interrupted",
            Self::Busy => "Busy",
            Self::StorageUnavailable(_) => "StorageUnavailable",
            Self::DocumentUnusable(_) => "DocumentUnusable",
            Self::GatewayFailed { .. } => "GatewayFailed",
            Self::BackendUnavailable(_) => "BackendUnavailable",
            Self::BackendRefused(_) => "BackendRefused",
            Self::Throttled { .. } => "Throttled",
            Self::ConfigurationInvalid(_) => "ConfigurationInvalid",
            Self::ForeignOrigin => "ForeignOrigin",
            Self::ForeignHost => "ForeignHost",
            Self::RouteNotFound => "RouteNotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::Internal(_) => "Internal",
        }
    }

    /// Whether the same request would fail again right away, so that trying is of no use.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::BackendRefused(_)
                | Self::ConfigurationInvalid(_)
                | Self::DocumentUnusable(_)
                | Self::Internal(_)
        )
    }

    /// The whole chain of causes, for the log.
    pub fn internal(&self) -> String {
        let mut text = format!("{self}");
        if let Self::Internal(detail) = self {
            text = format!("{text}: {detail}");
        }
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

impl From<NetworkError> for Error {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Exhausted(network) => Self::NetworkExhausted(network),
            other => Self::ConfigurationInvalid(format!("SERVER_NETWORK: {other}")),
        }
    }
}
