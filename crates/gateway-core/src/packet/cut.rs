//! Cuts a packet that stands for several into those (the receiving end of GRO).

use smoltcp::wire::IpProtocol;

use super::Sum;
use super::layout::{Layout, Protocol, TcpFlags, set_word, udp_nonzero, word};

/// Gives every packet that `packet` stands for to `emit`, whole and with its checksums.
pub(crate) fn cut(
    packet: &[u8],
    layout: &Layout,
    segment_size: usize,
    scratch: &mut Vec<u8>,
    mut emit: impl FnMut(&[u8]),
) {
    let (header, payload) = packet.split_at(layout.headers);
    let (tcp, ip) = (layout.ip_header, layout.ip_header);
    let first_sequence = match layout.protocol {
        Protocol::Tcp => u32::from(word(header, tcp + 4)) << 16 | u32::from(word(header, tcp + 6)),
        Protocol::Udp | Protocol::Echo => 0,
    };
    let identification = word(header, 4);
    let last = payload.len().saturating_sub(1) / segment_size.max(1);
    for (n, piece) in payload.chunks(segment_size.max(1)).enumerate() {
        scratch.clear();
        scratch.extend_from_slice(header);
        scratch.extend_from_slice(piece);
        let total = scratch.len();
        set_word(scratch, 2, total as u16);
        set_word(scratch, 4, identification.wrapping_add(n as u16));
        set_word(scratch, 10, 0);
        let checksum = Sum::of(&scratch[..ip]).checksum();
        set_word(scratch, 10, checksum);
        let protocol = match layout.protocol {
            Protocol::Tcp => {
                let sequence = first_sequence.wrapping_add((n * segment_size) as u32);
                scratch[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
                if n != last {
                    scratch[tcp + 13] &= !(TcpFlags::FIN | TcpFlags::PSH);
                }
                if n != 0 {
                    scratch[tcp + 13] &= !TcpFlags::CWR;
                }
                IpProtocol::Tcp
            }
            Protocol::Udp | Protocol::Echo => {
                set_word(scratch, ip + 4, (total - ip) as u16);
                IpProtocol::Udp
            }
        };
        let checksum_at = layout.checksum_at();
        set_word(scratch, checksum_at, 0);
        let checksum = Sum::of_pseudo_header(
            *layout.source.ip(),
            *layout.destination.ip(),
            protocol,
            total - ip,
        )
        .plus_sum(Sum::of(&scratch[ip..]))
        .checksum();
        set_word(scratch, checksum_at, udp_nonzero(layout.protocol, checksum));
        emit(scratch);
    }
}
