//! Cuts a packet that stands for several into those (the receiving end of GRO).

use super::Sum;
use super::layout::{Layout, Protocol, TcpFlags, fill_checksum, sequence, set_word};

/// Longest headers: IPv4 and TCP, each with all the options there can be.
const MAX_HEADERS: usize = 60 + 60;

/// Gives every packet that `packet` stands for to `emit`, whole and with its checksums.
///
/// No payload is moved: each header is written over the end of the piece before, which `emit` is
/// done with.
pub(crate) fn cut(
    packet: &mut [u8],
    layout: &Layout,
    segment_size: usize,
    mut emit: impl FnMut(&[u8]),
) {
    let (ip, headers) = (layout.ip_header, layout.headers);
    let mut template = [0; MAX_HEADERS];
    let Some(template) = template.get_mut(..headers) else {
        return; // No layout has longer ones.
    };
    template.copy_from_slice(&packet[..headers]);
    let first_sequence = match layout.protocol {
        Protocol::Tcp => sequence(template, ip),
        Protocol::Udp | Protocol::Echo => 0,
    };
    let identification = u16::from_be_bytes([template[4], template[5]]);
    let segment_size = segment_size.max(1);
    let count = (packet.len() - headers).div_ceil(segment_size).max(1);
    for n in 0..count {
        let start = n * segment_size;
        let end = packet.len().min(start + headers + segment_size);
        let segment = &mut packet[start..end];
        segment[..headers].copy_from_slice(template);
        let total = segment.len();
        set_word(segment, 2, total as u16);
        set_word(segment, 4, identification.wrapping_add(n as u16));
        set_word(segment, 10, 0);
        let checksum = Sum::of(&segment[..ip]).checksum();
        set_word(segment, 10, checksum);
        match layout.protocol {
            Protocol::Tcp => {
                let sequence = first_sequence.wrapping_add(start as u32);
                segment[ip + 4..ip + 8].copy_from_slice(&sequence.to_be_bytes());
                if n + 1 != count {
                    segment[ip + 13] &= !(TcpFlags::FIN | TcpFlags::PSH);
                }
                if n != 0 {
                    segment[ip + 13] &= !TcpFlags::CWR;
                }
            }
            Protocol::Udp | Protocol::Echo => set_word(segment, ip + 4, (total - ip) as u16),
        }
        fill_checksum(segment, layout);
        emit(segment);
    }
}
