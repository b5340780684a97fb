//! The WireGuard client: a session with the gateway, and the host behind it.
//!
//! Drive invariant: one input, then drain. After each `handle_*` call, and after each use of
//! [`Tunnel::netstack`], the shell calls [`Tunnel::handle_timeout`] and sends every
//! [`Tunnel::poll_transmit`] before it brings the next input.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use popup_gateway_core::session::{MIN_OUTPUT, OVERHEAD, Opened, Sealed, Session};

use super::netstack::Netstack;

/// How often the session's timers run.
const TICK: Duration = Duration::from_millis(250);

/// The message type of a handshake response (WireGuard whitepaper, section 5.4.3).
const HANDSHAKE_RESPONSE: u8 = 2;

/// How the handshake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// Nothing has come back.
    Silent,
    /// The host said that nothing listens on the port.
    Refused,
    /// An answer came that this client's keys do not open.
    Rejected,
    /// There is a session.
    Complete,
}

/// A client's end of the tunnel.
#[derive(Debug)]
pub(super) struct Tunnel<S> {
    session: S,
    endpoint: IpAddr,
    allowed_ips: Vec<IpNet>,
    netstack: Netstack,
    transmits: VecDeque<Vec<u8>>,
    handshake: Handshake,
    heard: bool,
    tick_at: Instant,
    out: Vec<u8>,
}

impl<S: Session> Tunnel<S> {
    /// A tunnel to the gateway at `endpoint`.
    pub(super) fn new(
        session: S,
        endpoint: IpAddr,
        allowed_ips: Vec<IpNet>,
        netstack: Netstack,
        now: Instant,
    ) -> Self {
        Self {
            session,
            endpoint,
            allowed_ips,
            netstack,
            transmits: VecDeque::new(),
            handshake: Handshake::Silent,
            heard: false,
            tick_at: now,
            out: vec![0; usize::from(u16::MAX) + OVERHEAD + MIN_OUTPUT],
        }
    }

    /// Begins the handshake, which is repeated until it is answered.
    pub(super) fn start(&mut self, now: Instant) {
        self.seal(now, &[]);
    }

    /// Takes a datagram from the gateway.
    pub(super) fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        match self
            .session
            .open(now, self.endpoint, datagram, &mut self.out)
        {
            Opened::Packet(packet) => {
                if source(packet)
                    .is_some_and(|source| self.allowed_ips.iter().any(|net| net.contains(&source)))
                {
                    self.heard = true;
                    self.netstack.handle_packet(packet);
                }
            }
            Opened::Keepalive => {}
            Opened::Reply(reply) => {
                self.transmits.push_back(reply.to_vec());
                while let Some(len) = self.session.seal_waiting(&mut self.out) {
                    self.transmits.push_back(self.out[..len].to_vec());
                }
            }
            Opened::Dropped(_) => {
                if datagram.first() == Some(&HANDSHAKE_RESPONSE)
                    && self.handshake != Handshake::Complete
                {
                    self.handshake = Handshake::Rejected;
                }
            }
        }
        if self.session.handshake_age().is_some() {
            self.handshake = Handshake::Complete;
        }
    }

    /// Takes the news that nothing listens at the endpoint.
    pub(super) fn handle_refused(&mut self) {
        self.handshake = Handshake::Refused;
    }

    /// Lets the host and the session work until `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            if let Some(len) = self.session.handle_tick(now, &mut self.out) {
                self.transmits.push_back(self.out[..len].to_vec());
            }
        }
        self.netstack.handle_timeout(now);
        while let Some(packet) = self.netstack.poll_packet() {
            self.seal(now, &packet);
        }
    }

    /// The next datagram for the gateway.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Instant {
        self.netstack
            .poll_timeout(now)
            .map_or(self.tick_at, |at| at.min(self.tick_at))
    }

    /// How the handshake stands.
    pub(super) fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// Whether any packet has come through the tunnel.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// The host behind the tunnel.
    pub(super) fn netstack(&mut self) -> &mut Netstack {
        &mut self.netstack
    }

    fn seal(&mut self, now: Instant, packet: &[u8]) {
        match self.session.seal(now, packet, &mut self.out) {
            Sealed::Data(len) | Sealed::Handshake(len) => {
                self.transmits.push_back(self.out[..len].to_vec())
            }
            Sealed::Waiting => {}
        }
    }
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    (packet[0] >> 4 == 4).then(|| Ipv4Addr::from(source).into())
}

#[cfg(test)]
#[path = "tunnel/tests.rs"]
mod tests;
