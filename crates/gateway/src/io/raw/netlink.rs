//! Questions to the kernel about links, addresses, routes and neighbours (rtnetlink(7)). Asking
//! needs no privilege, and the answers are there at once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// The kernel's largest answer in one message.
const ANSWER_BYTES: usize = 32 * 1024;

/// Far more messages than a host with one way out has; a router with the internet's whole table
/// is none.
const MOST_MESSAGES: usize = 10_000;

/// An answer is made while it is asked for; this is for a kernel that never finishes.
const PATIENCE: Duration = Duration::from_millis(500);

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// A socket to ask with.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    /// The last request's number, which its answers repeat.
    sequence: u32,
    answer: Vec<u8>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: open_socket()?,
            sequence: 0,
            answer: vec![0; ANSWER_BYTES],
        })
    }

    /// Asks for everything of a kind and gives each answer to `take`. What cannot be understood is
    /// left out: it is of a kind that nobody here asks about.
    pub(super) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let outcome = self.ask(request, take);
        // An answer that was given up may be under way still, and the kernel refuses a request
        // while it makes one (netlink_dump_start in Linux).
        if outcome.is_err()
            && let Ok(socket) = open_socket()
        {
            self.socket = socket;
        }
        outcome
    }

    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)?;
        for _ in 0..MOST_MESSAGES {
            let (len, _) = recv(&self.socket, &mut self.answer[..], RecvFlags::empty())?;
            if read(&self.answer[..len], self.sequence, &mut take)? {
                return Ok(());
            }
        }
        Err(io::Error::other("the answer does not end"))
    }
}

fn open_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // Protocol 0 is NETLINK_ROUTE.
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// Gives what is said in answer to the request of this number to `take`; true when the answer ends.
fn read(
    mut rest: &[u8],
    sequence: u32,
    take: &mut impl FnMut(RouteNetlinkMessage),
) -> io::Result<bool> {
    while let Some((length, number)) = length_and_sequence(rest) {
        let Some(message) = rest.get(..length).filter(|_| length >= HEADER_BYTES) else {
            break;
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if number != sequence {
            continue;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            Ok(message) => match message.payload {
                NetlinkPayload::InnerMessage(message) => take(message),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            },
            Err(error) => tracing::trace!("an answer that cannot be understood: {error}"),
        }
    }
    Ok(false)
}

/// What a message's header says of its length and of the request it answers (netlink(7)).
fn length_and_sequence(message: &[u8]) -> Option<(usize, u32)> {
    let word = |at: usize| {
        let bytes: [u8; 4] = message.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    Some((usize::try_from(word(0)?).ok()?, word(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    const ROUTE: u16 = libc::RTM_NEWROUTE;
    const LINK: u16 = libc::RTM_NEWLINK;
    const ERROR: u16 = libc::NLMSG_ERROR as u16;
    const DONE: u16 = libc::NLMSG_DONE as u16;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES];
        let length = (HEADER_BYTES + body.len()) as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[8..12].copy_from_slice(&sequence.to_ne_bytes());
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    /// A link without attributes: `struct ifinfomsg`.
    fn link(sequence: u32) -> Vec<u8> {
        message(LINK, sequence, &[0; 16])
    }

    fn read_all(messages: &[Vec<u8>]) -> (usize, io::Result<bool>) {
        let mut taken = 0;
        let outcome = read(&messages.concat(), 7, &mut |_| taken += 1);
        (taken, outcome)
    }

    #[test]
    fn what_cannot_be_understood_costs_nothing_else() {
        let stump = message(ROUTE, 7, &[1, 2, 3]);
        let (taken, end) = read_all(&[link(7), stump, link(7), message(DONE, 7, &[0; 4])]);
        assert_eq!((taken, end.unwrap()), (2, true));
    }

    #[test]
    fn answers_to_an_earlier_request_are_passed_over() {
        let refused = message(ERROR, 6, &[0xff; 20]);
        let (taken, end) = read_all(&[link(6), message(DONE, 6, &[0; 4]), refused, link(7)]);
        assert_eq!((taken, end.unwrap()), (1, false));
        let (_, end) = read_all(&[message(ERROR, 7, &[0xff; 20])]);
        end.unwrap_err();
    }

    #[test]
    fn no_length_makes_it_panic_or_turn_in_circles() {
        for length in [0_u32, 1, 15, 17, 19, 1000, u32::MAX] {
            let mut bytes = link(7);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let (taken, end) = read_all(&[bytes]);
            assert_eq!((taken, end.unwrap()), (0, false), "{length}");
        }
        for len in 0..HEADER_BYTES {
            assert_eq!(read_all(&[link(7)[..len].to_vec()]).0, 0);
        }
    }

    #[test]
    fn it_can_ask_again_after_a_failure() {
        let mut netlink = Netlink::open().unwrap();
        netlink.socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let links = || RouteNetlinkMessage::GetLink(LinkMessage::default());
        netlink.dump(links(), |_| {}).unwrap_err();
        let mut found = 0;
        netlink.dump(links(), |_| found += 1).unwrap();
        assert!(found > 0, "there is a loopback interface at least");
    }
}
