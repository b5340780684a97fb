//! How long the handler takes from exec to its first answered request, and what it weighs then.
//!
//! It is set up for Azure, as the Functions host starts it, and asked what the host asks first.
//! Nothing is sent to Azure on the way, so this runs anywhere. The goals are 20 ms and 20 MB.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);
const GUID: &str = "00000000-0000-0000-0000-000000000001";
const IDENTITY: &str = "/subscriptions/x/resourceGroups/g/providers/\
                        Microsoft.ManagedIdentity/userAssignedIdentities/gateway";

struct Handler(Child);

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> std::io::Result<()> {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(run()?);
    }
    runs.sort_unstable();
    let (median, _) = runs[RUNS / 2];
    let (slowest, _) = runs[RUNS - 1];
    let heaviest_kb = runs.iter().map(|(_, kb)| *kb).max().unwrap_or_default();
    println!("exec to first answer: median {median:.1?}, slowest of {RUNS} {slowest:.1?}");
    println!(
        "peak resident memory by then: {:.1} MB",
        heaviest_kb as f64 / 1024.0
    );
    Ok(())
}

/// The time to the first answer, and the peak resident memory in KB.
fn run() -> std::io::Result<(Duration, u64)> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_popup-vpn"))
        .env_clear()
        .envs([
            ("FUNCTIONS_WORKER_RUNTIME", "custom"),
            ("FUNCTIONS_CUSTOMHANDLER_PORT", &address.port().to_string()),
            ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token"),
            ("IDENTITY_HEADER", "x"),
            ("SUBSCRIPTION_ID", GUID),
            ("RESOURCE_GROUP", "popup"),
            ("REGIONS", "northeurope"),
            (
                "STORAGE_ACCOUNT_URL",
                "https://popup.blob.core.windows.net/",
            ),
            ("GATEWAY_IDENTITY_ID", IDENTITY),
            ("GATEWAY_IDENTITY_CLIENT_ID", GUID),
        ])
        .stdout(Stdio::null())
        .spawn()?;
    let handler = Handler(child);
    while let Err(error) = ask(address) {
        if begun.elapsed() > PATIENCE {
            return Err(error);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let elapsed = begun.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", handler.0.id()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    Ok((elapsed, peak.unwrap_or_default()))
}

fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(std::io::Error::other(answer)),
    }
}
