//! The `raw` way out: packets leave with the gateway's address and a port of its own.

mod frame;

pub use frame::{Frame, Offload, RawSettings, Received, Transport};

use crate::context::Context;
use crate::session::Session;

/// The NAT.
#[derive(Debug)]
pub(crate) struct Nat {
    settings: RawSettings,
}

impl Nat {
    pub(crate) fn new(settings: RawSettings) -> Self {
        Self { settings }
    }

    pub(crate) fn handle_frame<S: Session>(
        &mut self,
        _cx: &mut Context<'_, S>,
        _packet: &mut [u8],
        _received: Received,
    ) {
    }

    pub(crate) fn handle_port_refused<S: Session>(
        &mut self,
        _cx: &mut Context<'_, S>,
        _transport: Transport,
        _port: u16,
    ) {
    }

    pub(crate) fn poll_frame(&mut self) -> Option<Frame<'_>> {
        None
    }
}
