//! What both planes agree on: keys, names, tunnel networks and the three documents.
//!
//! Invariant: a value of a type defined here is safe to print into a `.conf`, a file name, a
//! header or a path, because it can only be made by parsing. Text from callers has no other way in.

pub mod document;
pub mod key;
pub mod name;
pub mod network;

pub use document::{
    ClientSettings, Control, DocumentError, LastStop, Lease, LeaseDocument, Operation, Peer,
    PeerStatus, ServerConfig, StatusDocument, StopReason,
};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use name::{LeaseId, NameError, PeerName, Region};
pub use network::{NetworkError, TunnelNetworks};

/// The UDP port WireGuard users know, and the default of the image and of the local backend.
pub const DEFAULT_PORT: u16 = 51820;

/// Tunnel MTU of `wg-quick` on a 1500-byte path: 1500 - 40 (IPv6) - 8 (UDP) - 32 (WireGuard).
pub const DEFAULT_MTU: u16 = 1420;

/// Smallest tunnel MTU accepted: below 1280 IPv6 does not work (RFC 8200, section 5).
pub const MIN_MTU: u16 = 1280;

/// Largest tunnel MTU accepted: what fits a 1500-byte path without the IPv6 allowance, and the
/// jumbo paths some clouds have are not worth a black hole on the client's side.
pub const MAX_MTU: u16 = 1440;

/// Most peers a server configuration holds.
pub const MAX_PEERS: usize = 4096;

/// Largest document accepted, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
