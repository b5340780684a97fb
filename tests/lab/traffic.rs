//! Traffic that goes on while something else happens.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Client, Internet, pattern};

/// A TCP connection to the echo service.
#[derive(Debug)]
pub struct Echo(TcpStream);

impl Echo {
    /// Opens a connection from the client's machine.
    pub fn open(client: &Client) -> io::Result<Self> {
        let stream = connect(
            client,
            &format!("{}:7", Internet::ADDRESS),
            Duration::from_secs(10),
        )?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(stream))
    }

    /// Sends `bytes` and checks that they come back.
    pub fn exchange(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.0.read_exact(&mut back)?;
        if back == bytes {
            Ok(())
        } else {
            Err(io::Error::other("the echo has changed"))
        }
    }
}

/// Connects from the client's machine.
pub fn connect(client: &Client, to: &str, patience: Duration) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    client.enter(|| TcpStream::connect_timeout(&to, patience))
}

/// An exchange with the echo service that repeats until it is told to end or fails.
#[derive(Debug)]
pub struct Transfer {
    end: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    thread: JoinHandle<(Duration, io::Result<()>)>,
}

impl Transfer {
    /// Begins, and returns when the first exchange has succeeded.
    pub fn begin(client: &Client) -> Self {
        let mut echo = Echo::open(client).expect("a connection to the echo service");
        let bytes = pattern(20_000);
        echo.exchange(&bytes).expect("a first exchange");
        let (end, exchanges) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(1)),
        );
        let (ending, counter) = (Arc::clone(&end), Arc::clone(&exchanges));
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !ending.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if let Err(error) = echo.exchange(&bytes) {
                    return (longest, Err(error));
                }
                longest = longest.max(begun.elapsed());
                counter.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            (longest, Ok(()))
        });
        Self {
            end,
            exchanges,
            thread,
        }
    }

    /// Exchanges so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Ends it. Panics when it has failed, or when one exchange took longer than `longest`.
    #[track_caller]
    pub fn end_undisturbed(self, longest: Duration) {
        self.end.store(true, Ordering::Relaxed);
        let (took, result) = self.thread.join().unwrap();
        result.expect("the transfer goes on");
        assert!(took < longest, "one exchange took {took:?}");
    }
}
