//! The outside ends of TCP connections.
//!
//! Invariant: a socket is read only into room that the peer's side has, and written only from
//! what the peer has sent, so nothing is buffered here and a slow side slows the other down.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use popup_gateway_core::session::Interface;
use popup_gateway_core::{ConnectFailure, Gateway, TcpFlow};
use slotmap::SecondaryMap;
use socket2::SockRef;

use super::registry::{Owner, Registry};

#[derive(Debug)]
struct Splice {
    stream: TcpStream,
    token: Token,
    connected: bool,
    /// There may be something to read. Edge-triggered: true until a read would block.
    readable: bool,
    /// There may be room to write, in the same way.
    writable: bool,
    /// A short read does not mean that all was read. The outside has said its last, and no event
    /// will tell of that again; or it has said something urgent, at which the kernel ends a read
    /// (`tcp_recvmsg_locked` in Linux).
    reads_on: bool,
}

#[derive(Debug, Default)]
pub(super) struct Splices(SecondaryMap<TcpFlow, Splice>);

impl Splices {
    pub(super) fn connect<I: Interface>(
        &mut self,
        gateway: &mut Gateway<I>,
        poll: &mio::Registry,
        registry: &mut Registry,
        flow: TcpFlow,
        destination: SocketAddrV4,
    ) {
        let opened = TcpStream::connect(destination.into()).and_then(|mut stream| {
            let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
            let token = registry.register(poll, &mut stream, Owner::Tcp(flow), all)?;
            Ok((stream, token))
        });
        match opened {
            Ok((stream, token)) => {
                let splice = Splice {
                    stream,
                    token,
                    connected: false,
                    readable: false,
                    writable: false,
                    reads_on: false,
                };
                self.0.insert(flow, splice);
            }
            Err(error) => gateway.handle_tcp_failed(Instant::now(), flow, failure(&error)),
        }
    }

    pub(super) fn handle_event<I: Interface>(
        &mut self,
        gateway: &mut Gateway<I>,
        now: Instant,
        flow: TcpFlow,
        event: &Event,
    ) {
        let Some(splice) = self.0.get_mut(flow) else {
            return;
        };
        if !splice.connected {
            match outcome(&splice.stream, event) {
                Ok(false) => return,
                Ok(true) => {
                    splice.connected = true;
                    let socket = SockRef::from(&splice.stream);
                    // The peer's segments come as it cut them; waiting to join them adds delay.
                    let _ = socket.set_tcp_nodelay(true);
                    // Ends connections whose outside has vanished long before the idle limit.
                    let keepalive =
                        socket2::TcpKeepalive::new().with_time(Duration::from_secs(600));
                    let _ = socket.set_tcp_keepalive(&keepalive);
                    gateway.handle_tcp_connected(now, flow);
                }
                Err(error) => return gateway.handle_tcp_failed(now, flow, failure(&error)),
            }
        }
        let ending = event.is_read_closed() || event.is_error();
        splice.reads_on |= ending || event.is_priority();
        splice.readable |= event.is_readable() || splice.reads_on;
        splice.writable |= event.is_writable() || event.is_error();
        self.pump(gateway, now, flow);
    }

    /// Moves what can be moved, in both directions.
    pub(super) fn pump<I: Interface>(
        &mut self,
        gateway: &mut Gateway<I>,
        now: Instant,
        flow: TcpFlow,
    ) {
        let Some(splice) = self.0.get_mut(flow).filter(|splice| splice.connected) else {
            return;
        };
        let mut broken = false;
        while splice.writable && !broken {
            let taken = gateway.tcp_receive(flow, |bytes| match splice.stream.write(bytes) {
                Ok(written) => written,
                Err(error) => {
                    splice.writable = error.kind() == ErrorKind::Interrupted;
                    broken =
                        !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock);
                    0
                }
            });
            if taken.is_none() {
                break;
            }
        }
        let mut finished = false;
        while splice.readable && !broken {
            let filled = gateway.tcp_send(now, flow, |room| match splice.stream.read(room) {
                Ok(0) => {
                    (splice.readable, finished) = (false, true);
                    0
                }
                Ok(read) => {
                    // What comes after a read that left room is told by another event.
                    splice.readable = read == room.len() || splice.reads_on;
                    read
                }
                Err(error) => {
                    splice.readable = error.kind() == ErrorKind::Interrupted;
                    broken =
                        !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock);
                    0
                }
            });
            if filled.is_none() {
                break;
            }
        }
        if broken {
            gateway.handle_tcp_reset(flow);
        } else if finished {
            gateway.handle_tcp_finished(flow);
        }
    }

    pub(super) fn shutdown(&mut self, flow: TcpFlow) {
        if let Some(splice) = self.0.get(flow) {
            let _ = splice.stream.shutdown(Shutdown::Write);
        }
    }

    /// Releases the socket; `abort` lets the outside see a reset instead of an end.
    pub(super) fn close(&mut self, registry: &mut Registry, flow: TcpFlow, abort: bool) {
        let Some(splice) = self.0.remove(flow) else {
            return;
        };
        if abort {
            let _ = SockRef::from(&splice.stream).set_linger(Some(Duration::ZERO));
        }
        // The kernel forgets a socket that is closed (epoll(7), Q6).
        registry.remove(splice.token);
    }
}

/// Whether a connect has succeeded; `false` while it is under way, when a socket cannot be written
/// to (`tcp_poll` in Linux).
fn outcome(stream: &TcpStream, event: &Event) -> io::Result<bool> {
    if event.is_error()
        && let Some(error) = stream.take_error()?
    {
        return Err(error);
    }
    Ok(event.is_writable())
}

fn failure(error: &io::Error) -> ConnectFailure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => ConnectFailure::Refused,
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM) => {
            ConnectFailure::NoResources
        }
        _ => ConnectFailure::Unreachable,
    }
}
