//! The AF_PACKET socket on the outside interface: frames in and out, super-segments included.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::time::Duration;

use popup_gateway_core::{Frame, Offload, Received, Transport};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::network::Mac;
use super::queues::Queues;
use super::syscalls::send_by_interface;
use super::{Unavailable, virtio};

/// The largest frame: 64 KiB of packet, which is what GRO makes at most unless somebody asks for
/// more.
const FRAME_BYTES: usize = virtio::LEN + virtio::ETHERNET_LEN + 65_535;

/// Bytes before the packet.
const BEFORE: usize = virtio::LEN + virtio::ETHERNET_LEN;

/// How long a full send buffer is waited for before the frame is dropped.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// The socket, or rather several that share the work.
pub(super) struct PacketSocket {
    pub(super) queues: Queues,
    /// The source of every frame.
    mac: Mac,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Opens the socket on an interface. Nothing arrives until the queues are told what to take.
    pub(super) fn open(interface: u32, mac: Mac) -> Result<Self, Unavailable> {
        Ok(Self {
            queues: Queues::open(interface)?,
            mac,
            buffer: vec![0; FRAME_BYTES],
        })
    }

    /// Whether the kernel takes several datagrams in one frame, and gives them
    /// (`VIRTIO_NET_HDR_GSO_UDP_L4`, Linux 6.2). It is asked with a frame by the loopback interface
    /// for a neighbour that is not there.
    pub(super) fn takes_trains(&self) -> bool {
        let asked = nix::net::if_::if_nametoindex("lo")
            .map_err(io::Error::from)
            .and_then(|loopback| {
                send_by_interface(self.queues.sender().as_fd(), loopback, &train())
            });
        match asked {
            Ok(()) => true,
            Err(error) => {
                tracing::info!("datagrams leave one by one: {error}");
                false
            }
        }
    }

    /// Lends the next packet to `take`; `None` when there is none now, otherwise its length.
    pub(super) fn receive(&mut self, take: impl FnOnce(&mut [u8], Received)) -> Option<usize> {
        let len = match self.queues.receive(&mut self.buffer)? {
            Ok(len) => len,
            // Such as one whose kind the header cannot tell: the next may be well.
            Err(error) => {
                tracing::trace!("a frame is lost: {error}");
                return Some(0);
            }
        };
        let Some(frame) = self.buffer.get_mut(..len) else {
            return Some(0);
        };
        if let Some((received, packet)) = parse(frame) {
            take(packet, received);
        }
        Some(len)
    }

    /// Sends a frame to a neighbour.
    pub(super) fn send(&mut self, to: Mac, frame: &Frame<'_>) -> io::Result<()> {
        let virtio = virtio::encode(frame.offload);
        let ethernet = virtio::ethernet(to, self.mac);
        let parts = [&virtio[..], &ethernet, frame.packet].map(IoSlice::new);
        let mut tried = 1;
        loop {
            let mut no_control = SendAncillaryBuffer::default();
            match sendmsg(
                self.queues.sender(),
                &parts,
                &mut no_control,
                SendFlags::empty(),
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) if tried < self.queues.senders() => {
                    tried += 1;
                    self.queues.send_with_next();
                }
                Err(rustix::io::Errno::AGAIN) if self.queues.wait_for_room(SEND_PATIENCE) => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A frame with two datagrams of a byte each, for nobody.
fn train() -> Vec<u8> {
    const NOBODY: Mac = [2, 0, 0, 0, 0, 1];
    let offload = Offload {
        transport: Transport::Udp,
        segment_size: 1,
        header_len: 28,
        checksum_start: 20,
        checksum_offset: 6,
    };
    let packet = [
        0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0x3c, 0xcd, 127, 0, 0, 1, 127, 0, 0, 1, // IPv4
        0, 9, 0, 9, 0, 10, 0xfe, 0x1d, // UDP, with the pseudo-header's sum
        0, 0,
    ];
    let virtio = virtio::encode(Some(offload));
    [&virtio[..], &virtio::ethernet(NOBODY, NOBODY), &packet].concat()
}

/// The packet in a frame, without what pads a short one.
pub(super) fn parse(frame: &mut [u8]) -> Option<(Received, &mut [u8])> {
    let received = virtio::decode(frame.first_chunk()?);
    let packet = frame.get_mut(BEFORE..)?;
    let len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    Some((received, packet.get_mut(..len).filter(|p| !p.is_empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(total_len: u16, bytes: usize) -> Vec<u8> {
        let mut frame = vec![0; BEFORE + bytes];
        if bytes >= 4 {
            frame[BEFORE + 2..BEFORE + 4].copy_from_slice(&total_len.to_be_bytes());
        }
        frame
    }

    #[test]
    fn padding_is_taken_off() {
        let mut padded = frame(28, 46);
        assert_eq!(parse(&mut padded).unwrap().1.len(), 28);
    }

    #[test]
    fn a_frame_that_is_shorter_than_it_says_is_none() {
        for (total_len, bytes) in [(100, 99), (0, 40), (20, 3), (20, 0)] {
            assert!(
                parse(&mut frame(total_len, bytes)).is_none(),
                "{total_len} {bytes}"
            );
        }
        assert!(parse(&mut [0; 9]).is_none());
    }
}
