//! A TCP connection inside the tunnel, as the libraries above want it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, State};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;

/// A connection; dropping it resets it.
#[derive(Debug)]
pub(super) struct TunnelStream {
    link: Link,
    handle: SocketHandle,
}

impl TunnelStream {
    /// Takes over a connection that is being made.
    pub(super) fn new(link: Link, handle: SocketHandle) -> Self {
        Self { link, handle }
    }

    /// Waits until the connection is there (`true`) or has been refused.
    pub(super) async fn connected(&self) -> bool {
        self.link
            .until(|tunnel| match tunnel.netstack().tcp(self.handle).state() {
                State::SynSent | State::SynReceived => None,
                State::Closed => Some(false),
                _ => Some(true),
            })
            .await
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.link.poll_with(context, |tunnel| {
            let socket = tunnel.netstack().tcp(self.handle);
            match socket.recv_slice(buf.initialize_unfilled()) {
                Ok(0) if buf.remaining() > 0 => Poll::Pending,
                Ok(len) => {
                    buf.advance(len);
                    Poll::Ready(Ok(()))
                }
                Err(RecvError::Finished) => Poll::Ready(Ok(())),
                Err(RecvError::InvalidState) => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                }
            }
        })
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.poll_with(context, |tunnel| {
            match tunnel.netstack().tcp(self.handle).send_slice(data) {
                Ok(0) if !data.is_empty() => Poll::Pending,
                Ok(len) => Poll::Ready(Ok(len)),
                Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link
            .with(|tunnel| tunnel.netstack().tcp(self.handle).close());
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.link
            .with(|tunnel| tunnel.netstack().tcp(self.handle).abort());
    }
}
