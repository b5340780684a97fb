//! Packets between the NAT and the network, singly or many in one.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::packet::{Layout, Protocol, cut};

/// Which transport a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// Why a port could not be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRefusal {
    /// It is somebody else's, or may not be used. It is not asked for again.
    Taken,
    /// The system has nothing left to hold any port with. It may be asked for again later.
    NoResources,
}

/// What the `raw` way out is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSettings {
    /// The outside address: what packets leave with.
    pub address: Ipv4Addr,
    /// The outside interface's MTU, in bytes.
    pub mtu: u16,
    /// The ports that belong to the NAT, apart from those that the system gives to other sockets.
    pub ports: RangeInclusive<u16>,
    /// Most ports of each transport that may be held at once: each is a descriptor. One peer gets
    /// at most three quarters of those of UDP.
    pub held_ports: usize,
    /// Whether the sender takes several datagrams as one packet, too
    /// (`VIRTIO_NET_HDR_GSO_UDP_L4`, Linux 6.2).
    pub trains: bool,
}

/// An IPv4 packet for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The packet, from its IP header.
    pub packet: &'a [u8],
    /// What is left to whoever sends it; nothing when `None`.
    pub offload: Option<Offload>,
}

impl Frame<'_> {
    /// Gives every packet that this one stands for to `emit`, whole and with its checksums: for a
    /// sender that takes no others.
    pub fn split(&self, mut emit: impl FnMut(&[u8])) {
        match (self.offload, Layout::new(self.packet)) {
            (Some(offload), Ok(layout)) => {
                let mut packet = self.packet.to_vec();
                cut(&mut packet, &layout, offload.segment_size.into(), emit);
            }
            _ => emit(self.packet),
        }
    }
}

/// A packet that stands for several of one TCP connection, or several datagrams to one remote, and
/// whose checksum is not finished. Offsets count from the IP header, as `struct virtio_net_hdr` has
/// them from the frame's start (virtio 1.2, section 5.1.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// What the packets are.
    pub transport: Transport,
    /// Payload bytes of each of the packets.
    pub segment_size: u16,
    /// Bytes of IP and transport header, which every packet repeats.
    pub header_len: u16,
    /// Where the checksum begins: the transport's header.
    pub checksum_start: u16,
    /// Where, from there, it is written.
    pub checksum_offset: u16,
}

/// What the network said of a packet, besides its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// The transport's checksum field holds the sum of the pseudo-header only
    /// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    pub partial_checksum: bool,
    /// The packet stands for several, each with this many payload bytes (GRO).
    pub segment_size: Option<u16>,
}
