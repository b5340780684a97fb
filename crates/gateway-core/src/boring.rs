//! The WireGuard protocol by boringtun. No other file names the library.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;
use popup_model::{PresharedKey, PrivateKey, PublicKey};

use crate::DropReason;
use crate::session::{Interface, Opened, Sealed, Sender, Session};

/// Handshakes a second, over all peers, from which on a cookie is asked for. A handshake costs
/// about 0.1 ms of computation, so this is 2 % of one core; 4096 peers that handshake every two
/// minutes make 34 a second.
const HANDSHAKES_PER_SECOND: u64 = 200;

/// The type of a data message (whitepaper, section 5.4.6).
const DATA: u8 = 4;

/// The timers inside the library stand still between ticks. A session that was left alone longer
/// than this is ticked before it is used, or its new keys would be born expired.
const STALE_CLOCK: Duration = Duration::from_millis(500);

/// The interface's key, shared by all sessions. Copies share what they know of load, too.
#[derive(Clone)]
pub struct BoringInterface {
    private: x25519::StaticSecret,
    public: x25519::PublicKey,
    limiter: Arc<RateLimiter>,
    unlimited: Arc<RateLimiter>,
}

impl std::fmt::Debug for BoringInterface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoringInterface({})", self.public_key())
    }
}

impl BoringInterface {
    /// An interface with this private key.
    pub fn new(private_key: &PrivateKey) -> Self {
        let private = x25519::StaticSecret::from(*private_key.as_bytes());
        let public = x25519::PublicKey::from(&private);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND)),
            // Load is measured once, in `identify`, before a peer is known; a session's own check
            // must not count the same handshake again.
            unlimited: Arc::new(RateLimiter::new(&public, u64::MAX)),
            private,
            public,
        }
    }
}

impl Interface for BoringInterface {
    type Session = BoringSession;

    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.public.to_bytes())
    }

    fn session(
        &self,
        peer: PublicKey,
        preshared_key: Option<&PresharedKey>,
        index: u32,
    ) -> BoringSession {
        let tunn = Tunn::new(
            self.private.clone(),
            x25519::PublicKey::from(*peer.as_bytes()),
            preshared_key.map(|key| *key.as_bytes()),
            None,
            index,
            Some(Arc::clone(&self.unlimited)),
        );
        BoringSession {
            tunn,
            ticked_at: Instant::now(),
            pending: Vec::new(),
        }
    }

    fn identify<'a>(
        &self,
        source: IpAddr,
        datagram: &[u8],
        cookie_reply: &'a mut [u8],
    ) -> Result<Sender<'a>, DropReason> {
        let packet = match self
            .limiter
            .verify_packet(Some(source), datagram, cookie_reply)
        {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(reply)) => return Ok(Sender::Unproven(reply)),
            Err(TunnResult::Err(error)) => return Err(reason(&error)),
            Err(_) => return Err(DropReason::MalformedDatagram),
        };
        match packet {
            Packet::HandshakeInit(init) => parse_handshake_anon(&self.private, &self.public, &init)
                .map(|half| Sender::Initiator(PublicKey::from_bytes(half.peer_static_public)))
                .map_err(|_| DropReason::HandshakeRejected),
            Packet::HandshakeResponse(response) => Ok(Sender::Index(response.receiver_idx >> 8)),
            Packet::PacketCookieReply(reply) => Ok(Sender::Index(reply.receiver_idx >> 8)),
            Packet::PacketData(data) => Ok(Sender::Index(data.receiver_idx >> 8)),
        }
    }

    fn handle_second(&self) {
        self.limiter.reset_count();
    }
}

/// One peer's session.
pub struct BoringSession {
    tunn: Tunn,
    ticked_at: Instant,
    /// What a forced tick wanted to send, until the next regular one.
    pending: Vec<u8>,
}

impl std::fmt::Debug for BoringSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "BoringSession(handshake_age: {:?})",
            self.handshake_age()
        )
    }
}

impl BoringSession {
    fn catch_up(&mut self, now: Instant) {
        if now.saturating_duration_since(self.ticked_at) < STALE_CLOCK {
            return;
        }
        let mut out = [0; crate::session::MIN_OUTPUT];
        if let Some(len) = self.tick(now, &mut out) {
            self.pending = out[..len].to_vec();
        }
    }

    fn tick(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.ticked_at = now;
        match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            _ => None,
        }
    }
}

impl Session for BoringSession {
    fn seal(&mut self, now: Instant, packet: &[u8], out: &mut [u8]) -> Sealed {
        self.catch_up(now);
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(datagram) if datagram.first() == Some(&DATA) => {
                Sealed::Data(datagram.len())
            }
            TunnResult::WriteToNetwork(datagram) => Sealed::Handshake(datagram.len()),
            _ => Sealed::Waiting,
        }
    }

    fn open<'a>(
        &mut self,
        now: Instant,
        source: IpAddr,
        datagram: &[u8],
        out: &'a mut [u8],
    ) -> Opened<'a> {
        if datagram.is_empty() {
            return Opened::Dropped(DropReason::MalformedDatagram);
        }
        self.catch_up(now);
        match self.tunn.decapsulate(Some(source), datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet)
            }
            TunnResult::WriteToNetwork(reply) => Opened::Reply(reply),
            TunnResult::Done => Opened::Keepalive,
            TunnResult::Err(error) => Opened::Dropped(reason(&error)),
        }
    }

    fn seal_waiting(&mut self, out: &mut [u8]) -> Option<usize> {
        match self.tunn.decapsulate(None, &[], out) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            _ => None,
        }
    }

    fn handle_tick(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            out[..pending.len()].copy_from_slice(&pending);
            return Some(pending.len());
        }
        self.tick(now, out)
    }

    fn handshake_age(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidMac => DropReason::InvalidMac,
        WireGuardError::UnderLoad => DropReason::UnderLoad,
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => {
            DropReason::ReplayedPacket
        }
        WireGuardError::InvalidAeadTag | WireGuardError::WrongKey => DropReason::DecryptionFailed,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::ConnectionExpired => DropReason::UnknownSession,
        WireGuardError::WrongTai64nTimestamp | WireGuardError::InvalidTai64nTimestamp => {
            DropReason::HandshakeRejected
        }
        WireGuardError::InvalidPacket | WireGuardError::IncorrectPacketLength => {
            DropReason::MalformedDatagram
        }
        _ => DropReason::HandshakeRejected,
    }
}
