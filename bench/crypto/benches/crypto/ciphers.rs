//! ChaCha20-Poly1305 alone.

use criterion::Criterion;

use super::{PACKET_BYTES, Pair, bench, packet};

pub(crate) fn all(criterion: &mut Criterion) {
    bench(criterion, "cipher ring", Ring::new());
    bench(criterion, "cipher aws-lc-rs", AwsLc::new());
    bench(criterion, "cipher chacha20poly1305", RustCrypto::new());
}

const KEY: [u8; 32] = [7; 32];

fn with_room(packet: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(packet.len() + 16);
    buffer.extend_from_slice(packet);
    buffer
}

/// aws-lc-rs has ring's interface, so one body serves both.
macro_rules! like_ring {
    ($name:ident, $library:ident) => {
        struct $name {
            key: $library::aead::LessSafeKey,
            packet: Vec<u8>,
        }

        impl $name {
            fn new() -> Self {
                use $library::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
                Self {
                    key: LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &KEY).unwrap()),
                    packet: packet(),
                }
            }
        }

        impl Pair for $name {
            type Plain = Vec<u8>;
            type Sealed = Vec<u8>;

            fn plain(&self) -> Vec<u8> {
                with_room(&self.packet)
            }

            fn seal(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key([0; 12]);
                let tag = self
                    .key
                    .seal_in_place_separate_tag(nonce, Aad::empty(), &mut packet)
                    .unwrap();
                packet.extend_from_slice(tag.as_ref());
                packet
            }

            fn open(&mut self, mut sealed: Vec<u8>) -> usize {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key([0; 12]);
                self.key
                    .open_in_place(nonce, Aad::empty(), &mut sealed)
                    .unwrap()
                    .len()
            }
        }
    };
}

like_ring!(Ring, ring);
like_ring!(AwsLc, aws_lc_rs);

struct RustCrypto {
    key: chacha20poly1305::ChaCha20Poly1305,
    packet: Vec<u8>,
}

impl RustCrypto {
    fn new() -> Self {
        use chacha20poly1305::KeyInit as _;
        Self {
            key: chacha20poly1305::ChaCha20Poly1305::new(&KEY.into()),
            packet: packet(),
        }
    }
}

impl Pair for RustCrypto {
    type Plain = Vec<u8>;
    type Sealed = Vec<u8>;

    fn plain(&self) -> Vec<u8> {
        with_room(&self.packet)
    }

    fn seal(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        use chacha20poly1305::AeadInPlace as _;
        let tag = self
            .key
            .encrypt_in_place_detached(&[0; 12].into(), b"", &mut packet)
            .unwrap();
        packet.extend_from_slice(&tag);
        packet
    }

    fn open(&mut self, mut sealed: Vec<u8>) -> usize {
        use chacha20poly1305::AeadInPlace as _;
        let (packet, tag) = sealed.split_at_mut(PACKET_BYTES);
        let tag = chacha20poly1305::Tag::clone_from_slice(tag);
        self.key
            .decrypt_in_place_detached(&[0; 12].into(), b"", packet, &tag)
            .unwrap();
        packet.len()
    }
}
