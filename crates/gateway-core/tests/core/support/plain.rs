//! A session that encrypts nothing: the double behind the WireGuard seam.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use popup_gateway_core::DropReason;
use popup_gateway_core::session::{Interface, OVERHEAD, Opened, Sealed, Sender, Session};
use popup_model::{PresharedKey, PublicKey};

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 4;
const HEADER: usize = OVERHEAD;

#[derive(Debug)]
pub(crate) struct Plain;

#[derive(Debug)]
pub(crate) struct PlainSession {
    established: bool,
}

/// What a peer sends to get a session.
pub(crate) fn initiation(key: &PublicKey) -> Vec<u8> {
    let mut datagram = vec![INITIATION];
    datagram.extend(key.as_bytes());
    datagram
}

/// A data message for the session of this index.
pub(crate) fn message(index: u32, packet: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER];
    datagram[0] = DATA;
    datagram[4..8].copy_from_slice(&index.to_le_bytes());
    datagram.extend(packet);
    datagram
}

impl Interface for Plain {
    type Session = PlainSession;

    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes([9; 32])
    }

    fn session(&self, _: PublicKey, _: Option<&PresharedKey>, _: u32) -> PlainSession {
        PlainSession { established: false }
    }

    fn identify<'a>(
        &self,
        _: IpAddr,
        datagram: &[u8],
        _: &'a mut [u8],
    ) -> Result<Sender<'a>, DropReason> {
        match datagram {
            [INITIATION, key @ ..] => key
                .try_into()
                .map(|key| Sender::Initiator(PublicKey::from_bytes(key)))
                .map_err(|_| DropReason::MalformedDatagram),
            [DATA, _, _, _, a, b, c, d, ..] if datagram.len() >= HEADER => {
                Ok(Sender::Index(u32::from_le_bytes([*a, *b, *c, *d])))
            }
            _ => Err(DropReason::MalformedDatagram),
        }
    }

    fn handle_second(&self) {}
}

impl Session for PlainSession {
    fn seal(&mut self, _: Instant, packet: &[u8], out: &mut [u8]) -> Sealed {
        if !self.established {
            return Sealed::Waiting;
        }
        out[..HEADER].fill(0);
        out[0] = DATA;
        out[HEADER..HEADER + packet.len()].copy_from_slice(packet);
        Sealed::Data(HEADER + packet.len())
    }

    fn open<'a>(
        &mut self,
        _: Instant,
        _: IpAddr,
        datagram: &[u8],
        out: &'a mut [u8],
    ) -> Opened<'a> {
        if datagram[0] == INITIATION {
            self.established = true;
            out[0] = RESPONSE;
            return Opened::Reply(&out[..1]);
        }
        if !self.established {
            return Opened::Dropped(DropReason::UnknownSession);
        }
        let packet = &datagram[HEADER..];
        if packet.is_empty() {
            return Opened::Keepalive;
        }
        out[..packet.len()].copy_from_slice(packet);
        Opened::Packet(&mut out[..packet.len()])
    }

    fn seal_waiting(&mut self, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn handle_tick(&mut self, _: Instant, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn handshake_age(&self) -> Option<Duration> {
        self.established.then_some(Duration::ZERO)
    }
}
