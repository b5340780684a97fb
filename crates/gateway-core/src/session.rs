//! The seam behind which the WireGuard protocol lives.
//!
//! WireGuard libraries keep a clock and a random source of their own, so this is the one place
//! where time and randomness are not arguments alone. Everything else in this crate is written against
//! these two traits and is tested with a double.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use popup_model::{PresharedKey, PublicKey};

use crate::DropReason;

/// Bytes a data message adds to a packet: header (16) and authentication tag (16)
/// (WireGuard whitepaper, section 5.4.6).
pub const OVERHEAD: usize = 32;

/// Room that every output buffer must have even when the packet is small: a handshake initiation.
pub const MIN_OUTPUT: usize = 148;

/// The interface: the private key, and what can be said of a datagram before its peer is known.
pub trait Interface {
    /// One peer's session state.
    type Session: Session;

    /// The interface's public key.
    fn public_key(&self) -> PublicKey;

    /// Starts a session with a peer. `index` (24 bits) is found again in [`Sender::Index`].
    fn session(
        &self,
        peer: PublicKey,
        preshared_key: Option<&PresharedKey>,
        index: u32,
    ) -> Self::Session;

    /// Says whose datagram this is, without decrypting data. Handshakes are checked against the
    /// interface's key here, and under load (more than the configured handshakes a second, over
    /// all peers) are answered with a cookie (whitepaper, section 5.3).
    fn identify<'a>(
        &self,
        source: IpAddr,
        datagram: &[u8],
        cookie_reply: &'a mut [u8],
    ) -> Result<Sender<'a>, DropReason>;

    /// To be called about once a second: opens the next interval of the load measurement.
    fn handle_second(&self);
}

/// Who sent a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Sender<'a> {
    /// Somebody who claims to be this peer and wants a session.
    Initiator(PublicKey),
    /// The peer whose session was given this index.
    Index(u32),
    /// Not known yet: send this back, and wait for a handshake that repeats the cookie.
    Unproven(&'a [u8]),
}

/// One peer's Noise session: keys, counters, replay window and timers.
pub trait Session {
    /// Encrypts `packet` into `out`. `None` while there is no session: the packet is kept, and if
    /// a handshake is due it is found in `out` as [`Sealed::Handshake`].
    ///
    /// `out` must have room for `packet` and [`OVERHEAD`], and for [`MIN_OUTPUT`].
    fn seal(&mut self, now: Instant, packet: &[u8], out: &mut [u8]) -> Sealed;

    /// Takes a datagram of this peer. `out` must have room for the datagram and [`MIN_OUTPUT`].
    fn open<'a>(
        &mut self,
        now: Instant,
        source: IpAddr,
        datagram: &[u8],
        out: &'a mut [u8],
    ) -> Opened<'a>;

    /// After [`Opened::Reply`]: the next packet that waited for the session, encrypted.
    fn seal_waiting(&mut self, out: &mut [u8]) -> Option<usize>;

    /// Runs the timers (about every 250 ms while the session is alive); a keepalive or a
    /// handshake may be due.
    fn handle_tick(&mut self, now: Instant, out: &mut [u8]) -> Option<usize>;

    /// How long ago the last handshake completed, if the session is alive.
    fn handshake_age(&self) -> Option<Duration>;
}

/// What became of a packet to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// A data message of this length.
    Data(usize),
    /// There is no session; a handshake message of this length is to be sent instead.
    Handshake(usize),
    /// There is no session, and nothing to be sent now.
    Waiting,
}

/// What became of a datagram received.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// An inner packet. The datagram was authentic.
    Packet(&'a mut [u8]),
    /// An empty data message. The datagram was authentic.
    Keepalive,
    /// An authentic handshake message; this is to be sent back, and then what has waited.
    Reply(&'a [u8]),
    /// Not to be believed.
    Dropped(DropReason),
}
