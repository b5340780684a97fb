//! TCP connections: terminated here, spliced to a socket outside.
//!
//! # Theory of operation
//!
//! A SYN from a peer makes a flow that is `Connecting`: the SYN is kept, the shell is told to
//! connect, and repeated SYNs find the flow and change nothing. The SYN is answered only when the
//! outside has answered: with a [`Terminator`] that plays the outside host, or with the reset or
//! the ICMP error that fits the failure. From then on bytes cross in both directions:
//!
//! ```text
//! peer --segments--> Terminator --tcp_receive--> socket --> outside
//! peer <--segments-- Terminator <---tcp_send---- socket <-- outside
//! ```
//!
//! Each buffer is bounded, and each end is read only when the other has room, so a slow side
//! slows the other down. A FIN crosses when everything before it has (`TcpShutdown` outwards,
//! [`Terminator::close`] inwards), each direction by itself; a reset crosses at once. When both
//! directions are finished the socket is released, and all that is left of the connection is its
//! entry in [`Lingering`], for TIME-WAIT.
//!
//! Work after an input is put off until [`TcpFlows::flush`], so that a batch of segments is
//! answered by few acknowledgements.

mod flight;
mod flow;
mod lingering;
mod memory;
mod recovery;
mod terminator;

use std::net::SocketAddrV4;
use std::time::Instant;

use foldhash::HashMap;
use slotmap::SlotMap;

use crate::context::Context;
use crate::output::{Command, TcpFlow};
use crate::packet::{Parsed, Unreachable, acknowledgement_of_end, ports_and_flags, verify_segment};
use crate::peers::PeerIndex;
use crate::session::Session;
use crate::timers::Timers;
use crate::turns::{QUANTUM, Turns};
use crate::{DropReason, Limits};
use flow::{Flow, State};
use lingering::Lingering;
use memory::CHUNK;
use terminator::{MAX_BURST, Phase, Room, Terminator};

/// A buffer of one direction, in bytes of address space: enough for 800 Mbit/s at 40 ms.
const BUFFER: usize = 4 * 1024 * 1024;

/// Bytes that a connection reads from the outside in its turn, and which are then encrypted: what
/// may be sent to a peer in one burst, in segments that fill a tunnel of 1420 bytes.
///
/// Windows would decide otherwise who gets the processor's time, and the widest would stay the
/// widest.
const TURN: usize = MAX_BURST * (1420 - 40);

/// Ends of connections that are kept for others: most connections are short, and what it takes to
/// make one is much of what they cost.
const MOST_SPARE: usize = 64;

/// Why the outside did not accept a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Nobody listens there.
    Refused,
    /// There is no way there, or no answer.
    Unreachable,
    /// The system has no descriptor or port left for us.
    NoResources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FlowKey {
    inside: SocketAddrV4,
    outside: SocketAddrV4,
}

/// All TCP connections.
#[derive(Debug, Default)]
pub(crate) struct TcpFlows {
    flows: SlotMap<TcpFlow, Flow>,
    by_key: HashMap<FlowKey, TcpFlow>,
    lingering: Lingering,
    timers: Timers<TcpFlow>,
    unsettled: Vec<TcpFlow>,
    /// Bytes of memory that buffers have touched.
    buffer_bytes: usize,
    room: Room,
    turns: Turns<TcpFlow>,
    #[expect(clippy::vec_box, reason = "flows hold boxes, which move in and out")]
    spare: Vec<Box<Terminator>>,
}

