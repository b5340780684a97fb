//! A machine with a real WireGuard client.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{Finished, Host, Namespace};

/// The program that does what the kernel's `wireguard` module would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Userspace {
    /// What `wg-quick` chooses by itself.
    WireguardGo,
    /// Cloudflare's.
    Boringtun,
}

/// The machine. `wg-quick` does in it what it does anywhere.
#[derive(Debug)]
pub struct Client {
    pub namespace: Namespace,
    /// Its address outside the tunnel.
    pub address: String,
    directory: TempDir,
}

impl Client {
    pub(super) fn new(host: &Host) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("popup-client-")
            .tempdir()
            .unwrap();
        fs::write(directory.path().join("resolv.conf"), "").unwrap();
        let namespace = Namespace::new(&format!(
            "ip link set lo up
             mkdir -p /run/wireguard /run/resolvconf
             mount --bind '{}/resolv.conf' \"$(readlink -f /etc/resolv.conf)\"
             mount -t tmpfs tmpfs /run/wireguard
             mount -t tmpfs tmpfs /run/resolvconf",
            directory.path().display()
        ));
        let address = host.attach(&namespace);
        Self {
            namespace,
            address,
            directory,
        }
    }

    /// `wg-quick up ./popup.conf`, with the file as it is.
    pub fn up(&self, conf: &str, userspace: Userspace) {
        let file = self.directory.path().join("popup.conf");
        fs::write(&file, conf).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let choice = match userspace {
            Userspace::WireguardGo => "",
            Userspace::Boringtun => "WG_QUICK_USERSPACE_IMPLEMENTATION=boringtun-cli WG_SUDO=true",
        };
        if userspace == Userspace::Boringtun {
            assert!(
                Path::new(TOOLS).join("boringtun-cli").exists(),
                "{TOOLS} has no boringtun-cli: run `scripts/tools.sh boringtun-cli`, or `make test`"
            );
        }
        self.wg_quick(choice, "up")
            .expect("wg-quick up ./popup.conf");
    }

    /// `wg-quick down ./popup.conf`.
    pub fn down(&self) {
        self.wg_quick("", "down")
            .expect("wg-quick down ./popup.conf");
    }

    fn wg_quick(&self, environment: &str, verb: &str) -> Finished {
        let directory = self.directory.path().display();
        let script = format!(
            "cd '{directory}' && exec env PATH=\"$PATH:{TOOLS}\" {environment} wg-quick {verb} ./popup.conf </dev/null >wg-quick.log 2>&1"
        );
        let mut finished = self
            .namespace
            .run(Duration::from_secs(30), &["sh", "-c", &script]);
        finished.output.stderr =
            fs::read(self.directory.path().join("wg-quick.log")).unwrap_or_default();
        finished
    }

    /// Runs a program on the machine.
    pub fn run(&self, patience_s: u64, arguments: &[&str]) -> Finished {
        self.namespace
            .run(Duration::from_secs(patience_s), arguments)
    }

    /// `curl` with a time limit; the answer's body is on its output.
    pub fn curl(&self, patience_s: u64, arguments: &[&str]) -> Finished {
        let mut all = vec![
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
        ];
        all.extend_from_slice(arguments);
        self.run(patience_s, &all)
    }

    /// Runs `work` with its sockets made on the machine.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(work)
    }

    /// A directory on the machine.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Where `scripts/tools.sh` puts programs that no distribution has.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin");
