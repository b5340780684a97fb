//! Ping: one mapping for each inside address and identifier (RFC 5508, section 3).
//!
//! The identifier outside is the ping socket's own, chosen by the kernel; sequence numbers and
//! data cross as they are.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::DropReason;
use crate::context::Context;
use crate::output::{Command, EchoMapping};
use crate::packet::{EchoRequest, Parsed, echo_reply};
use crate::peers::PeerIndex;
use crate::session::Session;
use crate::timers::{Armed, Timers};

/// How long a mapping lives without a request (RFC 5508, REQ-1: not less than 60 s).
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Mapping {
    peer: PeerIndex,
    inside: (Ipv4Addr, u16),
    last_heard: Instant,
    armed: Armed,
}

/// All echo mappings.
#[derive(Debug, Default)]
pub(crate) struct EchoMappings {
    mappings: SlotMap<EchoMapping, Mapping>,
    by_inside: HashMap<(Ipv4Addr, u16), EchoMapping>,
    timers: Timers<EchoMapping>,
}

impl EchoMappings {
    pub(crate) fn len(&self) -> usize {
        self.mappings.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Takes an echo request of a peer.
    pub(crate) fn handle_request<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &Parsed<'_>,
        echo: EchoRequest<'_>,
    ) -> Result<(), DropReason> {
        let inside = (packet.source, echo.ident);
        let id = match self.by_inside.get(&inside) {
            Some(id) => *id,
            None => {
                cx.claim_flow(peer)?;
                let id = self.mappings.insert(Mapping {
                    peer,
                    inside,
                    last_heard: cx.now,
                    armed: None,
                });
                self.by_inside.insert(inside, id);
                cx.output.commands.push(Command::EchoOpen { mapping: id });
                id
            }
        };
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.last_heard = cx.now;
            self.timers.arm(&mut mapping.armed, id, cx.now + IDLE);
        }
        cx.output
            .commands
            .echo_send(id, packet.destination, echo.sequence, echo.data);
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
        let Some(mapping) = self.mappings.get(id) else {
            return;
        };
        let (inside, ident) = mapping.inside;
        let identification = cx.random() as u16;
        let mut buffer = std::mem::take(cx.scratch);
        if let Some(packet) = echo_reply(
            &mut buffer,
            source,
            inside,
            EchoRequest {
                ident,
                sequence,
                data,
            },
            identification,
        ) {
            cx.send(mapping.peer, packet);
        }
        *cx.scratch = buffer;
    }

    /// Gives up a mapping whose socket could not be opened or has failed.
    pub(crate) fn handle_failed<S: Session>(&mut self, cx: &mut Context<'_, S>, id: EchoMapping) {
        if self.mappings.contains_key(id) {
            cx.output.drop(DropReason::SendFailed);
            self.remove(cx, id);
        }
    }

    pub(crate) fn handle_timeout<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(id) = self.timers.pop(cx.now) {
            let Some(mapping) = self.mappings.get_mut(id) else {
                continue;
            };
            mapping.armed = None;
            let deadline = mapping.last_heard + IDLE;
            if deadline <= cx.now {
                self.remove(cx, id);
            } else {
                self.timers.arm(&mut mapping.armed, id, deadline);
            }
        }
    }

    pub(crate) fn remove_peer<S: Session>(&mut self, cx: &mut Context<'_, S>, peer: PeerIndex) {
        let of_peer = |(id, mapping): (EchoMapping, &Mapping)| (mapping.peer == peer).then_some(id);
        let gone: Vec<EchoMapping> = self.mappings.iter().filter_map(of_peer).collect();
        for id in gone {
            self.remove(cx, id);
        }
    }

    fn remove<S: Session>(&mut self, cx: &mut Context<'_, S>, id: EchoMapping) {
        let Some(mut mapping) = self.mappings.remove(id) else {
            return;
        };
        self.by_inside.remove(&mapping.inside);
        self.timers.disarm(&mut mapping.armed, id);
        cx.release_flow(mapping.peer);
        cx.output.commands.push(Command::EchoClose { mapping: id });
    }
}
