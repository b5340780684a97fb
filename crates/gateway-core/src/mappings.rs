//! Bindings of something inside to a socket outside, which end when they are silent for too long.
//!
//! Only what a peer sends keeps a mapping alive (RFC 4787, REQ-6): nobody outside can.

use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use slotmap::{Key, SlotMap};

use crate::DropReason;
use crate::context::Context;
use crate::output::{Command, EchoMapping, UdpMapping};
use crate::peers::PeerIndex;
use crate::session::Session;
use crate::timers::{Armed, Timers};

/// Identifies a mapping to the shell, which opens and closes its socket.
pub(crate) trait MappingKey: Key {
    fn open(self) -> Command<'static>;
    fn close(self) -> Command<'static>;
}

impl MappingKey for UdpMapping {
    fn open(self) -> Command<'static> {
        Command::UdpOpen { mapping: self }
    }

    fn close(self) -> Command<'static> {
        Command::UdpClose { mapping: self }
    }
}

impl MappingKey for EchoMapping {
    fn open(self) -> Command<'static> {
        Command::EchoOpen { mapping: self }
    }

    fn close(self) -> Command<'static> {
        Command::EchoClose { mapping: self }
    }
}

/// One binding.
#[derive(Debug)]
pub(crate) struct Mapping<I> {
    pub(crate) peer: PeerIndex,
    pub(crate) inside: I,
    last_heard: Instant,
    idle: Duration,
    armed: Armed,
}

impl<I> Mapping<I> {
    fn deadline(&self) -> Instant {
        self.last_heard + self.idle
    }
}

/// All bindings of one kind.
#[derive(Debug)]
pub(crate) struct Mappings<K: Key, I> {
    mappings: SlotMap<K, Mapping<I>>,
    by_inside: HashMap<I, K>,
    timers: Timers<K>,
}

impl<K: Key, I> Default for Mappings<K, I> {
    fn default() -> Self {
        Self {
            mappings: SlotMap::with_key(),
            by_inside: HashMap::default(),
            timers: Timers::default(),
        }
    }
}

impl<K: MappingKey, I: Copy + Eq + Hash> Mappings<K, I> {
    pub(crate) fn len(&self) -> usize {
        self.mappings.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn get(&self, id: K) -> Option<&Mapping<I>> {
        self.mappings.get(id)
    }

    /// The mapping of `inside`, made now if there is none, and kept for at least `idle` from now.
    pub(crate) fn touch<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        inside: I,
        idle: Duration,
    ) -> Result<K, DropReason> {
        let id = match self.by_inside.get(&inside) {
            Some(id) => *id,
            None => self.open(cx, peer, inside, idle)?,
        };
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.last_heard = cx.now;
            mapping.idle = mapping.idle.max(idle);
            let deadline = mapping.deadline();
            self.timers.arm(&mut mapping.armed, id, deadline);
        }
        Ok(id)
    }

    fn open<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        inside: I,
        idle: Duration,
    ) -> Result<K, DropReason> {
        cx.claim_flow(peer)?;
        let id = self.mappings.insert(Mapping {
            peer,
            inside,
            last_heard: cx.now,
            idle,
            armed: None,
        });
        self.by_inside.insert(inside, id);
        cx.output.commands.push(id.open());
        Ok(id)
    }

    /// Gives up a mapping whose socket could not be opened or has failed.
    pub(crate) fn handle_failed<S: Session>(&mut self, cx: &mut Context<'_, S>, id: K) {
        if self.mappings.contains_key(id) {
            cx.output.drop(DropReason::SendFailed);
            self.remove(cx, id);
        }
    }

    /// Ends what has been silent for too long.
    pub(crate) fn handle_timeout<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(id) = self.timers.pop(cx.now) {
            let Some(mapping) = self.mappings.get_mut(id) else {
                continue;
            };
            mapping.armed = None;
            let deadline = mapping.deadline();
            if deadline <= cx.now {
                self.remove(cx, id);
            } else {
                self.timers.arm(&mut mapping.armed, id, deadline);
            }
        }
    }

    /// Ends every mapping of a peer.
    pub(crate) fn remove_peer<S: Session>(&mut self, cx: &mut Context<'_, S>, peer: PeerIndex) {
        let of_peer = |(id, mapping): (K, &Mapping<I>)| (mapping.peer == peer).then_some(id);
        let gone: Vec<K> = self.mappings.iter().filter_map(of_peer).collect();
        for id in gone {
            self.remove(cx, id);
        }
    }

    fn remove<S: Session>(&mut self, cx: &mut Context<'_, S>, id: K) {
        let Some(mut mapping) = self.mappings.remove(id) else {
            return;
        };
        self.by_inside.remove(&mapping.inside);
        self.timers.disarm(&mut mapping.armed, id);
        cx.release_flow(mapping.peer);
        cx.output.commands.push(id.close());
    }
}
