//! Many connections that stay.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::internet::HOLD;
use crate::lab::{Lab, endpoint};

/// Connections that are open, and how they came to be.
#[derive(Debug)]
pub(crate) struct Flows {
    pub(crate) open: Vec<TcpStream>,
    pub(crate) failed: usize,
    pub(crate) elapsed: Duration,
}

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens `count` connections in bursts, to all the internet's addresses in turn. One counts as
/// open when a byte has come through it.
pub(crate) fn open(lab: &Lab, count: usize, burst: usize) -> Result<Flows> {
    lab.client.enter(move || {
        let begun = Instant::now();
        let mut flows = Flows {
            open: Vec::with_capacity(count),
            failed: 0,
            elapsed: Duration::ZERO,
        };
        let mut opened = 0;
        while opened < count {
            let now = burst.min(count - opened);
            open_burst(opened, now, &mut flows)?;
            opened += now;
        }
        flows.elapsed = begun.elapsed();
        Ok(flows)
    })
}

fn open_burst(first: usize, count: usize, flows: &mut Flows) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut waiting = Vec::new();
    for index in 0..count {
        let address = SocketAddr::from((endpoint(first + index), HOLD));
        let mut stream = TcpStream::connect(address)?;
        poll.registry()
            .register(&mut stream, Token(index), Interest::READABLE)?;
        waiting.push(Some(stream));
    }
    let mut events = Events::with_capacity(1024);
    let (mut left, begun) = (count, Instant::now());
    while left > 0 && begun.elapsed() < PATIENCE {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let slot = &mut waiting[event.token().0];
            let Some(stream) = slot else { continue };
            match stream.read(&mut [0]) {
                Ok(1) => {
                    poll.registry().deregister(stream)?;
                    flows.open.extend(slot.take());
                    left -= 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => {
                    *slot = None;
                    flows.failed += 1;
                    left -= 1;
                }
            }
        }
    }
    flows.failed += left;
    Ok(())
}
