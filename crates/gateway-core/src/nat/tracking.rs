//! How long a binding is kept: enough of each transport's states to know when it is over.
//!
//! Sequence numbers are not followed, so nothing here ends a connection at once on account of one
//! packet: a forged reset only shortens its time (RFC 7857, section 2.2).

use std::time::Duration;

use super::bindings::End;
use crate::idle::{self, ESTABLISHED, TRANSITORY};
use crate::packet::TcpFlags;

/// What is known of a binding's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// Kept alive from inside only (RFC 4787, REQ-6).
    Udp { idle: Duration },
    /// Kept alive from inside only.
    Echo,
    /// One connection.
    Tcp(Connection),
}

/// A connection as far as it has been seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    answered: bool,
    finished_inside: bool,
    finished_outside: bool,
    reset: bool,
}

impl Connection {
    /// Nothing more of use will pass: the binding may go when its room is needed.
    pub(crate) fn is_over(self) -> bool {
        self.reset || (self.finished_inside && self.finished_outside)
    }

    /// Takes note of a segment.
    pub(crate) fn note(&mut self, from: End, flags: TcpFlags) {
        if flags.opens() && from == End::Inside && (self.is_over() || !self.answered) {
            *self = Self::default();
            return;
        }
        match from {
            End::Inside => self.finished_inside |= flags.has(TcpFlags::FIN),
            End::Outside => {
                self.finished_outside |= flags.has(TcpFlags::FIN);
                self.answered |= !flags.has(TcpFlags::RST);
            }
        }
        // Data after a reset: it was not meant, or not believed.
        self.reset = flags.has(TcpFlags::RST);
    }

    fn idle(self) -> Duration {
        let whole = self.answered && !self.finished_inside && !self.finished_outside && !self.reset;
        if whole { ESTABLISHED } else { TRANSITORY }
    }
}

impl Tracking {
    pub(crate) fn udp(destination_port: u16) -> Self {
        Self::Udp {
            idle: idle::udp(destination_port),
        }
    }

    /// How long the binding lives without a packet that keeps it alive.
    pub(crate) fn idle(&self) -> Duration {
        match self {
            Self::Udp { idle } => *idle,
            Self::Echo => idle::ECHO,
            Self::Tcp(connection) => connection.idle(),
        }
    }

    /// Whether a packet from this end keeps the binding alive.
    pub(crate) fn kept_alive_from(&self, end: End) -> bool {
        end == End::Inside || matches!(self, Self::Tcp(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(segments: &[(End, u8)]) -> Connection {
        let mut connection = Connection::default();
        for (from, flags) in segments {
            connection.note(*from, TcpFlags(*flags));
        }
        connection
    }

    const SYN: u8 = TcpFlags::SYN;
    const ACK: u8 = TcpFlags::ACK;
    const FIN: u8 = TcpFlags::FIN | TcpFlags::ACK;
    const RST: u8 = TcpFlags::RST;

    #[test]
    fn an_answered_connection_may_be_idle_for_two_hours() {
        let open = [(End::Inside, SYN), (End::Outside, SYN | ACK)];
        assert_eq!(after(&open[..1]).idle(), TRANSITORY);
        assert_eq!(after(&open).idle(), ESTABLISHED);
    }

    #[test]
    fn a_connection_is_over_when_both_ends_have_said_their_last_or_one_has_broken_off() {
        let open = [(End::Inside, SYN), (End::Outside, SYN | ACK)];
        let half = [&open[..], &[(End::Inside, FIN)]].concat();
        assert!(!after(&half).is_over());
        assert_eq!(after(&half).idle(), TRANSITORY);
        assert!(after(&[&half[..], &[(End::Outside, FIN)]].concat()).is_over());
        assert!(after(&[&open[..], &[(End::Outside, RST)]].concat()).is_over());
    }

    #[test]
    fn data_after_a_reset_shows_that_the_reset_was_not_believed() {
        let forged = [
            (End::Inside, SYN),
            (End::Outside, SYN | ACK),
            (End::Outside, RST),
            (End::Inside, ACK),
        ];
        assert_eq!(after(&forged).idle(), ESTABLISHED);
    }

    #[test]
    fn the_same_ports_can_connect_again() {
        let again = [
            (End::Inside, SYN),
            (End::Outside, SYN | ACK),
            (End::Inside, FIN),
            (End::Outside, FIN),
            (End::Inside, SYN),
        ];
        assert_eq!(after(&again), Connection::default());
    }
}
