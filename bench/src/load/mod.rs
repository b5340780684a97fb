//! The work that is done through a server, from the client's machine.

pub(crate) mod bulk;
pub(crate) mod flows;
pub(crate) mod http;
pub(crate) mod latency;
pub(crate) mod udp;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connects with this congestion control to the internet's address number `endpoint`, from `source` if there is one.
pub(crate) fn connect(
    congestion: &str,
    source: Option<Ipv4Addr>,
    endpoint: usize,
    port: u16,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_congestion(congestion.as_bytes())?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    let address = SocketAddr::from((crate::lab::endpoint(endpoint), port));
    socket.connect_timeout(&address.into(), Duration::from_secs(10))?;
    Ok(socket.into())
}
