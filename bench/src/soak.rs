//! Many bytes through our gateway, every one of them looked at.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Result, ensure};

use crate::internet::{BULK, Pattern, Request};
use crate::options::Options;
use crate::rows::{Bench, Row};
use crate::servers::Kind;
use crate::tools::Tools;

/// Each connection carries so much.
const PART: u64 = 512 << 20;

/// Half of `gigabytes` down and half up, through each of our gateway's modes that was asked for.
pub(crate) fn run(gigabytes: u64, options: &Options, tools: &Tools) -> Result<()> {
    let ours = [Kind::PopupRaw, Kind::PopupSocket];
    for kind in options.servers.iter().filter(|kind| ours.contains(kind)) {
        let bench = Bench::new(*kind, Row::Tcp, options, tools)?;
        let parts = (gigabytes * 1_000_000_000 / 2).div_ceil(PART);
        let begun = std::time::Instant::now();
        for part in 0..parts {
            let congestion = options.plan.congestion.clone();
            bench.lab.client.enter(move || {
                down(&congestion, part as usize)?;
                up(&congestion, part as usize)
            })?;
        }
        let carried = (parts * PART * 2) as f64 / 1e9;
        crate::say(&format!(
            "{}: {carried:.1} GB in {:.0} s, zero corrupt bytes",
            kind.name(),
            begun.elapsed().as_secs_f64()
        ))?;
    }
    Ok(())
}

fn ask(congestion: &str, endpoint: usize, request: Request) -> Result<TcpStream> {
    let mut stream = crate::load::connect(congestion, None, endpoint, BULK)?;
    stream.write_all(&request.to_bytes())?;
    Ok(stream)
}

fn down(congestion: &str, endpoint: usize) -> Result<()> {
    let mut stream = ask(congestion, endpoint, Request::SendPattern(PART))?;
    let good = Pattern::default().check(&mut stream)?;
    ensure!(good == PART, "only {good} of {PART} bytes came down");
    Ok(())
}

fn up(congestion: &str, endpoint: usize) -> Result<()> {
    let mut stream = ask(congestion, endpoint, Request::CheckPattern)?;
    Pattern::default().send(&mut stream, PART)?;
    stream.shutdown(Shutdown::Write)?;
    let mut good = [0; 8];
    stream.read_exact(&mut good)?;
    let good = u64::from_le_bytes(good);
    ensure!(good == PART, "only {good} of {PART} bytes went up");
    Ok(())
}
