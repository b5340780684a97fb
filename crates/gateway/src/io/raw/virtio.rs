//! What goes before a packet: `struct virtio_net_hdr` before every frame of a PACKET_VNET_HDR socket
//! (virtio 1.2, section 5.1.6.2; packet(7)), and the Ethernet header. The kernel takes and gives the
//! legacy form, in the machine's own byte order, with offsets from the Ethernet header.

use popup_gateway_core::{Offload, Received, Transport};

use super::network::Mac;

/// Bytes of the header.
pub(super) const LEN: usize = 10;

/// Bytes of the Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_UDP_L4: u8 = 5;
/// A flag beside the type.
const GSO_ECN: u8 = 0x80;

/// What leaves with a packet.
pub(super) fn encode(offload: Option<Offload>) -> [u8; LEN] {
    let mut header = [0; LEN];
    let Some(offload) = offload else {
        return header;
    };
    header[0] = NEEDS_CSUM;
    header[1] = match offload.transport {
        Transport::Tcp => GSO_TCPV4,
        Transport::Udp => GSO_UDP_L4,
    };
    let fields = [
        offload.header_len.saturating_add(ETHERNET_LEN as u16),
        offload.segment_size,
        offload.checksum_start.saturating_add(ETHERNET_LEN as u16),
        offload.checksum_offset,
    ];
    for (bytes, field) in header[2..].chunks_exact_mut(2).zip(fields) {
        bytes.copy_from_slice(&field.to_ne_bytes());
    }
    header
}

/// The Ethernet header of an IPv4 packet.
pub(super) fn ethernet(to: Mac, from: Mac) -> [u8; ETHERNET_LEN] {
    let mut header = [0; ETHERNET_LEN];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from);
    header[12..].copy_from_slice(&(libc::ETH_P_IP as u16).to_be_bytes());
    header
}

/// What has come with a packet.
pub(super) fn decode(header: &[u8; LEN]) -> Received {
    let size = u16::from_ne_bytes([header[4], header[5]]);
    let stands_for_several = matches!(header[1] & !GSO_ECN, GSO_TCPV4 | GSO_UDP_L4);
    Received {
        partial_checksum: header[0] & NEEDS_CSUM != 0,
        segment_size: (stands_for_several && size > 0).then_some(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_ethernet_header() {
        let offload = Offload {
            transport: Transport::Tcp,
            segment_size: 1368,
            header_len: 52,
            checksum_start: 20,
            checksum_offset: 16,
        };
        let header = encode(Some(offload));
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        assert_eq!(header[..2], [1, 1]);
        assert_eq!([field(2), field(4), field(6), field(8)], [66, 1368, 34, 16]);
        let datagrams = Offload {
            transport: Transport::Udp,
            ..offload
        };
        assert_eq!(encode(Some(datagrams))[..2], [1, 5]);
        assert_eq!(encode(None), [0; LEN]);
    }

    #[test]
    fn what_arrives_is_single_or_several_with_a_sum_finished_or_not() {
        let header = |flags, kind, size: u16| {
            let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
            header[4..6].copy_from_slice(&size.to_ne_bytes());
            decode(&header)
        };
        let received = |partial_checksum, segment_size| Received {
            partial_checksum,
            segment_size,
        };
        assert_eq!(header(0, 0, 0), received(false, None));
        assert_eq!(header(1, 0, 0), received(true, None));
        assert_eq!(header(2, 1, 1448), received(false, Some(1448)));
        assert_eq!(header(1, 0x81, 1448), received(true, Some(1448)));
        assert_eq!(header(1, 5, 1200), received(true, Some(1200)));
        assert_eq!(header(0, 1, 0), received(false, None));
    }
}
