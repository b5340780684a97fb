//! Which inside address and port belongs to which port outside.
//!
//! TCP is bound per connection, so that one port serves many remotes; UDP and ping are bound per
//! inside address and port, whoever they speak to (RFC 4787, REQ-1 and REQ-8).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use foldhash::HashMap;
use slotmap::{SlotMap, new_key_type};

use super::tracking::Tracking;
use crate::gateway::FlowCounts;
use crate::packet::{Protocol, TcpFlags};
use crate::peers::PeerIndex;
use crate::timers::{Armed, Timers};

new_key_type! {
    /// A binding. Never used twice.
    pub(crate) struct BindingId;
}

/// Connections that are over are remembered, for what still comes of them, up to this many.
const MAX_OVER: usize = 16_384;

/// The remote of a binding that has none of its own.
pub(crate) const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// An end of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Inside,
    Outside,
}

/// What a binding is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewBinding {
    pub(crate) protocol: Protocol,
    pub(crate) inside: SocketAddrV4,
    pub(crate) port: u16,
    pub(crate) remote: SocketAddrV4,
    pub(crate) tracking: Tracking,
}

/// A binding.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) peer: PeerIndex,
    pub(crate) protocol: Protocol,
    pub(crate) inside: SocketAddrV4,
    pub(crate) port: u16,
    /// [`ANY`] unless the binding is of one connection.
    pub(crate) remote: SocketAddrV4,
    pub(crate) tracking: Tracking,
    /// It is over and no longer counts as a flow.
    over: bool,
    heard_at: Instant,
    armed: Armed,
}

impl Binding {
    fn deadline(&self) -> Instant {
        self.heard_at + self.tracking.idle()
    }
}

type InsideKey = (Protocol, SocketAddrV4, SocketAddrV4);
type OutsideKey = (Protocol, u16, SocketAddrV4);

/// All bindings.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    bindings: SlotMap<BindingId, Binding>,
    by_inside: HashMap<InsideKey, BindingId>,
    by_outside: HashMap<OutsideKey, BindingId>,
    timers: Timers<BindingId>,
    /// Connections that are over, the oldest first; some may have gone already.
    over: VecDeque<BindingId>,
    counts: FlowCounts,
}

impl Bindings {
    /// How many are alive.
    pub(crate) fn counts(&self) -> FlowCounts {
        self.counts
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn get(&self, id: BindingId) -> Option<&Binding> {
        self.bindings.get(id)
    }

    pub(crate) fn of_inside(
        &self,
        protocol: Protocol,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<BindingId> {
        let remote = remote_of(protocol, remote);
        self.by_inside.get(&(protocol, inside, remote)).copied()
    }

    pub(crate) fn of_outside(
        &self,
        protocol: Protocol,
        port: u16,
        remote: SocketAddrV4,
    ) -> Option<BindingId> {
        let remote = remote_of(protocol, remote);
        self.by_outside.get(&(protocol, port, remote)).copied()
    }

    /// Makes a binding.
    pub(crate) fn insert(&mut self, now: Instant, peer: PeerIndex, new: NewBinding) -> BindingId {
        let NewBinding {
            protocol,
            inside,
            port,
            remote,
            tracking,
        } = new;
        let remote = remote_of(protocol, remote);
        let id = self.bindings.insert(Binding {
            peer,
            protocol,
            inside,
            port,
            remote,
            tracking,
            over: false,
            heard_at: now,
            armed: None,
        });
        self.by_inside.insert((protocol, inside, remote), id);
        self.by_outside.insert((protocol, port, remote), id);
        *self.count(protocol) += 1;
        self.arm(id);
        id
    }

    /// Takes note of a packet. What is returned is a binding whose peer gets its place back.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        id: BindingId,
        from: End,
        flags: Option<TcpFlags>,
    ) -> Option<PeerIndex> {
        let binding = self.bindings.get_mut(id)?;
        if binding.tracking.kept_alive_from(from) {
            binding.heard_at = now;
        }
        let (Tracking::Tcp(connection), Some(flags)) = (&mut binding.tracking, flags) else {
            return None;
        };
        let before = *connection;
        connection.note(from, flags);
        if *connection == before {
            return None;
        }
        let over = connection.is_over();
        let peer = binding.peer;
        let newly = over && !binding.over;
        if newly {
            binding.over = true;
            self.counts.tcp -= 1;
            self.over.push_back(id);
        }
        self.arm(id);
        newly.then_some(peer)
    }

    /// Whether the binding is over and has no place among the flows.
    pub(crate) fn is_over(&self, id: BindingId) -> bool {
        self.bindings.get(id).is_some_and(|binding| binding.over)
    }

    /// Lets a binding that was over live again; the caller has claimed a place for it.
    pub(crate) fn revive(&mut self, id: BindingId) {
        if let Some(binding) = self.bindings.get_mut(id) {
            binding.over = false;
            self.counts.tcp += 1;
        }
    }

    /// Keeps the longer of two times for a binding.
    pub(crate) fn track(&mut self, id: BindingId, tracking: Tracking) {
        if let Some(binding) = self.bindings.get_mut(id)
            && binding.tracking.idle() < tracking.idle()
        {
            binding.tracking = tracking;
        }
    }

    fn arm(&mut self, id: BindingId) {
        if let Some(binding) = self.bindings.get_mut(id) {
            let deadline = binding.deadline();
            self.timers.arm(&mut binding.armed, id, deadline);
        }
    }

    /// The oldest of those that are over, when there are too many.
    pub(crate) fn surplus(&mut self) -> Option<BindingId> {
        while self.over.len() > MAX_OVER {
            let oldest = self.over.pop_front()?;
            if self.is_over(oldest) {
                return Some(oldest);
            }
        }
        None
    }

    /// The next binding whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<BindingId> {
        while let Some(id) = self.timers.pop(now) {
            let Some(binding) = self.bindings.get_mut(id) else {
                continue;
            };
            binding.armed = None;
            if binding.deadline() <= now {
                return Some(id);
            }
            self.arm(id);
        }
        None
    }

    /// Takes a binding out. True in the second place when it still counted as a flow.
    pub(crate) fn remove(&mut self, id: BindingId) -> Option<(Binding, bool)> {
        let mut binding = self.bindings.remove(id)?;
        let Binding {
            protocol,
            inside,
            port,
            remote,
            ..
        } = binding;
        self.by_inside.remove(&(protocol, inside, remote));
        self.by_outside.remove(&(protocol, port, remote));
        self.timers.disarm(&mut binding.armed, id);
        let counted = !binding.over;
        if counted {
            *self.count(protocol) -= 1;
        }
        if self.bindings.is_empty() {
            self.over.clear();
        }
        Some((binding, counted))
    }

    /// The bindings that `choose` chooses. Slow: for changes of the configuration.
    pub(crate) fn select(&self, choose: impl Fn(&Binding) -> bool) -> Vec<BindingId> {
        let chosen = self.bindings.iter().filter(|(_, binding)| choose(binding));
        chosen.map(|(id, _)| id).collect()
    }

    fn count(&mut self, protocol: Protocol) -> &mut usize {
        match protocol {
            Protocol::Tcp => &mut self.counts.tcp,
            Protocol::Udp => &mut self.counts.udp,
            Protocol::Echo => &mut self.counts.icmp,
        }
    }
}

fn remote_of(protocol: Protocol, remote: SocketAddrV4) -> SocketAddrV4 {
    match protocol {
        Protocol::Tcp => remote,
        Protocol::Udp | Protocol::Echo => ANY,
    }
}
