//! Short and silent connections, many at once, on one thread.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{ECHO, HOLD, HTTP};

const PORTS: [u16; 3] = [ECHO, HTTP, HOLD];

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhello world\n";

/// Serves the three ports until the process ends.
pub(super) fn serve(address: Ipv4Addr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listeners = Vec::new();
    for (index, port) in PORTS.into_iter().enumerate() {
        let mut listener = listen(SocketAddr::from((address, port)))?;
        poll.registry()
            .register(&mut listener, Token(index), Interest::READABLE)?;
        listeners.push(listener);
    }
    let mut streams: HashMap<Token, TcpStream> = HashMap::new();
    let mut next = PORTS.len();
    let mut events = Events::with_capacity(1024);
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for event in &events {
            if let Some(listener) = listeners.get(event.token().0) {
                let port = PORTS[event.token().0];
                while let Ok((mut stream, _)) = listener.accept() {
                    if port != HTTP {
                        stream.write_all(b"!").ok();
                    }
                    if port == ECHO {
                        continue;
                    }
                    next += 1;
                    poll.registry()
                        .register(&mut stream, Token(next), Interest::READABLE)?;
                    streams.insert(Token(next), stream);
                }
            } else if let Some(stream) = streams.get_mut(&event.token()) {
                let mut request = [0; 2048];
                match stream.read(&mut request) {
                    // A request for a connection of its own is always in one segment.
                    Ok(1..) => {
                        stream.write_all(ANSWER).ok();
                        streams.remove(&event.token());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => drop(streams.remove(&event.token())),
                }
            }
        }
    }
}

/// With a queue that no burst of the bench can overflow.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}
