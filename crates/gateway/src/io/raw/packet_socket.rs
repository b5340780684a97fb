//! The AF_PACKET socket on the outside interface: frames in and out, super-segments included.

use std::io::{self, IoSlice};
use std::time::Duration;

use popup_gateway_core::{Frame, Received};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::network::Mac;
use super::receive_queue::ReceiveQueue;
use super::{Unavailable, virtio};

/// Asked for; without CAP_NET_ADMIN the kernel grants at most `net.core.wmem_max`.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The largest frame: 64 KiB of packet, which is what GRO makes at most unless somebody asks for
/// more.
const FRAME_BYTES: usize = virtio::LEN + virtio::ETHERNET_LEN + 65_535;

/// Bytes before the packet.
const BEFORE: usize = virtio::LEN + virtio::ETHERNET_LEN;

/// How long a full send buffer is waited for before the frame is dropped.
const SEND_PATIENCE: Duration = Duration::from_millis(5);

/// The socket.
pub(super) struct PacketSocket {
    pub(super) queue: ReceiveQueue,
    /// The source of every frame.
    mac: Mac,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Opens the socket on an interface. Nothing arrives until the queue is told what to take.
    pub(super) fn open(interface: u32, mac: Mac) -> Result<Self, Unavailable> {
        let queue = ReceiveQueue::open(interface)?;
        let _ = queue.sender().set_send_buffer_size(SEND_BUFFER_BYTES);
        Ok(Self {
            queue,
            mac,
            buffer: vec![0; FRAME_BYTES],
        })
    }

    /// Lends the next packet to `take`; `None` when there is none now, otherwise its length.
    pub(super) fn receive(&mut self, take: impl FnOnce(&mut [u8], Received)) -> Option<usize> {
        let len = match self.queue.receive(&mut self.buffer)? {
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
    pub(super) fn send(&self, to: Mac, frame: &Frame<'_>) -> io::Result<()> {
        let virtio = virtio::encode(frame.offload);
        let mut ethernet = [0; virtio::ETHERNET_LEN];
        ethernet[..6].copy_from_slice(&to);
        ethernet[6..12].copy_from_slice(&self.mac);
        ethernet[12..].copy_from_slice(&(libc::ETH_P_IP as u16).to_be_bytes());
        let parts = [&virtio[..], &ethernet, frame.packet].map(IoSlice::new);
        loop {
            let mut no_control = SendAncillaryBuffer::default();
            match sendmsg(
                self.queue.sender(),
                &parts,
                &mut no_control,
                SendFlags::empty(),
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) if self.wait_for_room() => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait_for_room(&self) -> bool {
        let mut fds = [PollFd::new(self.queue.sender(), PollFlags::OUT)];
        let patience = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: SEND_PATIENCE.as_nanos() as _,
        };
        matches!(poll(&mut fds, Some(&patience)), Ok(ready) if ready > 0)
    }
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
