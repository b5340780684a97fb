//! The host's own addresses, which no client may reach.

use std::net::Ipv4Addr;

/// Every IPv4 address of every interface of this network namespace.
pub(crate) fn own_ipv4_addresses() -> std::io::Result<Vec<Ipv4Addr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            address
                .as_sockaddr_in()
                .map(nix::sys::socket::SockaddrIn::ip)
        })
        .collect())
}
