//! The UAPI socket of the cross-platform userspace interface, read-only, so that `wg show` works
//! (<https://www.wireguard.com/xplatform/>). It holds no private and no preshared key.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use popup_gateway_core::PeerReport;

use crate::io::{LoopHandle, Snapshot};

/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest request read.
const MAX_REQUEST: u64 = 4096;

/// Errno of a request that would change something.
const EPERM: u8 = 1;

/// Opens `<directory>/<interface>.sock` and answers on a thread of its own.
pub(crate) fn start(
    directory: &Path,
    interface: &str,
    port: u16,
    packets: LoopHandle,
) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("{interface}.sock"));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new()
        .name("uapi".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = answer(stream, port, &packets) {
                    tracing::debug!("UAPI: {error}");
                }
            }
        })?;
    Ok(())
}

fn answer(mut stream: UnixStream, port: u16, packets: &LoopHandle) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_request(&mut stream)?;
    let reply = match request.lines().next() {
        Some("get=1") => match packets.report() {
            Some(snapshot) => describe(&snapshot, port),
            None => return Ok(()),
        },
        Some(_) => format!("errno={EPERM}\n\n"),
        // `wg` opens the socket once only to see whether somebody listens.
        None => return Ok(()),
    };
    stream.write_all(reply.as_bytes())
}

/// Reads up to the empty line that ends a request.
fn read_request(stream: &mut UnixStream) -> io::Result<String> {
    let mut request = Vec::new();
    let mut limited = stream.take(MAX_REQUEST);
    let mut byte = [0];
    while !request.ends_with(b"\n\n") && limited.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    String::from_utf8(request).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn describe(snapshot: &Snapshot, port: u16) -> String {
    let mut text = format!("listen_port={port}\n");
    for peer in &snapshot.peers {
        describe_peer(&mut text, snapshot, peer);
    }
    text.push_str("errno=0\n\n");
    text
}

fn describe_peer(text: &mut String, snapshot: &Snapshot, peer: &PeerReport) {
    let key: String = peer
        .public_key
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let handshake = peer.latest_handshake.map_or(Duration::ZERO, |at| {
        let wall = SystemTime::now() - snapshot.at.saturating_duration_since(at);
        wall.duration_since(UNIX_EPOCH).unwrap_or_default()
    });
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name}={value}");
    };
    line("public_key", &key);
    line("protocol_version", &1);
    if let Some(endpoint) = peer.endpoint {
        line("endpoint", &endpoint);
    }
    line("last_handshake_time_sec", &handshake.as_secs());
    line("last_handshake_time_nsec", &handshake.subsec_nanos());
    line("tx_bytes", &peer.tx_bytes);
    line("rx_bytes", &peer.rx_bytes);
    line("persistent_keepalive_interval", &0);
    line("allowed_ip", &format_args!("{}/32", peer.ipv4));
    line("allowed_ip", &format_args!("{}/128", peer.ipv6));
}
