//! Who a packet is given to: the neighbour's Ethernet address, as the system has learned it.
//!
//! Read again every few seconds while packets are sent, and sooner for a neighbour that is not
//! known. What the system does not know yet is left to it: the packet goes through its own stack,
//! which finds the neighbour out, and is not lost.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use super::network::{Mac, Network, Outside, Routes};

/// How long an answer of the system is used.
const REFRESH: Duration = Duration::from_secs(5);

/// How soon it is asked again for a neighbour that it did not know.
const RETRY: Duration = Duration::from_millis(10);

/// Neighbours that are remembered; Linux itself keeps 1024 (`gc_thresh3`).
const MOST_NEIGHBOURS: usize = 4_096;

/// Set in the first byte of an Ethernet address that many share (the I/G bit of IEEE 802).
const GROUP: u8 = 1;

/// How a packet is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// To this neighbour.
    To(Mac),
    /// To this neighbour, but one packet should go through the system, which has not heard from
    /// the neighbour for a while and would otherwise never notice that it has moved.
    Confirm(Mac),
    /// The system does not know the neighbour yet.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbour {
    mac: Mac,
    stale: bool,
}

#[derive(Debug)]
pub(super) struct NextHops {
    netlink: Netlink,
    outside: Outside,
    routes: Routes,
    neighbours: HashMap<Ipv4Addr, Neighbour>,
    network_read_at: Instant,
    neighbours_read_at: Option<Instant>,
    complained: bool,
}

impl NextHops {
    pub(super) fn new(netlink: Netlink, outside: Outside, routes: Routes) -> Self {
        Self {
            netlink,
            outside,
            routes,
            neighbours: HashMap::new(),
            network_read_at: Instant::now(),
            neighbours_read_at: None,
            complained: false,
        }
    }

    pub(super) fn outside(&self) -> &Outside {
        &self.outside
    }

    /// How a packet to `destination` is to go.
    pub(super) fn hop(&mut self, now: Instant, destination: Ipv4Addr) -> Hop {
        if now.saturating_duration_since(self.network_read_at) >= REFRESH {
            self.network_read_at = now;
            self.read_network();
        }
        let Some(neighbour) = self.routes.next_hop(destination) else {
            return Hop::Unknown;
        };
        let known = self.neighbours.contains_key(&neighbour);
        let patience = if known { REFRESH } else { RETRY };
        let due = |at: Instant| now.saturating_duration_since(at) >= patience;
        if self.neighbours_read_at.is_none_or(due) {
            self.neighbours_read_at = Some(now);
            if let Err(error) = self.read_neighbours() {
                tracing::debug!("the neighbours cannot be read: {error}");
            }
        }
        match self.neighbours.get_mut(&neighbour) {
            None => Hop::Unknown,
            Some(neighbour) if neighbour.stale => {
                neighbour.stale = false;
                Hop::Confirm(neighbour.mac)
            }
            Some(neighbour) => Hop::To(neighbour.mac),
        }
    }

    fn read_network(&mut self) {
        let found = Network::read(&mut self.netlink).map_err(Into::into);
        match found.and_then(|network| network.way_out()) {
            Ok((outside, routes)) => {
                let same = (outside.index, outside.address, outside.mac)
                    == (self.outside.index, self.outside.address, self.outside.mac);
                if same {
                    self.routes = routes;
                    self.complained = false;
                } else {
                    self.complain("another interface or address leads out now");
                }
            }
            Err(error) => self.complain(&error.to_string()),
        }
    }

    fn complain(&mut self, what: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("packets go on leaving as they did at the start, though {what}");
        }
    }

    fn read_neighbours(&mut self) -> io::Result<()> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet;
        let (neighbours, interface) = (&mut self.neighbours, self.outside.index);
        neighbours.clear();
        self.netlink
            .dump(RouteNetlinkMessage::GetNeighbour(request), |message| {
                if let RouteNetlinkMessage::NewNeighbour(message) = message
                    && message.header.ifindex == interface
                    && neighbours.len() < MOST_NEIGHBOURS
                {
                    neighbours.extend(neighbour_of(&message));
                }
            })
    }
}

/// A neighbour that packets can be given to.
fn neighbour_of(message: &NeighbourMessage) -> Option<(Ipv4Addr, Neighbour)> {
    let stale = match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => false,
        NeighbourState::Stale => true,
        _ => return None,
    };
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ipv4)) => address = Some(*ipv4),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = Mac::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    // A group is nobody to route by, and everybody on the link would hear what is for one
    // (RFC 1812, section 3.3.2).
    let mac = mac.filter(|mac| mac[0] & GROUP == 0);
    Some((address?, Neighbour { mac: mac?, stale }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
        ];
        message
    }

    #[test]
    fn a_neighbour_that_does_not_answer_is_none() {
        for state in [
            NeighbourState::Failed,
            NeighbourState::Incomplete,
            NeighbourState::None,
        ] {
            assert_eq!(neighbour_of(&message(state)), None);
        }
        let (address, neighbour) = neighbour_of(&message(NeighbourState::Stale)).unwrap();
        assert_eq!(address, Ipv4Addr::new(192, 0, 2, 1));
        assert!(neighbour.stale && neighbour.mac == [2, 0, 0, 0, 0, 9]);
        let reachable = neighbour_of(&message(NeighbourState::Reachable)).unwrap();
        assert!(!reachable.1.stale);
    }

    #[test]
    fn a_neighbour_whose_address_is_a_groups_is_none() {
        for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 9], [3, 0, 0, 0, 0, 1]] {
            let mut message = message(NeighbourState::Permanent);
            message.attributes[1] = NeighbourAttribute::LinkLayerAddress(group.to_vec());
            assert_eq!(neighbour_of(&message), None, "{group:?}");
        }
    }

    #[test]
    fn a_neighbour_without_an_ethernet_address_is_none() {
        let mut message = message(NeighbourState::Reachable);
        message.attributes.truncate(1);
        assert_eq!(neighbour_of(&message), None);
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(vec![1, 2, 3, 4]));
        assert_eq!(neighbour_of(&message), None);
    }
}
