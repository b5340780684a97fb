//! What sealing and opening one full packet costs, in the ciphers alone and in the libraries.
//!
//! Every case gets the same 1420 bytes, the size of a full packet in a tunnel over a 1500-byte
//! path. Ciphers work in place. The libraries' cases are what a gateway would call for each
//! packet; what their interface demands besides (a copy, an allocation) is theirs and is counted.

mod ciphers;
mod tunnels;

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

/// The tunnel's MTU.
const PACKET_BYTES: usize = 1420;

/// Packets between two looks at the clock.
const BATCH: u64 = 256;

/// Both ends of an established session, or one key for both ways.
trait Pair {
    /// A packet before it is sealed.
    type Plain;
    /// A packet after it is sealed.
    type Sealed;

    fn plain(&self) -> Self::Plain;
    fn seal(&mut self, packet: Self::Plain) -> Self::Sealed;
    fn open(&mut self, sealed: Self::Sealed) -> usize;
}

fn bench<P: Pair>(criterion: &mut Criterion, name: &str, mut pair: P) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(PACKET_BYTES as u64));
    bench_seal(&mut group, &mut pair);
    bench_open(&mut group, &mut pair);
    group.finish();
}

fn bench_seal<P: Pair>(group: &mut BenchmarkGroup<'_, WallTime>, pair: &mut P) {
    group.bench_function("seal", |bencher| {
        bencher.iter_custom(|iterations| {
            batches(iterations, |count| {
                let packets: Vec<_> = (0..count).map(|_| pair.plain()).collect();
                let mut sealed = Vec::with_capacity(packets.len());
                let begun = Instant::now();
                for packet in packets {
                    sealed.push(pair.seal(packet));
                }
                let took = begun.elapsed();
                // Opened as well, since a receiver's window would otherwise fall behind.
                for packet in sealed {
                    assert_eq!(pair.open(packet), PACKET_BYTES);
                }
                took
            })
        });
    });
}

fn bench_open<P: Pair>(group: &mut BenchmarkGroup<'_, WallTime>, pair: &mut P) {
    group.bench_function("open", |bencher| {
        bencher.iter_custom(|iterations| {
            batches(iterations, |count| {
                let mut sealed = Vec::new();
                for _ in 0..count {
                    let packet = pair.plain();
                    sealed.push(pair.seal(packet));
                }
                let begun = Instant::now();
                for packet in sealed {
                    assert_eq!(pair.open(packet), PACKET_BYTES);
                }
                begun.elapsed()
            })
        });
    });
}

/// Cuts `iterations` into batches and adds up what each says it took.
fn batches(iterations: u64, mut batch: impl FnMut(u64) -> Duration) -> Duration {
    let mut left = iterations;
    let mut took = Duration::ZERO;
    while left > 0 {
        let count = left.min(BATCH);
        took += batch(count);
        left -= count;
    }
    took
}

/// An IPv4 packet that fills the tunnel.
fn packet() -> Vec<u8> {
    let mut packet: Vec<u8> = (0..PACKET_BYTES).map(|at| at as u8).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET_BYTES as u16).to_be_bytes());
    packet
}

criterion_group!(benches, ciphers::all, tunnels::all);
criterion_main!(benches);
