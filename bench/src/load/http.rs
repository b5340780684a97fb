//! New connections: connect, one request, one answer, the end.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::internet::HTTP;
use crate::lab::{Lab, endpoint};

/// What became of the connections.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Exchanges {
    pub(crate) complete: u64,
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
}

impl Exchanges {
    pub(crate) fn per_second(&self) -> f64 {
        self.complete as f64 / self.elapsed.as_secs_f64()
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/// Keeps `concurrency` connections going for `window`.
pub(crate) fn run(lab: &Lab, concurrency: usize, window: Duration) -> Result<Exchanges> {
    lab.client.enter(move || drive(concurrency, window))
}

struct Connection {
    stream: TcpStream,
    asked: bool,
    received: usize,
    begun: Instant,
}

fn drive(concurrency: usize, window: Duration) -> Result<Exchanges> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = HashMap::new();
    let mut exchanges = Exchanges::default();
    let mut next = 0;
    let begun = Instant::now();
    while begun.elapsed() < window {
        while connections.len() < concurrency {
            let address = SocketAddr::from((endpoint(next), HTTP));
            let mut stream = TcpStream::connect(address)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(next), interest)?;
            let connection = Connection {
                stream,
                asked: false,
                received: 0,
                begun: Instant::now(),
            };
            connections.insert(Token(next), connection);
            next += 1;
        }
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let Some(connection) = connections.get_mut(&event.token()) else {
                continue;
            };
            match connection.go_on() {
                Ok(None) => {}
                Ok(Some(length)) if length > 40 => {
                    exchanges.complete += 1;
                    connections.remove(&event.token());
                }
                _ => {
                    exchanges.failed += 1;
                    connections.remove(&event.token());
                }
            }
        }
        let before = connections.len();
        connections.retain(|_, connection| connection.begun.elapsed() < Duration::from_secs(5));
        exchanges.failed += (before - connections.len()) as u64;
    }
    exchanges.elapsed = begun.elapsed();
    Ok(exchanges)
}

impl Connection {
    /// The answer's length when it is complete.
    fn go_on(&mut self) -> io::Result<Option<usize>> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if !self.asked {
            match self.stream.write(REQUEST) {
                Ok(_) => self.asked = true,
                Err(error) if is_early(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut answer = [0; 1024];
        loop {
            match self.stream.read(&mut answer) {
                Ok(0) => return Ok(Some(self.received)),
                Ok(more) => self.received += more,
                Err(error) if is_early(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_early(error: &io::Error) -> bool {
    use io::ErrorKind::{NotConnected, WouldBlock};
    matches!(error.kind(), WouldBlock | NotConnected)
}
