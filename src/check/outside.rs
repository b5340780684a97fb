//! The way to the gateway: the endpoint's address, and a socket to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::conf::Endpoint;
use super::diagnosis::Failure;

/// What the socket holds while the tunnel is busy; the system may give less.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// A socket connected to the first of the endpoint's addresses that this machine can send to.
pub(super) async fn open(
    endpoint: &Endpoint,
    patience: Duration,
) -> Result<(UdpSocket, SocketAddr), Failure> {
    let unresolved = || Failure::Resolve(endpoint.host.clone());
    let addresses = timeout(
        patience,
        lookup_host((endpoint.host.as_str(), endpoint.port)),
    )
    .await;
    let mut failure = unresolved();
    for address in addresses
        .map_err(|_| unresolved())?
        .map_err(|_| unresolved())?
    {
        match connect_udp(address).await {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => failure = Failure::NoRoute(address, error.kind()),
        }
    }
    Err(failure)
}

async fn connect_udp(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if endpoint.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(endpoint).await?;
    // Less than asked for only makes the fetch slower.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
    Ok(socket)
}

/// A name's IPv4 addresses as this machine finds them, not through the tunnel.
pub(super) async fn resolve(
    name: &str,
    port: u16,
    patience: Duration,
) -> Result<(Vec<Ipv4Addr>, String), Failure> {
    let not_found = || Failure::NameNotFound(name.to_owned());
    let found = timeout(patience, lookup_host((name, port))).await;
    let found = found.map_err(|_| not_found())?.map_err(|_| not_found())?;
    let addresses: Vec<Ipv4Addr> = found
        .filter_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
        .collect();
    if addresses.is_empty() {
        return Err(not_found());
    }
    Ok((
        addresses,
        "this machine: the file names no server inside the tunnel".to_owned(),
    ))
}
