//! The WireGuard libraries: a session between two ends in one process.

use std::sync::Arc;

use criterion::Criterion;

use super::{Pair, bench, packet};

pub(crate) fn all(criterion: &mut Criterion) {
    bench(criterion, "tunnel boringtun", Boringtun::new());
    bench(criterion, "tunnel defguard_boringtun", Defguard::new());
    bench(criterion, "tunnel gotatun with aws-lc-rs", Gotatun::new());
}

const SECRETS: [[u8; 32]; 2] = [[3; 32], [5; 32]];

/// boringtun and its fork have the same interface under different types.
macro_rules! boringtun_like {
    ($name:ident, $library:ident) => {
        struct $name {
            sender: $library::noise::Tunn,
            receiver: $library::noise::Tunn,
            packet: Vec<u8>,
            buffer: Vec<u8>,
        }

        impl $name {
            fn new() -> Self {
                use $library::noise::{Tunn, TunnResult};
                use $library::x25519::{PublicKey, StaticSecret};
                let secrets = SECRETS.map(StaticSecret::from);
                let public = [PublicKey::from(&secrets[0]), PublicKey::from(&secrets[1])];
                let [first, second] = secrets;
                let mut sender = Tunn::new(first, public[1], None, None, 1, None);
                let mut receiver = Tunn::new(second, public[0], None, None, 2, None);
                let mut buffers = [vec![0; 2048], vec![0; 2048]];
                let [here, there] = &mut buffers;
                let TunnResult::WriteToNetwork(initiation) =
                    sender.format_handshake_initiation(here, false)
                else {
                    panic!("no initiation");
                };
                let TunnResult::WriteToNetwork(response) =
                    receiver.decapsulate(None, initiation, there)
                else {
                    panic!("no response");
                };
                let TunnResult::WriteToNetwork(keepalive) =
                    sender.decapsulate(None, response, here)
                else {
                    panic!("no keepalive");
                };
                receiver.decapsulate(None, keepalive, there);
                Self {
                    sender,
                    receiver,
                    packet: packet(),
                    buffer: vec![0; 2048],
                }
            }
        }

        impl Pair for $name {
            /// Room for the result.
            type Plain = Vec<u8>;
            type Sealed = Vec<u8>;

            fn plain(&self) -> Vec<u8> {
                vec![0; self.packet.len() + 32]
            }

            fn seal(&mut self, mut sealed: Vec<u8>) -> Vec<u8> {
                use $library::noise::TunnResult;
                match self.sender.encapsulate(&self.packet, &mut sealed) {
                    TunnResult::WriteToNetwork(_) => sealed,
                    other => panic!("{other:?}"),
                }
            }

            fn open(&mut self, sealed: Vec<u8>) -> usize {
                use $library::noise::TunnResult;
                match self.receiver.decapsulate(None, &sealed, &mut self.buffer) {
                    TunnResult::WriteToTunnelV4(packet, _) => packet.len(),
                    other => panic!("{other:?}"),
                }
            }
        }
    };
}

boringtun_like!(Boringtun, boringtun);
boringtun_like!(Defguard, defguard_boringtun);

struct Gotatun {
    sender: gotatun::noise::Tunn,
    receiver: gotatun::noise::Tunn,
    packet: Vec<u8>,
}

impl Gotatun {
    fn new() -> Self {
        use gotatun::noise::index_table::IndexTable;
        use gotatun::noise::rate_limiter::RateLimiter;
        use gotatun::noise::{Tunn, TunnResult};
        use gotatun::x25519::{PublicKey, StaticSecret};
        let [first, second] = SECRETS.map(StaticSecret::from);
        let public = [PublicKey::from(&first), PublicKey::from(&second)];
        let limit = |key| Arc::new(RateLimiter::new(key, 100));
        let mut sender = Tunn::new(
            first,
            public[1],
            None,
            None,
            IndexTable::from_os_rng(),
            limit(&public[0]),
        );
        let mut receiver = Tunn::new(
            second,
            public[0],
            None,
            None,
            IndexTable::from_os_rng(),
            limit(&public[1]),
        );
        let initiation = sender.format_handshake_initiation(false).unwrap();
        let TunnResult::WriteToNetwork(response) =
            receiver.handle_incoming_packet(initiation.into())
        else {
            panic!("no response");
        };
        let TunnResult::WriteToNetwork(keepalive) = sender.handle_incoming_packet(response) else {
            panic!("no keepalive");
        };
        receiver.handle_incoming_packet(keepalive);
        Self {
            sender,
            receiver,
            packet: packet(),
        }
    }
}

impl Pair for Gotatun {
    type Plain = gotatun::packet::Packet;
    type Sealed = gotatun::packet::Packet<gotatun::packet::WgData>;

    fn plain(&self) -> Self::Plain {
        gotatun::packet::Packet::copy_from(self.packet.as_slice())
    }

    fn seal(&mut self, packet: Self::Plain) -> Self::Sealed {
        self.sender
            .encapsulate_with_session(packet)
            .unwrap_or_else(|_| panic!("no session"))
    }

    fn open(&mut self, sealed: Self::Sealed) -> usize {
        match self.receiver.decapsulate_with_session(sealed) {
            Ok(packet) => packet.len(),
            Err(error) => panic!("{error:?}"),
        }
    }
}
