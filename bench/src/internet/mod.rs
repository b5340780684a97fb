//! The services on the internet: a process of their own, in their own box and on their own core.

mod bulk;
mod short;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub(crate) use bulk::{Pattern, Request, receive};

use crate::lab::{Lab, eventually};

/// Long transfers: `Request`.
pub(crate) const BULK: u16 = 5001;
/// TCP: one byte at once and the end. UDP: every datagram back.
pub(crate) const ECHO: u16 = 7;
/// TCP: HTTP, one request for each connection.
pub(crate) const HTTP: u16 = 80;
/// TCP: one byte at once, and then nothing until the caller hangs up.
pub(crate) const HOLD: u16 = 5002;
/// UDP: counted.
pub(crate) const SINK: u16 = 9;
/// The counters, on the loopback: asking does not disturb what is measured.
const CONTROL: u16 = 5000;

/// What has arrived at the services.
#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    datagrams: AtomicU64,
}

static COUNTERS: Counters = Counters {
    bytes: AtomicU64::new(0),
    datagrams: AtomicU64::new(0),
};

/// Runs the services until the process is ended.
pub(crate) fn serve(congestion: &str) -> Result<()> {
    crate::limits::raise_files()?;
    let any = Ipv4Addr::UNSPECIFIED;
    let bulk = TcpListener::bind((any, BULK))?;
    socket2::SockRef::from(&bulk).set_tcp_congestion(congestion.as_bytes())?;
    std::thread::spawn(move || {
        for stream in bulk.incoming().flatten() {
            std::thread::spawn(move || bulk::serve(stream, &COUNTERS.bytes));
        }
    });
    std::thread::spawn(move || short::serve(any));
    for index in 0..usize::from(crate::lab::ENDPOINTS) {
        // One for each address, so that the answer leaves from where the question went.
        let echo = UdpSocket::bind((crate::lab::endpoint(index), ECHO))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                echo.send_to(&buffer[..length], from).ok();
            }
        });
    }
    let sink = UdpSocket::bind((any, SINK))?;
    socket2::SockRef::from(&sink).set_recv_buffer_size(8 << 20)?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while sink.recv(&mut buffer).is_ok() {
            COUNTERS.datagrams.fetch_add(1, Ordering::Relaxed);
        }
    });
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, CONTROL))?;
    for stream in control.incoming().flatten() {
        let mut writer = stream.try_clone()?;
        for _ in BufReader::new(stream).lines() {
            let bytes = COUNTERS.bytes.load(Ordering::Relaxed);
            let datagrams = COUNTERS.datagrams.load(Ordering::Relaxed);
            if writeln!(writer, "{bytes} {datagrams}").is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// The services, as the bench sees them.
#[derive(Debug)]
pub(crate) struct Internet {
    process: Child,
    control: Mutex<BufReader<TcpStream>>,
}

impl Internet {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("a path that can be read")?;
        let process = lab
            .internet
            .command(&lab.plan.cores.internet, program)
            .args(["internet", "--congestion", &lab.plan.congestion])
            .stdout(Stdio::null())
            .spawn()?;
        let control = lab.internet.enter(|| {
            eventually(Duration::from_secs(10), "the services run", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, CONTROL)).ok()
            })
        })?;
        control.set_nodelay(true)?;
        Ok(Self {
            process,
            control: Mutex::new(BufReader::new(control)),
        })
    }

    /// Its process, as numbered outside the box.
    pub(crate) fn pid(&self) -> Result<u32> {
        // `nsenter` has made a child for the box's process numbers.
        let nsenter = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children"))?;
        let child = children.split_whitespace().next();
        Ok(child.context("the services have ended")?.parse()?)
    }

    /// Bytes that TCP connections have brought, and datagrams.
    pub(crate) fn arrived(&self) -> Result<(u64, u64)> {
        let mut control = self.control.lock().unwrap_or_else(|lock| lock.into_inner());
        control.get_mut().write_all(b"?\n")?;
        let mut line = String::new();
        control.read_line(&mut line)?;
        let (bytes, datagrams) = line.trim().split_once(' ').context("the counters")?;
        Ok((bytes.parse()?, datagrams.parse()?))
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
