//! Frames that wait to be read, and those that wait to leave: queues of several sockets.
//!
//! Without CAP_NET_ADMIN a socket keeps no more than `net.core.{r,w}mem_max` allow, by default
//! 208 KiB, which a handful of large frames fill. So several sockets share the work. Memory is the
//! kernel's, and only spent while frames wait; a ring of the same size would be resident all the
//! time.
//!
//! To leave, frames go into one socket until it is full, and then into the next. What they are in
//! front of, the interface's own queue, is the same for all, so they stay in order. There are fewer
//! of these: a burst is to find room, not to stand in a queue.
//!
//! Of frames that arrive the kernel fills one socket, and goes on to the next when it has little
//! room left, and so on around (PACKET_FANOUT, packet(7), Linux 3.10). Invariant: frames are read in
//! the order in which they came. The kernel returns to a socket only after all others; so a socket
//! is read until it is empty, and left for the next one that is not. Which are not is known from
//! events (edge-triggered), without asking for it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, SockFilter, Socket, Type};

use super::syscalls::{bind_to_interface, option, set_option};
use super::{Unavailable, filter};

/// Bytes that may wait to be read in all, as the kernel counts them.
const WANTED_BYTES: usize = 4 * 1024 * 1024;

/// Asked for each socket: what `net.core.{r,w}mem_max` allow nearly everywhere. The kernel counts
/// twice as much, for what it needs besides the frames themselves.
const SOCKET_BYTES: usize = 212_992;

/// Most sockets.
const MOST: usize = 16;

/// Sockets that frames leave by, at most: about 1.7 MB as the kernel counts, 10 ms at 1 Gbit/s.
const SENDERS: usize = 4;

const FANOUT_ROLLOVER: u32 = 3;
const FANOUT_FLAG_UNIQUEID: u32 = 0x2000;

pub(super) struct Queues {
    sockets: Vec<Socket>,
    /// Which one frames leave by.
    sender: usize,
    /// Where the oldest frames are.
    current: usize,
    /// Of each socket, whether there may be frames.
    readable: [bool; MOST],
}

impl Queues {
    /// Opens the sockets on an interface. Nothing arrives until [`Self::take_only`].
    pub(super) fn open(interface: u32) -> Result<Self, Unavailable> {
        let first = open(interface)?;
        let granted = first.recv_buffer_size().unwrap_or(WANTED_BYTES).max(1);
        let mut queue = Self {
            sockets: vec![first],
            sender: 0,
            current: 0,
            readable: [false; MOST],
        };
        let wanted = WANTED_BYTES.div_ceil(granted).min(MOST);
        if wanted > 1
            && let Err(error) = queue.grow(interface, wanted)
        {
            tracing::info!("frames wait in one socket only: {error}");
        }
        Ok(queue)
    }

    fn grow(&mut self, interface: u32, wanted: usize) -> Result<(), Unavailable> {
        let fanout = |error| Unavailable::system("PACKET_FANOUT", error);
        let join = |socket: &Socket, group: u32| {
            let value = group.to_ne_bytes();
            set_option(
                socket.as_fd(),
                libc::SOL_PACKET,
                libc::PACKET_FANOUT,
                &value,
            )
            .map_err(fanout)
        };
        let rollover = FANOUT_ROLLOVER << 16;
        join(&self.sockets[0], rollover | FANOUT_FLAG_UNIQUEID << 16)?;
        let mut joined = [0; 4];
        let socket = self.sockets[0].as_fd();
        option(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &mut joined).map_err(fanout)?;
        let group = u32::from_ne_bytes(joined) & 0xffff;
        while self.sockets.len() < wanted {
            let socket = open(interface)?;
            join(&socket, rollover | group)?;
            self.sockets.push(socket);
        }
        Ok(())
    }

    /// Has frames arrive that pass this filter, and no others.
    pub(super) fn take_only(&self, filter: &[SockFilter]) -> io::Result<()> {
        self.sockets
            .iter()
            .try_for_each(|socket| socket.attach_filter(filter))
    }

    /// Has `registry` tell of each socket by number, for [`Self::handle_readable`].
    pub(super) fn register(
        &self,
        registry: &mio::Registry,
        mut token: impl FnMut(usize) -> mio::Token,
    ) -> io::Result<()> {
        self.sockets
            .iter()
            .enumerate()
            .try_for_each(|(number, socket)| {
                registry.register(
                    &mut SourceFd(&socket.as_raw_fd()),
                    token(number),
                    Interest::READABLE,
                )
            })
    }

    /// Notes that something has arrived at a socket.
    pub(super) fn handle_readable(&mut self, number: usize) {
        if let Some(readable) = self.readable.get_mut(number) {
            *readable = true;
        }
    }

