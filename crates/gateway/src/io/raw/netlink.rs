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

/// A socket to ask with.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    answer: Vec<u8>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // Protocol 0 is NETLINK_ROUTE.
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            socket,
            answer: vec![0; ANSWER_BYTES],
        })
    }

    /// Asks for everything of a kind and gives each answer to `take`.
    pub(super) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)?;
        for _ in 0..MOST_MESSAGES {
            let (len, _) = recv(&self.socket, &mut self.answer[..], RecvFlags::empty())?;
            let mut rest = &self.answer[..len];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let aligned = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(aligned.max(1)..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
        Err(io::Error::other("the answer does not end"))
    }
}
