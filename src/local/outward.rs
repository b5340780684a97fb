//! The address from which this machine reaches others.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// For documentation only (RFC 5737), and so behind the default route wherever there is one.
const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Asks the routing table: connecting a UDP socket sends nothing. Without a route, loopback.
pub(super) fn address() -> IpAddr {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SOMEWHERE)?;
        socket.local_addr()
    };
    match ask() {
        Ok(address) if !address.ip().is_unspecified() => address.ip(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}