    /// Reads the oldest frame; `None` when there is none, otherwise its length, which is longer
    /// than `buffer` when it does not fit. An error is of one frame only.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut following = None;
        loop {
            match recv(&self.sockets[self.current], &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, len)) => return Some(Ok(len)),
                Err(rustix::io::Errno::AGAIN) => self.readable[self.current] = false,
                Err(error) => return Some(Err(error.into())),
            }
            // Once a later socket has a frame, this one gets no more: it is left when it is empty
            // even then.
            match following.take() {
                Some(next) => self.current = next,
                None => following = Some(self.following()?),
            }
        }
    }

    /// The first socket after the current one that may have a frame.
    fn following(&self) -> Option<usize> {
        let count = self.sockets.len();
        let mut others = (1..count).map(|step| (self.current + step) % count);
        others.find(|number| self.readable[*number])
    }

    /// Waits until there is something to read, without a registry; false when patience ends first.
    pub(super) fn wait(&mut self, patience: Duration) -> bool {
        self.readable = ready(&self.sockets, PollFlags::IN, patience);
        self.readable.contains(&true)
    }

    /// The socket to send with.
    pub(super) fn sender(&self) -> &Socket {
        &self.sockets[self.sender]
    }

    /// Has frames leave by the next socket, since this one is full.
    pub(super) fn send_with_next(&mut self) {
        self.sender = (self.sender + 1) % self.senders();
    }

    /// Waits until one of the senders has room, and has frames leave by it; false when patience
    /// ends first.
    pub(super) fn wait_for_room(&mut self, patience: Duration) -> bool {
        let senders = &self.sockets[..self.senders()];
        let room = ready(senders, PollFlags::OUT, patience);
        let found = room.iter().position(|room| *room);
        self.sender = found.unwrap_or(self.sender);
        found.is_some()
    }

    /// How many sockets frames leave by.
    pub(super) fn senders(&self) -> usize {
        self.sockets.len().min(SENDERS)
    }

    /// Frames for which there was no room, since the last call.
    pub(super) fn lost(&self) -> u64 {
        // `struct tpacket_stats`: packets, drops.
        let lost = |socket: &Socket| {
            let mut statistics = [0; 8];
            let socket = socket.as_fd();
            option(
                socket,
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                &mut statistics,
            )
            .ok()?;
            let [.., a, b, c, d] = statistics;
            Some(u64::from(u32::from_ne_bytes([a, b, c, d])))
        };
        self.sockets.iter().filter_map(lost).sum()
    }

    /// Bytes that may wait to be read, as the kernel counts them.
    pub(super) fn receive_bytes(&self) -> usize {
        let sizes = self.sockets.iter().map(Socket::recv_buffer_size);
        sizes.filter_map(Result::ok).sum()
    }
}

/// Which of some sockets are ready, once any of them is or patience has ended.
fn ready(sockets: &[Socket], wanted: PollFlags, patience: Duration) -> [bool; MOST] {
    let socket = |index: usize| &sockets[index.min(sockets.len() - 1)];
    let mut fds: [PollFd<'_>; MOST] =
        std::array::from_fn(|index| PollFd::new(socket(index), wanted));
    let patience = Timespec {
        tv_sec: patience.as_secs() as _,
        tv_nsec: patience.subsec_nanos() as _,
    };
    let _ = poll(&mut fds[..sockets.len()], Some(&patience));
    fds.map(|fd| !fd.revents().is_empty())
}

fn open(interface: u32) -> Result<Socket, Unavailable> {
    let opened = Socket::new(Domain::PACKET, Type::RAW, None);
    let socket = opened.map_err(|error| Unavailable::system("AF_PACKET", error))?;
    let enable = 1_i32.to_ne_bytes();
    // Without this TCP fails where checksums are left to the receiver, as on veth.
    set_option(
        socket.as_fd(),
        libc::SOL_PACKET,
        libc::PACKET_VNET_HDR,
        &enable,
    )
    .map_err(|error| Unavailable::system("PACKET_VNET_HDR", error))?;
    socket
        .attach_filter(&filter::nothing())
        .map_err(|error| Unavailable::system("SO_ATTACH_FILTER", error))?;
    socket
        .set_nonblocking(true)
        .and_then(|()| bind_to_interface(socket.as_fd(), libc::ETH_P_IP as u16, interface))
        .map_err(|error| Unavailable::system("bind to the outside interface", error))?;
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues of sockets of another kind, which needs no capability, and their other ends. The
    /// senders are full.
    fn full() -> (Queues, Vec<Socket>) {
        let pairs = (0..10).map(|_| Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap());
        let (sockets, ends): (Vec<Socket>, Vec<Socket>) = pairs.unzip();
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
        }
        for sender in &sockets[..SENDERS] {
            while sender.send(&[0; 1000]).is_ok() {}
        }
        let queues = Queues {
            sockets,
            sender: 0,
            current: 0,
            readable: [false; MOST],
        };
        (queues, ends)
    }

    #[test]
    fn room_is_waited_for_in_the_sockets_that_frames_leave_by() {
        let (mut queues, ends) = full();
        assert_eq!(queues.senders(), SENDERS);
        assert!(!queues.wait_for_room(Duration::from_millis(10)));
        assert_eq!(queues.sender, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                ends[2].set_nonblocking(true).unwrap();
                while rustix::net::recv(&ends[2], &mut [0; 1000][..], RecvFlags::empty()).is_ok() {}
            });
            assert!(queues.wait_for_room(Duration::from_secs(10)));
        });
        assert_eq!(queues.sender, 2);
        assert!(queues.sender().send(&[0; 1000]).is_ok());
    }

    #[test]
    fn frames_leave_by_the_first_sockets_in_turn() {
        let (mut queues, _ends) = full();
        let turns: Vec<usize> = (0..2 * SENDERS)
            .map(|_| {
                queues.send_with_next();
                queues.sender
            })
            .collect();
        assert_eq!(turns, [1, 2, 3, 0, 1, 2, 3, 0]);
    }
}
