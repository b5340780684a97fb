//! Which socket an event is for.
//!
//! Tokens are never used again, so an event that was under way when its socket was closed finds
//! nothing instead of somebody else's socket.

use std::io;

use foldhash::HashMap;
use mio::event::Source;
use mio::{Interest, Token};
use popup_gateway_core::{EchoMapping, TcpFlow, UdpMapping};

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    WireGuard(usize),
    Waker,
    /// One of the sockets that frames wait in, by number.
    Raw(usize),
    Tcp(TcpFlow),
    Udp(UdpMapping),
    Echo(EchoMapping),
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    owners: HashMap<Token, Owner>,
    next: usize,
}

impl Registry {
    pub(super) fn insert(&mut self, owner: Owner) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.owners.insert(token, owner);
        token
    }

    /// Has `poll` tell of a socket under a token of its own.
    pub(super) fn register(
        &mut self,
        poll: &mio::Registry,
        socket: &mut impl Source,
        owner: Owner,
        interest: Interest,
    ) -> io::Result<Token> {
        let token = self.insert(owner);
        poll.register(socket, token, interest)
            .inspect_err(|_| self.remove(token))?;
        Ok(token)
    }

    pub(super) fn remove(&mut self, token: Token) {
        self.owners.remove(&token);
    }

    pub(super) fn owner(&self, token: Token) -> Option<Owner> {
        self.owners.get(&token).copied()
    }
}
