//! The internet, as the core's commands find it.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use popup_gateway_core::{
    Command, ConnectFailure, EchoMapping, Gateway, TcpFlow, Transport, UdpMapping,
};

use super::counting::during;
use super::plain::Plain;

/// What happens to a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    Refuse,
    Unreachable,
    Silence,
}

/// The outside end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) received: Vec<u8>,
    /// What it will send, and how much of that it has sent.
    pub(crate) to_send: Vec<u8>,
    pub(crate) sent: usize,
    /// It reads no more than this many bytes.
    pub(crate) reads_at_most: Option<usize>,
    /// Its end follows its last byte.
    pub(crate) ends: bool,
    pub(crate) end_reported: bool,
    pub(crate) peer_finished: bool,
    pub(crate) closed: bool,
    pub(crate) reset: bool,
    pub(crate) connected: bool,
}

#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) answer: Answer,
    pub(crate) connects: Vec<SocketAddrV4>,
    pub(crate) connections: HashMap<TcpFlow, Connection>,
    /// Given to each new connection.
    pub(crate) greeting: Vec<u8>,
    pub(crate) greeting_ends: bool,
    pub(crate) reads_at_most: Option<usize>,
    pub(crate) datagrams: Vec<(UdpMapping, SocketAddrV4, Vec<u8>)>,
    /// Calls that sent them.
    pub(crate) sends: usize,
    pub(crate) mappings_opened: Vec<UdpMapping>,
    pub(crate) mappings_closed: Vec<UdpMapping>,
    pub(crate) pings: Vec<(EchoMapping, Ipv4Addr, u16, Vec<u8>)>,
    /// Ports held for the raw way out.
    pub(crate) ports: HashSet<(Transport, u16)>,
}

impl Default for Outside {
    fn default() -> Self {
        Self {
            answer: Answer::Accept,
            connects: Vec::new(),
            connections: HashMap::new(),
            greeting: Vec::new(),
            greeting_ends: false,
            reads_at_most: None,
            datagrams: Vec::new(),
            sends: 0,
            mappings_opened: Vec::new(),
            mappings_closed: Vec::new(),
            ports: HashSet::new(),
            pings: Vec::new(),
        }
    }
}

/// What is to be reported to the gateway after a command.
enum Follow {
    Nothing,
    Connected(TcpFlow),
    Failed(TcpFlow, ConnectFailure),
    Pump(TcpFlow),
}

impl Outside {
    /// The only connection there is.
    pub(crate) fn only(&mut self) -> &mut Connection {
        assert_eq!(self.connections.len(), 1, "one connection is expected");
        self.connections.values_mut().next().unwrap()
    }

    /// Takes one command; false when there is none.
    pub(crate) fn run_command(
        &mut self,
        gateway: &mut Gateway<Plain>,
        now: std::time::Instant,
    ) -> bool {
        let follow = match during(|| gateway.poll_command()) {
            None => return false,
            Some(Command::TcpConnect { flow, destination }) => {
                self.connects.push(destination);
                let connection = Connection {
                    to_send: self.greeting.clone(),
                    ends: self.greeting_ends,
                    reads_at_most: self.reads_at_most,
                    ..Connection::default()
                };
                self.connections.insert(flow, connection);
                match self.answer {
                    Answer::Accept => Follow::Connected(flow),
                    Answer::Refuse => Follow::Failed(flow, ConnectFailure::Refused),
                    Answer::Unreachable => Follow::Failed(flow, ConnectFailure::Unreachable),
                    Answer::Silence => Follow::Nothing,
                }
            }
            Some(Command::TcpReady { flow }) => {
                let connection = &self.connections[&flow];
                assert!(!connection.closed && !connection.reset, "it is over");
                Follow::Pump(flow)
            }
            Some(Command::TcpShutdown { flow }) => {
                self.connections.get_mut(&flow).unwrap().peer_finished = true;
                Follow::Nothing
            }
            Some(Command::TcpClose { flow }) => {
                self.connections.get_mut(&flow).unwrap().closed = true;
                Follow::Nothing
            }
            Some(Command::TcpReset { flow }) => {
                self.connections.get_mut(&flow).unwrap().reset = true;
                Follow::Nothing
            }
            Some(Command::UdpOpen { mapping }) => {
                self.mappings_opened.push(mapping);
                Follow::Nothing
            }
            Some(Command::UdpSend {
                mapping,
                destination,
                payload,
                segment_size,
            }) => {
                self.sends += 1;
                if payload.is_empty() {
                    self.datagrams.push((mapping, destination, Vec::new()));
                }
                let datagrams = payload.chunks(segment_size.max(1));
                self.datagrams
                    .extend(datagrams.map(|datagram| (mapping, destination, datagram.to_vec())));
                Follow::Nothing
            }
            Some(Command::UdpClose { mapping }) => {
                self.mappings_closed.push(mapping);
                Follow::Nothing
            }
            Some(Command::EchoSend {
                mapping,
                destination,
                sequence,
                data,
            }) => {
                self.pings
                    .push((mapping, destination, sequence, data.to_vec()));
                Follow::Nothing
            }
            Some(Command::EchoOpen { .. } | Command::EchoClose { .. }) => Follow::Nothing,
            Some(Command::PortOpen { transport, port }) => {
                assert!(self.ports.insert((transport, port)), "a port opened twice");
                Follow::Nothing
            }
            Some(Command::PortClose { transport, port }) => {
                assert!(self.ports.remove(&(transport, port)), "a port closed twice");
                Follow::Nothing
            }
        };
        match follow {
            Follow::Nothing => {}
            Follow::Connected(flow) => self.accept(gateway, now, flow),
            Follow::Failed(flow, failure) => gateway.handle_tcp_failed(now, flow, failure),
            Follow::Pump(flow) => self.pump(gateway, now, flow),
        }
        true
    }

    /// Answers a connect that was left in silence.
    pub(crate) fn accept(
        &mut self,
        gateway: &mut Gateway<Plain>,
        now: std::time::Instant,
        flow: TcpFlow,
    ) {
        self.connections.get_mut(&flow).unwrap().connected = true;
        gateway.handle_tcp_connected(now, flow);
        self.pump(gateway, now, flow);
    }

    /// Moves what can be moved, as the shell does.
    pub(crate) fn pump(
        &mut self,
        gateway: &mut Gateway<Plain>,
        now: std::time::Instant,
        flow: TcpFlow,
    ) {
        let Some(connection) = self.connections.get_mut(&flow) else {
            return;
        };
        if !connection.connected || connection.closed || connection.reset {
            return;
        }
        loop {
            let left = connection
                .reads_at_most
                .map_or(usize::MAX, |most| most - connection.received.len());
            if left == 0 {
                break;
            }
            let received = &mut connection.received;
            let taken = gateway.tcp_receive(flow, |bytes| {
                let taken = bytes.len().min(left);
                received.extend(&bytes[..taken]);
                taken
            });
            if taken.is_none() {
                break;
            }
        }
        while connection.sent < connection.to_send.len() {
            let rest = &connection.to_send[connection.sent..];
            let filled = gateway.tcp_send(now, flow, |room| {
                let filled = room.len().min(rest.len());
                room[..filled].copy_from_slice(&rest[..filled]);
                filled
            });
            match filled {
                Some(filled) => connection.sent += filled,
                None => break,
            }
        }
        if connection.ends
            && connection.sent == connection.to_send.len()
            && !connection.end_reported
        {
            connection.end_reported = true;
            gateway.handle_tcp_finished(flow);
        }
    }
}
