//! TCP segments outside a connection: enough to open a flow, or to refuse one.

use std::net::SocketAddrV4;

use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::IPV4_HEADER;
use super::ipv4::{Parsed, write_header};
use super::layout::checksum_is_right;
use crate::DropReason;

/// What decides the fate of a segment before its connection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    syn: bool,
    ack: bool,
    pub(crate) rst: bool,
}

impl Segment {
    /// Whether it asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.syn && !self.ack && !self.rst
    }
}

/// The endpoints of a segment, and its control bits.
pub(crate) fn ports_and_flags(packet: &Parsed<'_>) -> Result<Segment, DropReason> {
    let segment =
        TcpPacket::new_checked(packet.payload).map_err(|_| DropReason::MalformedPacket)?;
    if segment.src_port() == 0 || segment.dst_port() == 0 {
        return Err(DropReason::MalformedPacket);
    }
    Ok(Segment {
        source: SocketAddrV4::new(packet.source, segment.src_port()),
        destination: SocketAddrV4::new(packet.destination, segment.dst_port()),
        syn: segment.syn(),
        ack: segment.ack(),
        rst: segment.rst(),
    })
}

/// Checks a segment's checksum, which no connection does.
pub(crate) fn verify_segment(packet: &Parsed<'_>) -> Result<(), DropReason> {
    if checksum_is_right(packet.bytes, packet.bytes.len() - packet.payload.len()) {
        Ok(())
    } else {
        Err(DropReason::InvalidChecksum)
    }
}

/// The reset that answers a segment of no connection (RFC 9293, section 3.10.7.1).
pub(crate) fn reset_for<'a>(buffer: &'a mut Vec<u8>, packet: &Parsed<'_>) -> Option<&'a [u8]> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    if segment.rst() {
        return None;
    }
    let (seq_number, ack_number) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (
            TcpSeqNumber(0),
            Some(segment.seq_number() + segment.segment_len()),
        )
    };
    Some(answer(
        buffer,
        packet,
        &segment,
        TcpControl::Rst,
        seq_number,
        ack_number,
    ))
}

/// The acknowledgement of a FIN that is repeated after the end of its connection (RFC 9293, section 3.10.7.4: TIME-WAIT).
pub(crate) fn acknowledgement_of_end<'a>(
    buffer: &'a mut Vec<u8>,
    packet: &Parsed<'_>,
) -> Option<&'a [u8]> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    if !segment.fin() || !segment.ack() || segment.rst() {
        return None;
    }
    // The peer has everything from us, so what it acknowledges is where we are.
    let (seq_number, end) = (
        segment.ack_number(),
        segment.seq_number() + segment.segment_len(),
    );
    Some(answer(
        buffer,
        packet,
        &segment,
        TcpControl::None,
        seq_number,
        Some(end),
    ))
}

/// A segment without data back to where `packet` came from.
fn answer<'a>(
    buffer: &'a mut Vec<u8>,
    packet: &Parsed<'_>,
    segment: &TcpPacket<&[u8]>,
    control: TcpControl,
    seq_number: TcpSeqNumber,
    ack_number: Option<TcpSeqNumber>,
) -> &'a [u8] {
    let answer = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    buffer.clear();
    buffer.resize(IPV4_HEADER + answer.buffer_len(), 0);
    answer.emit(
        &mut TcpPacket::new_unchecked(&mut buffer[IPV4_HEADER..]),
        &packet.destination.into(),
        &packet.source.into(),
        &smoltcp::phy::ChecksumCapabilities::default(),
    );
    write_header(
        buffer,
        packet.destination,
        packet.source,
        IpProtocol::Tcp,
        0,
    );
    buffer
}
