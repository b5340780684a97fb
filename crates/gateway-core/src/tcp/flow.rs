//! One TCP connection and its deadlines.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::FlowKey;
use super::terminator::Terminator;
use crate::idle::{ESTABLISHED, TRANSITORY};
use crate::peers::PeerIndex;
use crate::timers::Armed;

#[derive(Debug)]
pub(super) enum State {
    /// The outside has been asked; the peer's SYN waits here.
    Connecting { syn: Box<[u8]> },
    /// Both sides are connected.
    Open(Box<Terminator>),
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) peer: PeerIndex,
    pub(super) inside: SocketAddrV4,
    pub(super) outside: SocketAddrV4,
    pub(super) state: State,
    /// When the peer was last heard.
    pub(super) last_heard: Instant,
    /// When the outside last sent.
    pub(super) last_sent: Instant,
    /// The peer's FIN has been passed on.
    pub(super) peer_finished: bool,
    /// The outside's FIN has been passed on.
    pub(super) outside_finished: bool,
    /// The shell has been told to release the socket.
    pub(super) released: bool,
    /// The outside has more, and there was no room.
    pub(super) wants_room: bool,
    /// It is among those that wait for their turn.
    pub(super) waits_for_turn: bool,
    /// Bytes that it may still read in its turn; what an idle outside leaves is kept.
    pub(super) turn_left: usize,
    /// It is among those that [`super::TcpFlows::flush`] looks at.
    pub(super) unsettled: bool,
    /// Bytes its buffers are counted for.
    pub(super) buffer_bytes: usize,
    pub(super) armed: Armed,
}

impl Flow {
    pub(super) fn connecting(
        peer: PeerIndex,
        inside: SocketAddrV4,
        outside: SocketAddrV4,
        syn: &[u8],
        now: Instant,
    ) -> Self {
        Self {
            peer,
            inside,
            outside,
            state: State::Connecting { syn: syn.into() },
            last_heard: now,
            last_sent: now,
            peer_finished: false,
            outside_finished: false,
            released: false,
            // The outside may speak first: the shell is told as soon as there is room at all.
            wants_room: true,
            waits_for_turn: false,
            turn_left: 0,
            unsettled: false,
            buffer_bytes: 0,
            armed: None,
        }
    }

    pub(super) fn key(&self) -> FlowKey {
        FlowKey {
            inside: self.inside,
            outside: self.outside,
        }
    }

    /// Whether both directions have ended in good order.
    pub(super) fn finished(&self) -> bool {
        self.peer_finished && self.outside_finished
    }

    /// When it is given up for silence.
    pub(super) fn idle_deadline(&self) -> Instant {
        match &self.state {
            State::Connecting { .. } => self.last_heard + TRANSITORY,
            State::Open(terminator) if self.finished() || terminator.awaits_acknowledgement() => {
                self.last_heard + TRANSITORY
            }
            State::Open(_) => self.last_heard.max(self.last_sent) + ESTABLISHED,
        }
    }

    /// When it must be looked at again.
    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        let idle = self.idle_deadline();
        match &mut self.state {
            State::Connecting { .. } => idle,
            // "At once" has just been tried by whoever asks: never spin on it.
            State::Open(terminator) => terminator
                .poll_at(now)
                .map_or(idle, |due| due.min(idle))
                .max(now + Duration::from_millis(1)),
        }
    }
}
