//! UDP at a rate.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cpu::{Meter, Used};
use crate::internet::{Internet, SINK};
use crate::lab::{Lab, cable, endpoint};

/// In each datagram.
const PAYLOAD: usize = 1200;

/// What became of the datagrams.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// By the client's program.
    pub(crate) sent: u64,
    /// By the client's own tunnel, before the server had a chance.
    pub(crate) dropped_by_client: u64,
    pub(crate) arrived: u64,
    pub(crate) used: Used,
}

impl Delivered {
    /// Of what has left the client, in percent.
    pub(crate) fn loss_percent(&self) -> f64 {
        let left = self.sent.saturating_sub(self.dropped_by_client).max(1);
        left.saturating_sub(self.arrived) as f64 * 100.0 / left as f64
    }

    /// What the client has really sent, in Mbit/s of payload.
    pub(crate) fn offered_mbit(&self) -> f64 {
        let bits = (self.sent - self.dropped_by_client) as f64 * PAYLOAD as f64 * 8.0;
        bits / 1e6 / self.used.elapsed.as_secs_f64()
    }
}

/// Sends `rate` Mbit/s of payload up for `window`.
pub(crate) fn run(
    lab: &Lab,
    internet: &Internet,
    meter: &Meter,
    rate_mbit: u64,
    window: Duration,
) -> Result<Delivered> {
    let drops = |lab: &Lab| {
        if lab.client.shell("test -e /sys/class/net/wg0").is_ok() {
            cable::counter(&lab.client, "wg0", "tx_dropped")
        } else {
            Ok(0)
        }
    };
    let (_, arrived_before) = internet.arrived()?;
    let dropped_before = drops(lab)?;
    let reading = meter.read()?;
    let sent = lab.client.enter(move || send(rate_mbit, window))?;
    let used = meter.since(reading)?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(Delivered {
        sent,
        dropped_by_client: drops(lab)? - dropped_before,
        arrived: internet.arrived()?.1 - arrived_before,
        used,
    })
}

/// In bursts of half a millisecond, as a paced sender's timer makes them.
fn send(rate_mbit: u64, window: Duration) -> Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((endpoint(0), SINK))?;
    let per_second = rate_mbit as f64 * 1e6 / 8.0 / PAYLOAD as f64;
    let payload = [0x5a; PAYLOAD];
    let begun = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= window {
            return Ok(sent);
        }
        let due = (elapsed.as_secs_f64() * per_second) as u64;
        while sent < due {
            // Refused by an unreachable answer, once for each: the datagram counts as sent.
            socket.send(&payload).ok();
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}
