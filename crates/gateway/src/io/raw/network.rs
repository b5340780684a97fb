//! The way out as the system knows it: the default route's interface, its address, and where
//! packets go from there.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// Routes that are looked at; the first of a longer table.
const MOST_ROUTES: usize = 4_096;

/// The interface that leads out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) mtu: u16,
    pub(super) address: Ipv4Addr,
}

/// Why there is no way out that raw mode can use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWayOut {
    #[error("the routes cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("there is no default route by one interface")]
    NoDefaultRoute,
    #[error("{0}, which leads out, is no Ethernet interface")]
    NotEthernet(String),
    #[error("{0}, which leads out, has no IPv4 address")]
    NoAddress(String),
}

/// Where packets go from the outside interface, most specific first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Routes(Vec<(Ipv4Net, Option<Ipv4Addr>)>);

impl Routes {
    /// The neighbour to which a packet is given.
    pub(super) fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let mut matching = self
            .0
            .iter()
            .filter(|(network, _)| network.contains(&destination));
        matching
            .next()
            .map(|(_, gateway)| gateway.unwrap_or(destination))
    }
}

/// What the system says.
#[derive(Debug, Default)]
pub(super) struct Network {
    routes: Vec<Route>,
    links: Vec<Link>,
    addresses: Vec<(u32, Ipv4Net)>,
}

#[derive(Debug, Clone)]
struct Route {
    interface: u32,
    to: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    source: Option<Ipv4Addr>,
    metric: u32,
}

#[derive(Debug, Clone)]
struct Link {
    index: u32,
    name: String,
    mac: Option<Mac>,
    mtu: u32,
}

impl Network {
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let mut network = Self::default();
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        netlink.dump(RouteNetlinkMessage::GetRoute(request), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message
                && network.routes.len() < MOST_ROUTES
            {
                network.routes.extend(Route::of(&route));
            }
        })?;
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        netlink.dump(request, |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                network.links.extend(Link::of(&link));
            }
        })?;
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        netlink.dump(RouteNetlinkMessage::GetAddress(request), |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                network.addresses.extend(address_of(&address));
            }
        })?;
        Ok(network)
    }

    /// The interface that leads out, and the routes by it.
    pub(super) fn way_out(&self) -> Result<(Outside, Routes), NoWayOut> {
        let defaults = self
            .routes
            .iter()
            .filter(|route| route.to.prefix_len() == 0);
        let default = defaults
            .min_by_key(|route| route.metric)
            .ok_or(NoWayOut::NoDefaultRoute)?;
        let link = self
            .links
            .iter()
            .find(|link| link.index == default.interface)
            .ok_or(NoWayOut::NoDefaultRoute)?;
        let name = link.name.clone();
        let mac = link
            .mac
            .ok_or_else(|| NoWayOut::NotEthernet(name.clone()))?;
        let outside = Outside {
            index: link.index,
            mac,
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            address: self
                .address(default)
                .ok_or_else(|| NoWayOut::NoAddress(name.clone()))?,
            name,
        };
        Ok((outside, self.routes_by(default.interface)))
    }

    /// What packets by this route are sent from: what it says itself, else the address on the
    /// gateway's network, else the first.
    fn address(&self, route: &Route) -> Option<Ipv4Addr> {
        let own = self
            .addresses
            .iter()
            .filter(|(interface, _)| *interface == route.interface)
            .map(|(_, address)| address);
        let beside_gateway = own
            .clone()
            .find(|own| route.gateway.is_some_and(|gateway| own.contains(&gateway)));
        let address = beside_gateway.or(own.clone().next());
        route.source.or(address.map(Ipv4Net::addr))
    }

    fn routes_by(&self, interface: u32) -> Routes {
        let mut routes: Vec<&Route> = self
            .routes
            .iter()
            .filter(|route| route.interface == interface)
            .collect();
        routes.sort_by_key(|route| (std::cmp::Reverse(route.to.prefix_len()), route.metric));
        let hops = routes.iter().map(|route| (route.to, route.gateway));
        Routes(hops.collect())
    }
}

impl Route {
    /// A unicast route of the main table by one interface.
    fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
            return None;
        }
        let mut destination = Ipv4Addr::UNSPECIFIED;
        let (mut interface, mut gateway, mut source, mut metric) = (None, None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Priority(priority) => metric = *priority,
                // A gateway of another family: its link-layer address is not where we look.
                RouteAttribute::Via(_) => return None,
                _ => {}
            }
        }
        Some(Self {
            interface: interface?,
            to: Ipv4Net::new(destination, header.destination_prefix_length).ok()?,
            gateway,
            source,
            metric,
        })
    }
}

impl Link {
    fn of(message: &LinkMessage) -> Option<Self> {
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        let (mut name, mut mac, mut mtu) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
                LinkAttribute::Address(bytes) if ethernet => {
                    mac = Mac::try_from(bytes.as_slice()).ok();
                }
                _ => {}
            }
        }
        Some(Self {
            index: message.header.index,
            name: name?,
            mac,
            mtu: mtu?,
        })
    }
}

fn address_of(message: &AddressMessage) -> Option<(u32, Ipv4Net)> {
    let header = &message.header;
    if header.flags.contains(AddressHeaderFlags::Secondary) {
        return None;
    }
    // On a point-to-point link the address is the neighbour's, and the local one is ours.
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => own = Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) => own = own.or(Some(*address)),
            _ => {}
        }
    }
    Some((header.index, Ipv4Net::new(own?, header.prefix_len).ok()?))
}

#[cfg(test)]
mod tests;