impl TcpFlows {
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let times = [self.timers.next(), self.turns.next_round()];
        times.into_iter().flatten().min()
    }

    /// The connection that is to be served next.
    pub(crate) fn next_turn(&mut self) -> Option<TcpFlow> {
        loop {
            // One that has ended since takes nothing from its peer's others.
            let flows = &self.flows;
            let cost = |id: &TcpFlow| if flows.contains_key(*id) { QUANTUM } else { 0 };
            let id = self.turns.pop(cost)?;
            if let Some(flow) = self.flows.get_mut(id) {
                flow.waits_for_turn = false;
                flow.turn_left = TURN;
                return Some(id);
            }
        }
    }

    /// Takes a segment of a peer.
    pub(crate) fn handle_segment<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        packet: &Parsed<'_>,
    ) -> Result<(), DropReason> {
        let segment = ports_and_flags(packet)?;
        let key = FlowKey {
            inside: segment.source,
            outside: segment.destination,
        };
        let Some(&id) = self.by_key.get(&key) else {
            if segment.opens() {
                // The peer may use its port again before TIME-WAIT is over (RFC 6191).
                self.lingering.remove(&key);
                return self.open(cx, peer, key, packet);
            }
            if self.lingering.contains(cx.now, &key) {
                verify_segment(packet)?;
                cx.answer(peer, |buffer| {
                    acknowledgement_of_end(buffer, packet).is_some()
                });
                return Ok(());
            }
            cx.answer_reset(peer, packet);
            return Err(DropReason::UnknownFlow);
        };
        let Some(flow) = self.flows.get_mut(id) else {
            return Err(DropReason::UnknownFlow);
        };
        match &mut flow.state {
            State::Connecting { .. } => {
                if segment.rst {
                    self.remove(cx, id, Ending::Reset);
                }
            }
            State::Open(terminator) => {
                verify_segment(packet)?;
                let left = cx.limits.tcp_buffer_bytes.saturating_sub(self.buffer_bytes);
                let Context {
                    peers, output, now, ..
                } = cx;
                let Some(entry) = peers.get(peer) else {
                    return Err(DropReason::UnknownPeer);
                };
                let taken = terminator.handle_packet(*now, packet.bytes, left, &mut |answer| {
                    output.send(*now, entry, answer);
                });
                recount(&mut self.buffer_bytes, &mut flow.buffer_bytes, terminator);
                flow.last_heard = cx.now;
                self.unsettle(id);
                taken?;
            }
        }
        Ok(())
    }

    fn open<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        peer: PeerIndex,
        key: FlowKey,
        packet: &Parsed<'_>,
    ) -> Result<(), DropReason> {
        verify_segment(packet)?;
        if cx
            .peers
            .get(peer)
            .is_none_or(|entry| entry.half_open >= cx.limits.half_open_per_peer)
        {
            cx.answer_reset(peer, packet);
            return Err(DropReason::HalfOpenLimit);
        }
        if let Err(reason) = cx.claim_flow(peer) {
            cx.answer_reset(peer, packet);
            return Err(reason);
        }
        if let Some(entry) = cx.peers.get(peer) {
            entry.half_open += 1;
        }
        let id = self.flows.insert(Flow::connecting(
            peer,
            key.inside,
            key.outside,
            packet.bytes,
            cx.now,
        ));
        self.by_key.insert(key, id);
        self.arm(id, cx.now);
        cx.output.commands.push(Command::TcpConnect {
            flow: id,
            destination: key.outside,
        });
        Ok(())
    }

    /// The outside has accepted: now the peer's SYN is answered.
    pub(crate) fn handle_connected<S: Session>(&mut self, cx: &mut Context<'_, S>, id: TcpFlow) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let State::Connecting { syn } = &flow.state else {
            return;
        };
        if self.buffer_bytes + 2 * CHUNK > cx.limits.tcp_buffer_bytes {
            cx.output.drop(DropReason::MemoryLimit);
            return self.fail(cx, id, ConnectFailure::NoResources);
        }
        let mtu = cx
            .peers
            .get(flow.peer)
            .map_or(popup_model::MIN_MTU, |entry| entry.spec.mtu);
        let seed = cx.random();
        let spare = self.spare.iter().rposition(|spare| spare.mtu() == mtu);
        let mut terminator = match spare {
            Some(index) => self.spare.swap_remove(index),
            None => Box::new(Terminator::new(cx.now, mtu, BUFFER, seed)),
        };
        terminator.accept(cx.now, flow.outside, syn);
        recount(&mut self.buffer_bytes, &mut flow.buffer_bytes, &terminator);
        flow.state = State::Open(terminator);
        flow.last_heard = cx.now;
        if let Some(entry) = cx.peers.get(flow.peer) {
            entry.half_open = entry.half_open.saturating_sub(1);
        }
        self.unsettle(id);
    }

    /// The outside has not accepted.
    pub(crate) fn fail<S: Session>(
        &mut self,
        cx: &mut Context<'_, S>,
        id: TcpFlow,
        failure: ConnectFailure,
    ) {
        let Some(flow) = self.flows.get(id) else {
            return;
        };
        if let State::Connecting { syn } = &flow.state
            && let Ok(syn) = Parsed::new(syn)
        {
            match failure {
                ConnectFailure::Refused | ConnectFailure::NoResources => {
                    cx.answer_reset(flow.peer, &syn)
                }
                ConnectFailure::Unreachable => {
                    cx.answer_unreachable(flow.peer, &syn, Unreachable::Host)
                }
            }
        }
        self.remove(cx, id, Ending::Reset);
    }

    /// Lends what the peer has sent to `take`. `None` when there is nothing.
    pub(crate) fn receive(
        &mut self,
        id: TcpFlow,
        take: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<usize> {
        let flow = self.flows.get_mut(id)?;
        let State::Open(terminator) = &mut flow.state else {
            return None;
        };
        if !terminator.has_received() {
            return None;
        }
        let taken = terminator.receive(take);
        self.unsettle(id);
        Some(taken)
    }

    /// Lends room for what the outside sends to `fill`. `None` when there is none, or when it is
    /// another's turn.
    pub(crate) fn send(
        &mut self,
        limits: &Limits,
        now: Instant,
        id: TcpFlow,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<usize> {
        let flow = self.flows.get_mut(id)?;
        let State::Open(terminator) = &mut flow.state else {
            return None;
        };
        let left = limits.tcp_buffer_bytes.saturating_sub(self.buffer_bytes);
        if flow.turn_left == 0 || !terminator.has_room(left) {
            flow.wants_room = true;
            self.unsettle(id);
            return None;
        }
        let filled = terminator.send(now, left, flow.turn_left, fill);
        flow.turn_left = flow.turn_left.saturating_sub(filled);
        self.turns.spend(filled);
        recount(&mut self.buffer_bytes, &mut flow.buffer_bytes, terminator);
        flow.wants_room = false;
        if filled > 0 {
            flow.last_sent = now;
        }
        self.unsettle(id);
        Some(filled)
    }

    /// The outside has said its last.
    pub(crate) fn handle_outside_finished(&mut self, id: TcpFlow) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if let State::Open(terminator) = &mut flow.state {
            terminator.close();
            flow.outside_finished = true;
            self.unsettle(id);
        }
    }

    /// The outside has broken off.
    pub(crate) fn handle_outside_reset(&mut self, id: TcpFlow) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if let State::Open(terminator) = &mut flow.state {
            terminator.abort();
            self.unsettle(id);
        }
    }

    /// Sends what is due and says what the shell has to do, for every flow that had input.
    pub(crate) fn flush<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        self.turns.begin_round(cx.now);
        while let Some(id) = self.unsettled.pop() {
            self.settle(cx, id);
        }
    }

    fn settle<S: Session>(&mut self, cx: &mut Context<'_, S>, id: TcpFlow) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.unsettled = false;
        let State::Open(terminator) = &mut flow.state else {
            return;
        };
        let Context {
            peers, output, now, ..
        } = cx;
        if let Some(entry) = peers.get(flow.peer) {
            terminator.poll_transmit(*now, &mut self.room, &mut |packet| {
                output.send(*now, entry, packet)
            });
        }
        if terminator.phase() == Phase::Closed {
            let ending = if flow.finished() {
                Ending::Finished
            } else {
                Ending::Reset
            };
            return self.remove(cx, id, ending);
        }
        let left = cx.limits.tcp_buffer_bytes.saturating_sub(self.buffer_bytes);
        let useful = terminator.has_received() || (flow.wants_room && terminator.has_room(left));
        if useful && !flow.waits_for_turn && !flow.released {
            flow.waits_for_turn = true;
            self.turns.push(flow.peer, id);
        }
        let lingers = terminator.phase() == Phase::Lingering;
        let finishes = terminator.peer_has_finished() && !flow.peer_finished;
        flow.peer_finished |= finishes;
        if flow.finished() && !flow.released {
            flow.released = true;
            output.commands.push(Command::TcpClose { flow: id });
        } else if finishes {
            output.commands.push(Command::TcpShutdown { flow: id });
        }
        if lingers && flow.finished() {
            let key = flow.key();
            self.remove(cx, id, Ending::Finished);
            return self.lingering.insert(cx.now, key);
        }
        self.arm(id, cx.now);
    }

    /// Runs the timers that are due.
    pub(crate) fn handle_timeout<S: Session>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(id) = self.timers.pop(cx.now) {
            let Some(flow) = self.flows.get_mut(id) else {
                continue;
            };
            flow.armed = None;
            let idle = flow.idle_deadline() <= cx.now;
            match &mut flow.state {
                State::Connecting { .. } if idle => self.fail(cx, id, ConnectFailure::Unreachable),
                State::Connecting { .. } => self.arm(id, cx.now),
                State::Open(terminator) => {
                    if idle {
                        terminator.abort();
                    }
                    self.unsettle(id);
                }
            }
        }
        self.flush(cx);
    }

    /// Ends every flow of a peer.
    pub(crate) fn remove_peer<S: Session>(&mut self, cx: &mut Context<'_, S>, peer: PeerIndex) {
        let of_peer = |(id, flow): (TcpFlow, &Flow)| (flow.peer == peer).then_some(id);
        let gone: Vec<TcpFlow> = self.flows.iter().filter_map(of_peer).collect();
        for id in gone {
            self.remove(cx, id, Ending::Reset);
        }
    }

    fn remove<S: Session>(&mut self, cx: &mut Context<'_, S>, id: TcpFlow, ending: Ending) {
        let Some(mut flow) = self.flows.remove(id) else {
            return;
        };
        self.by_key.remove(&flow.key());
        self.timers.disarm(&mut flow.armed, id);
        self.buffer_bytes -= flow.buffer_bytes;
        match flow.state {
            State::Connecting { .. } => {
                if let Some(entry) = cx.peers.get(flow.peer) {
                    entry.half_open = entry.half_open.saturating_sub(1);
                }
            }
            State::Open(terminator) => {
                if terminator.is_light() {
                    if self.spare.len() == MOST_SPARE {
                        self.spare.swap_remove(0); // It may be for an MTU that nobody has now.
                    }
                    self.spare.push(terminator);
                }
            }
        }
        cx.release_flow(flow.peer);
        if !flow.released {
            cx.output.commands.push(match ending {
                Ending::Finished => Command::TcpClose { flow: id },
                Ending::Reset => Command::TcpReset { flow: id },
            });
        }
    }

    fn arm(&mut self, id: TcpFlow, now: Instant) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let deadline = flow.deadline(now);
        self.timers.arm(&mut flow.armed, id, deadline);
    }

    fn unsettle(&mut self, id: TcpFlow) {
        if let Some(flow) = self.flows.get_mut(id)
            && !std::mem::replace(&mut flow.unsettled, true)
        {
            self.unsettled.push(id);
        }
    }
}

/// How a flow ends towards the outside.
enum Ending {
    Finished,
    Reset,
}

/// Brings the memory that a connection counts for up to date.
fn recount(total: &mut usize, counted: &mut usize, terminator: &Terminator) {
    let bytes = terminator.buffer_bytes();
    *total = *total - *counted + bytes;
    *counted = bytes;
}
