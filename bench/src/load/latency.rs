//! How long an answer takes.

use std::io::Read as _;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::internet::ECHO;
use crate::lab::{Lab, endpoint};

/// Round trips, sorted.
#[derive(Debug)]
pub(crate) struct Times {
    sorted: Vec<Duration>,
    /// Questions without an answer.
    pub(crate) lost: usize,
}

impl Times {
    fn new(mut times: Vec<Duration>, asked: usize) -> Result<Self> {
        ensure!(!times.is_empty(), "no answer to {asked} questions");
        times.sort_unstable();
        Ok(Self {
            lost: asked - times.len(),
            sorted: times,
        })
    }

    /// In microseconds; `percent` of all are as fast or faster.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.sorted.len() * percent / 100).min(self.sorted.len() - 1);
        self.sorted[at].as_secs_f64() * 1e6
    }
}

/// UDP datagrams of 64 bytes, there and back, one each 4 ms.
pub(crate) fn udp(lab: &Lab, window: Duration) -> Result<Times> {
    const PERIOD: Duration = Duration::from_millis(4);
    let count = window.div_duration_f64(PERIOD) as usize;
    lab.client.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((endpoint(0), ECHO))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut times = Vec::new();
        let mut buffer = [0; 64];
        for number in 0..count as u64 {
            let mut question = [0; 64];
            question[..8].copy_from_slice(&number.to_le_bytes());
            let begun = Instant::now();
            socket.send(&question).ok();
            // An answer to an earlier question is not one to this.
            while socket.recv(&mut buffer).is_ok() {
                if buffer == question {
                    times.push(begun.elapsed());
                    break;
                }
            }
            std::thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
        }
        Times::new(times, count)
    })
}

/// TCP from `connect` to the first byte, a connection each 8 ms, one after the other.
pub(crate) fn tcp(lab: &Lab, window: Duration) -> Result<Times> {
    const PERIOD: Duration = Duration::from_millis(8);
    let count = window.div_duration_f64(PERIOD) as usize;
    let congestion = lab.plan.congestion.clone();
    lab.client.enter(move || {
        let mut times = Vec::new();
        for number in 0..count {
            let begun = Instant::now();
            if let Ok(mut stream) = super::connect(&congestion, None, number, ECHO) {
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                if stream.read_exact(&mut [0]).is_ok() {
                    times.push(begun.elapsed());
                }
            }
            std::thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
        }
        Times::new(times, count)
    })
}
