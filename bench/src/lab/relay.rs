//! A long and leaky cable: takes every frame from one side, loses some, and hands the others to
//! the other side when their time has come.
//!
//! The cable's ends send whole frames of 1500 bytes with their checksums (`End::ToRelay`), so a
//! loss is of one packet and never of a super-packet. The relay costs about two system calls for
//! each frame, on the client's core.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::Namespace;

/// What the cable does to packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Impairment {
    /// There and back.
    pub(crate) round_trip: Duration,
    /// Of 100,000 packets in each direction, so many are lost.
    pub(crate) losses_in_100_000: u32,
}

/// How long a device that has no room is left alone.
const NO_ROOM: Duration = Duration::from_micros(200);

/// Bytes that may wait to be taken, as the kernel counts them.
const RECEIVE_BUFFER: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Relay {
    end: Arc<AtomicBool>,
    /// Frames that the relay was too slow for.
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    _wire: Namespace,
}

impl Relay {
    /// Relays between the devices `left` and `right` of `wire`.
    pub(super) fn start(wire: Namespace, impairment: Impairment) -> Result<Self> {
        let sides = wire.enter(|| Ok([Side::open("left")?, Side::open("right")?]))?;
        let end = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(AtomicU64::new(0));
        let (ending, losses) = (Arc::clone(&end), Arc::clone(&lost));
        let thread = std::thread::spawn(move || relay(sides, impairment, &ending, &losses));
        Ok(Self {
            end,
            lost,
            thread: Some(thread),
            _wire: wire,
        })
    }

    /// How many frames the relay was too slow for: these losses are nobody's but the bench's.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// One end of the cable, and what is on its way to it.
struct Side {
    socket: Socket,
    due: VecDeque<(Instant, Vec<u8>)>,
}

impl Side {
    fn open(device: &str) -> io::Result<Self> {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        let protocol = Protocol::from(i32::from(every_protocol));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        enlarge_receive_buffer(&socket)?;
        socket.set_send_buffer_size(4 << 20)?;
        socket.set_nonblocking(true)?;
        ignore_outgoing(&socket)?;
        let index = rustix::net::netdevice::name_to_index(&socket, device)?;
        socket.bind(&link_address(every_protocol, index))?;
        Ok(Self {
            socket,
            due: VecDeque::new(),
        })
    }

    /// When its next frame is due.
    fn next(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Hands over what is due, and gives the buffers back. A cable loses nothing by itself: what
    /// the device has no room for now is handed over later.
    fn deliver(&mut self, now: Instant, pool: &mut Vec<Vec<u8>>) {
        while let Some((at, frame)) = self.due.front_mut() {
            if *at > now {
                return;
            }
            if let Err(error) = self.socket.send(frame)
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
                )
            {
                *at = now + NO_ROOM;
                return;
            }
            if let Some((_, frame)) = self.due.pop_front() {
                pool.push(frame);
            }
        }
    }

    /// Frames that came faster than they were taken, since the last call.
    fn lost(&self) -> u64 {
        let mut statistics = [0_u32; 2]; // `struct tpacket_stats`: packets, drops.
        let mut length = mem::size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, which the array has.
        unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        statistics[1].into()
    }
}

fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)
}

/// Beyond `net.core.rmem_max`, since the bench is root.
fn enlarge_receive_buffer(socket: &Socket) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BUFFER as libc::c_int,
    )
}

fn set_option(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option's value is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn link_address(protocol: u16, index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address, made of integers only.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the storage holds an address of this length.
    unsafe {
        SockAddr::new(
            storage,
            mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    }
}

fn relay(
    [mut left, mut right]: [Side; 2],
    impairment: Impairment,
    end: &AtomicBool,
    lost: &AtomicU64,
) {
    let delay = impairment.round_trip / 2;
    let mut pool = Vec::new();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut count_at = Instant::now();
    while !end.load(Ordering::Relaxed) {
        wait(&left, &right);
        let now = Instant::now();
        let mut take = |from: &Side, to: &mut Side| {
            for _ in 0..64 {
                let mut frame: Vec<u8> = pool.pop().unwrap_or_default();
                frame.resize(2048, 0);
                let received = rustix::io::read(&from.socket, frame.as_mut_slice());
                let Ok(length) = received else {
                    pool.push(frame);
                    return;
                };
                if chance.strikes(impairment.losses_in_100_000) {
                    pool.push(frame);
                    continue;
                }
                frame.truncate(length);
                to.due.push_back((now + delay, frame));
            }
        };
        take(&left, &mut right);
        take(&right, &mut left);
        let now = Instant::now();
        left.deliver(now, &mut pool);
        right.deliver(now, &mut pool);
        if now >= count_at {
            lost.fetch_add(left.lost() + right.lost(), Ordering::Relaxed);
            count_at = now + Duration::from_millis(100);
        }
    }
}

/// Until a frame arrives or is due, at most 50 ms.
fn wait(left: &Side, right: &Side) {
    let due = [left.next(), right.next()].into_iter().flatten().min();
    let patience = due.map_or(Duration::from_millis(50), |at| {
        at.saturating_duration_since(Instant::now())
    });
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(patience.min(Duration::from_millis(50)).subsec_nanos()),
    };
    let mut sockets = [
        PollFd::from_borrowed_fd(left.socket.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(right.socket.as_fd(), PollFlags::IN),
    ];
    poll(&mut sockets, Some(&patience)).ok();
}

/// The same losses in every run.
struct Chance(u64);

impl Chance {
    fn strikes(&mut self, in_100_000: u32) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % 100_000 < u64::from(in_100_000)
    }
}
