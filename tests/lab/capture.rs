//! What passes a wire, and what `tshark` says of it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::Namespace;
use super::namespace::kill;

/// A capture that goes on.
#[derive(Debug)]
pub struct Capture<'space> {
    namespace: &'space Namespace,
    process: Child,
    directory: TempDir,
}

/// Frames as they were on the wire.
#[derive(Debug)]
pub struct Captured {
    directory: TempDir,
}

const FILE: &str = "wire.pcap";

impl<'space> Capture<'space> {
    /// Begins to capture IPv4 on an interface of the box.
    pub fn begin(namespace: &'space Namespace, interface: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("popup-wire-")
            .tempdir()
            .unwrap();
        let file = directory.path().join(FILE).display().to_string();
        let mut process = namespace
            .command("tcpdump")
            .args(["-i", interface, "--immediate-mode", "-B", "65536", "-U"])
            .args(["-Z", "root", "-s", "0", "-w", &file, "ip"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            let read = words.read_line(&mut line).unwrap();
            assert!(read > 0, "tcpdump ends before it begins");
        }
        // It says more when it ends, and must not find the pipe closed.
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
        Self {
            namespace,
            process,
            directory,
        }
    }

    /// Ends it.
    pub fn end(mut self) -> Captured {
        for pid in self.namespace.processes("tcpdump") {
            kill(pid, Signal::INT);
        }
        self.process.wait().unwrap();
        Captured {
            directory: self.directory,
        }
    }
}

impl Captured {
    /// The frames that a display filter matches, one line each. Checksums are looked at.
    pub fn matching(&self, filter: &str) -> Vec<String> {
        let file: PathBuf = self.directory.path().join(FILE);
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(file).args(["-Y", filter]);
        for protocol in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(str::to_owned).collect()
    }
}
