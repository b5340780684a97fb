//! What the core spends on a packet of 1420 bytes, without cryptography and without system calls.
//!
//! Clients and servers are simulated on a clock that does not wait; only the time inside the core
//! is counted. `bench/` measures whole gateways against each other.

#![expect(
    clippy::unwrap_used,
    reason = "a simulation that fails shall fail loudly"
)]
#![allow(
    dead_code,
    unused_imports,
    reason = "the simulation is the tests', and serves more than this"
)]

#[path = "../tests/core/support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use popup_gateway_core::{RawSettings, Received, WayOut};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use support::World;
use support::counting::SPENT;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const INSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 8, 0, 2), 40_000);
const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);
const SEGMENT: usize = 1380;

/// Segments in one datagram of the kernel's (UDP_GRO), or one packet of a network card's.
const BATCH: usize = 40;

fn raw_world() -> World {
    World::with(1, |settings| {
        settings.way_out = WayOut::Raw(RawSettings {
            address: OUTSIDE,
            mtu: 1500,
            ports: 10_000..=31_999,
            held_ports: 512,
            trains: true,
        });
    })
}

fn segment(from: SocketAddrV4, to: SocketAddrV4, syn: bool, at: u32, data: &[u8]) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: if syn {
            TcpControl::Syn
        } else {
            TcpControl::None
        },
        seq_number: TcpSeqNumber(at as i32),
        ack_number: (!syn).then_some(TcpSeqNumber(1)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: data,
    };
    let header = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: repr.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut packet = vec![0; 20 + repr.buffer_len()];
    header.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut packet[20..]),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        &checksums,
    );
    packet
}

/// Time in the core for `packets` packets, in whole rounds of [`BATCH`].
fn timed(packets: u64, mut round: impl FnMut(u32)) -> Duration {
    let rounds = packets.div_ceil(BATCH as u64);
    let before = SPENT.get();
    for n in 0..rounds {
        round(n as u32);
    }
    (SPENT.get() - before).mul_f64(packets as f64 / (rounds * BATCH as u64) as f64)
}

fn raw(c: &mut Criterion) {
    let mut group = c.benchmark_group("raw");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    group.bench_function("up", |bencher| {
        bencher.iter_custom(|packets| {
            let mut world = raw_world();
            world.inject(0, &segment(INSIDE, REMOTE, true, 0, &[]));
            let data = [7; SEGMENT];
            timed(packets, |round| {
                let first = round * (BATCH * SEGMENT) as u32 + 1;
                let batch: Vec<_> = (0..BATCH as u32)
                    .map(|n| segment(INSIDE, REMOTE, false, first + n * SEGMENT as u32, &data))
                    .collect();
                world.inject_batch(0, &batch);
                world.frames.clear();
            })
        });
    });
    group.bench_function("down", |bencher| {
        bencher.iter_custom(|packets| {
            let mut world = raw_world();
            world.inject(0, &segment(INSIDE, REMOTE, true, 0, &[]));
            let (_, port) = *world.outside.ports.iter().next().unwrap();
            let outside = SocketAddrV4::new(OUTSIDE, port);
            let data = vec![7; SEGMENT * BATCH];
            let received = Received {
                partial_checksum: true,
                segment_size: Some(SEGMENT as u16),
            };
            timed(packets, |round| {
                let first = round * (BATCH * SEGMENT) as u32 + 1;
                world.network(&segment(REMOTE, outside, false, first, &data), received);
                world.sent_to_ports.clear();
                world.arrivals.clear();
            })
        });
    });
    group.finish();
}

fn socket(c: &mut Criterion) {
    let mut group = c.benchmark_group("socket");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    group.bench_function("up", |bencher| {
        bencher.iter_custom(|packets| {
            let total = packets as usize * SEGMENT;
            let (mut world, handle) = connected(Vec::new());
            let before = SPENT.get();
            let data = vec![7; 65_536];
            let mut sent = 0;
            let done = world.run_until(Duration::from_secs(3600), |world| {
                let socket = world.clients[0].tcp(handle);
                while socket.can_send() && sent < total {
                    let piece = data.len().min(total - sent);
                    sent += socket.send_slice(&data[..piece]).unwrap();
                }
                sent == total && socket.send_queue() == 0
            });
            assert!(done);
            SPENT.get() - before
        });
    });
    group.bench_function("down", |bencher| {
        bencher.iter_custom(|packets| {
            let total = packets as usize * SEGMENT;
            let before = SPENT.get();
            let (mut world, handle) = connected(vec![7; total]);
            let mut got = 0;
            let done = world.run_until(Duration::from_secs(3600), |world| {
                let socket = world.clients[0].tcp(handle);
                while socket.can_recv() {
                    got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
                }
                got == total
            });
            assert!(done);
            SPENT.get() - before
        });
    });
    group.finish();
}

fn connected(greeting: Vec<u8>) -> (World, smoltcp::iface::SocketHandle) {
    let mut world = World::new(1);
    world.link.delay = Duration::from_micros(200);
    world.outside.greeting = greeting;
    let handle = world.clients[0].connect(REMOTE);
    let up = world.run_until(Duration::from_secs(1), |world| {
        world.clients[0].state(handle) == State::Established
    });
    assert!(up);
    (world, handle)
}

criterion_group!(benches, raw, socket);
criterion_main!(benches);
