//! The shell around the [`Tunnel`]: one UDP socket, one clock, and the steps that wait.
//!
//! Invariant: the tunnel is borrowed inside one synchronous call and never across an await, so
//! that the driver and the steps, which take turns in one task, cannot meet in it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use popup_gateway_core::BoringSession;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::tunnel::Tunnel;

/// Datagrams taken from the socket before the tunnel is drained.
const BATCH: usize = 64;

/// A handle on the tunnel for the steps.
#[derive(Debug, Clone)]
pub(super) struct Link(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    tunnel: RefCell<Tunnel<BoringSession>>,
    socket: UdpSocket,
    waiting: RefCell<Vec<Waker>>,
    changed: Notify,
}

impl Link {
    /// Joins a tunnel to a socket that is connected to its gateway.
    pub(super) fn new(tunnel: Tunnel<BoringSession>, socket: UdpSocket) -> Self {
        let waiting = RefCell::default();
        Self(Rc::new(Shared {
            tunnel: RefCell::new(tunnel),
            socket,
            waiting,
            changed: Notify::new(),
        }))
    }

    /// Uses the tunnel, and lets the driver send what comes of it.
    pub(super) fn with<T>(&self, use_tunnel: impl FnOnce(&mut Tunnel<BoringSession>) -> T) -> T {
        let result = use_tunnel(&mut self.0.tunnel.borrow_mut());
        self.0.changed.notify_one();
        result
    }

    /// Uses the tunnel if it is ready for that; else the task is woken after the next event.
    pub(super) fn poll_with<T>(
        &self,
        context: &Context<'_>,
        use_tunnel: impl FnOnce(&mut Tunnel<BoringSession>) -> Poll<T>,
    ) -> Poll<T> {
        let poll = use_tunnel(&mut self.0.tunnel.borrow_mut());
        if poll.is_ready() {
            self.0.changed.notify_one();
        } else {
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
        }
        poll
    }

    /// Waits until the tunnel gives something.
    pub(super) async fn until<T>(
        &self,
        mut find: impl FnMut(&mut Tunnel<BoringSession>) -> Option<T>,
    ) -> T {
        std::future::poll_fn(|context| {
            self.poll_with(context, |tunnel| {
                find(tunnel).map_or(Poll::Pending, Poll::Ready)
            })
        })
        .await
    }

    /// Moves datagrams between the socket and the tunnel for as long as it is polled.
    pub(super) async fn drive(&self) -> Infallible {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let wake_at = self.drain().await;
            for waker in self.0.waiting.take() {
                waker.wake();
            }
            tokio::select! {
                received = self.0.socket.recv(&mut buffer) => {
                    self.receive(received, &buffer);
                    for _ in 1..BATCH {
                        match self.0.socket.try_recv(&mut buffer) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            received => self.receive(received, &buffer),
                        }
                    }
                }
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Sends what is due, and says when the tunnel wants to be called again.
    pub(super) async fn drain(&self) -> Instant {
        let now = Instant::now();
        self.0.tunnel.borrow_mut().handle_timeout(now);
        loop {
            let Some(datagram) = self.0.tunnel.borrow_mut().poll_transmit() else {
                break;
            };
            // Whatever else goes wrong here is a lost datagram, and shows as silence.
            if let Err(error) = self.0.socket.send(&datagram).await
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                self.0.tunnel.borrow_mut().handle_refused();
            }
        }
        self.0.tunnel.borrow_mut().poll_timeout(now)
    }

    fn receive(&self, received: io::Result<usize>, buffer: &[u8]) {
        let mut tunnel = self.0.tunnel.borrow_mut();
        match received {
            Ok(len) => tunnel.handle_datagram(Instant::now(), &buffer[..len]),
            // An ICMP port unreachable, which a connected UDP socket is told of.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tunnel.handle_refused()
            }
            Err(_) => {}
        }
    }
}
