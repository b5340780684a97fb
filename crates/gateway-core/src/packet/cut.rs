//! Cuts a packet that stands for several into those (the receiving end of GRO).

use super::Sum;
use super::layout::{Layout, Protocol, TcpFlags, fill_checksum, sequence, set_word, word};

/// Gives every packet that `packet` stands for to `emit`, whole and with its checksums.
pub(crate) fn cut(
    packet: &[u8],
    layout: &Layout,
    segment_size: usize,
    scratch: &mut Vec<u8>,
    mut emit: impl FnMut(&[u8]),
) {
    let (header, payload) = packet.split_at(layout.headers);
    let ip = layout.ip_header;
    let first_sequence = match layout.protocol {
        Protocol::Tcp => sequence(header, ip),
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
        match layout.protocol {
            Protocol::Tcp => {
                let sequence = first_sequence.wrapping_add((n * segment_size) as u32);
                scratch[ip + 4..ip + 8].copy_from_slice(&sequence.to_be_bytes());
                if n != last {
                    scratch[ip + 13] &= !(TcpFlags::FIN | TcpFlags::PSH);
                }
                if n != 0 {
                    scratch[ip + 13] &= !TcpFlags::CWR;
                }
            }
            Protocol::Udp | Protocol::Echo => set_word(scratch, ip + 4, (total - ip) as u16),
        }
        fill_checksum(scratch, layout);
        emit(scratch);
    }
}
