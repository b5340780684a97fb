//! The Internet checksum: sums, and changes of one (RFC 1071, RFC 1624).

use std::net::Ipv4Addr;

/// A one's complement sum of 16-bit words in network order, with its carries not yet folded in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// The sum of `bytes`, with a zero after an odd number of them.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        // Sums of wide words in the machine's order fold to the sum of 16-bit words in that order,
        // and differ from the network's only by a swap of the two bytes (RFC 1071, section 2 (B)).
        let mut sum = 0;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut rest = [0; 4];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        sum += u64::from(u32::from_ne_bytes(rest));
        Self(u64::from(fold(sum).to_be()))
    }

    /// The sum of the pseudo-header of what an IPv4 packet carries (RFC 9293, section 3.1).
    pub(crate) fn of_pseudo_header(packet: &[u8], ip_header: usize) -> Self {
        let (protocol, addresses) = (packet[9], &packet[12..20]);
        Self::of(addresses)
            .plus(u16::from(protocol))
            .plus((packet.len() - ip_header) as u16)
    }

    pub(crate) fn plus(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    pub(crate) fn minus(self, word: u16) -> Self {
        self.plus(!word)
    }

    pub(crate) fn plus_sum(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    pub(crate) fn plus_address(self, address: Ipv4Addr) -> Self {
        Self(self.0 + u64::from(u32::from(address)))
    }

    pub(crate) fn minus_address(self, address: Ipv4Addr) -> Self {
        Self(self.0 + u64::from(!u32::from(address)))
    }

    /// The sum itself, as an unfinished checksum has it.
    pub(crate) fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the sum's complement.
    pub(crate) fn checksum(self) -> u16 {
        !self.folded()
    }

    /// What `checksum` becomes when what it covers changes by this much (RFC 1624, equation 3).
    pub(crate) fn update(self, checksum: u16) -> u16 {
        self.plus(!checksum).checksum()
    }

    /// What an unfinished checksum becomes when what it covers changes by this much.
    pub(crate) fn update_unfinished(self, sum: u16) -> u16 {
        self.plus(sum).folded()
    }
}

fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            // Both zeroes of one's complement are zero.
            prop_assert_eq!(Sum::of(&bytes).folded() % 0xffff, slow(&bytes) % 0xffff);
        }

        #[test]
        fn a_changed_word_changes_the_checksum_as_summing_again_does(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..200),
            at in any::<proptest::sample::Index>(),
            new in any::<u16>(),
        ) {
            if bytes.len() % 2 == 1 {
                bytes.pop();
            }
            let at = at.index(bytes.len() / 2) * 2;
            let before = Sum::of(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let after = Sum::default().minus(old).plus(new).update(before);
            prop_assert_eq!(after % 0xffff, Sum::of(&bytes).checksum() % 0xffff);
        }
    }
}
