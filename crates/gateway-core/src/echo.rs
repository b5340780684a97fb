//! Ping: one mapping for each inside address and identifier (RFC 5508, section 3).
//!
//! The identifier outside is the ping socket's own, chosen by the kernel; sequence numbers and
//! data cross as they are.

use std::net::Ipv4Addr;

use crate::DropReason;
use crate::context::Context;
use crate::idle;
use crate::mappings::Mappings;
use crate::output::EchoMapping;
use crate::packet::{EchoRequest, Parsed, echo_reply};
use crate::peers::PeerIndex;
use crate::session::Session;

/// All echo mappings, by inside address and identifier.
pub(crate) type EchoMappings = Mappings<EchoMapping, (Ipv4Addr, u16)>;

impl EchoMappings {
    /// Takes an echo request of a peer.
    pub(crate) fn handle_request<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &Parsed<'_>,
        echo: EchoRequest<'_>,
    ) -> Result<(), DropReason> {
        let mapping = self.touch(cx, peer, (packet.source, echo.ident), idle::ECHO)?;
        let commands = &mut cx.output.commands;
        commands.echo_send(mapping, packet.destination, echo.sequence, echo.data);
        Ok(())
    }

    /// Brings an answer to the peer that asked.
    pub(crate) fn handle_reply<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: EchoMapping,
        source: Ipv4Addr,
        sequence: u16,
        data: &[u8],
    ) {
        let Some(mapping) = self.get(id) else { return };
        let (inside, ident) = mapping.inside;
        let echo = EchoRequest {
            ident,
            sequence,
            data,
        };
        let identification = cx.random() as u16;
        let mut buffer = std::mem::take(cx.scratch);
        if let Some(packet) = echo_reply(&mut buffer, source, inside, echo, identification) {
            cx.send(mapping.peer, packet);
        }
        *cx.scratch = buffer;
    }
}
