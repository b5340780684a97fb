//! The box in which the product runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use tempfile::TempDir;

use super::{Internet, Namespace};

/// The unprivileged user and group the product runs as.
const NOBODY: u32 = 65534;

/// The host's address on the clients' network: what goes into `Endpoint`.
pub const OUTER: &str = "198.51.100.1";

/// The gateway's port, outside every range that a system hands out by itself.
pub const UDP_PORT: u16 = 51820;

/// What the host's system allows to users without privileges.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// `net.ipv4.ping_group_range` includes everybody.
    pub ping_sockets: bool,
    /// `net.ipv4.ip_unprivileged_port_start` is 0.
    pub low_ports: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ping_sockets: true,
            low_ports: false,
        }
    }
}

/// What one of the product's programs may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Nothing: another user, no capability, none to be had.
    Nothing,
    /// The same with CAP_NET_RAW.
    NetRaw,
    /// Root with what containers give by default.
    Container,
}

/// What docker and containerd give to root in a container.
const CONTAINER: &str = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,\
                         +net_bind_service,+sys_chroot,+kill,+audit_write";

impl Rights {
    /// Arguments of `setpriv`.
    fn arguments(self) -> Vec<String> {
        let sets = |bounding: &str, given: &str| {
            vec![
                format!("--bounding-set={bounding}"),
                format!("--inh-caps={given}"),
                format!("--ambient-caps={given}"),
            ]
        };
        let nobody = [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ];
        let nobody = nobody.map(str::to_owned);
        match self {
            Self::Nothing => [sets("-all", "-all"), nobody.to_vec()].concat(),
            Self::NetRaw => [sets("-all,+net_raw", "-all,+net_raw"), nobody.to_vec()].concat(),
            Self::Container => sets(CONTAINER, "-all"),
        }
    }
}

/// The machine with the handler and the gateway.
#[derive(Debug)]
pub struct Host {
    pub namespace: Namespace,
    directory: TempDir,
    clients: AtomicU8,
}

impl Host {
    pub(super) fn new(settings: Settings) -> Self {
        let programs = programs();
        let directory = tempfile::Builder::new()
            .prefix("popup-lab-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
        // The programs are reached by a mount, since an unprivileged user may not be able to walk
        // to the directory they were built in.
        let setup = format!(
            "ip link set lo up
             ip link add clients type bridge
             ip address add {OUTER}/24 dev clients
             ip link set clients up
             mount -t tmpfs tmpfs /dev/net
             mount -t tmpfs -o mode=755 tmpfs /mnt
             mkdir /mnt/bin /mnt/state
             mount --bind '{programs}' /mnt/bin
             mount --bind '{state}' /mnt/state
             echo '{ping}' >/proc/sys/net/ipv4/ping_group_range
             echo '{low}' >/proc/sys/net/ipv4/ip_unprivileged_port_start",
            programs = programs.display(),
            state = state.display(),
            ping = if settings.ping_sockets {
                "0 2147483647"
            } else {
                "1 0"
            },
            low = if settings.low_ports { 0 } else { 1024 },
        );
        Self {
            namespace: Namespace::new(&setup),
            directory,
            clients: AtomicU8::new(0),
        }
    }

    pub(super) fn connect_to(&self, internet: &Internet) {
        internet
            .namespace
            .connect("host", &self.namespace, "internet");
        let address = Internet::ADDRESS;
        internet.namespace.shell(&format!(
            "ip address add {address}/25 dev host && ip link set host up"
        ));
        self.namespace.shell(&format!(
            "ip address add 203.0.113.1/25 dev internet && ip link set internet up && ip route add default via {address}"
        ));
    }

    /// Puts a client's box on the clients' network and gives it an address.
    pub(super) fn attach(&self, client: &Namespace) -> String {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let port = format!("client{number}");
        client.connect("wan", &self.namespace, &port);
        self.namespace
            .shell(&format!("ip link set {port} master clients up"));
        let address = format!("198.51.100.{}", number + 2);
        client.shell(&format!(
            "ip address add {address}/24 dev wan && ip link set wan up"
        ));
        address
    }

    /// A directory of the test's own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where the product keeps its state, as seen from the test; `/mnt/state` in the box.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// How many TCP connections the host has to the internet.
    pub fn outside_connections(&self) -> usize {
        let script = format!(
            "ss --no-header --tcp --numeric state established dst {}",
            Internet::ADDRESS
        );
        self.namespace.shell(&script).lines().count()
    }

    /// A command that runs one of the product's programs with no privilege whatever: another
    /// user, no capability, none to be had, no TUN device.
    pub fn unprivileged(&self, program: &str) -> Command {
        self.with_rights(program, Rights::Nothing)
    }

    /// A command that runs one of the product's programs with these rights.
    pub fn with_rights(&self, program: &str, rights: Rights) -> Command {
        let mut command = self.namespace.command("setpriv");
        command.args(rights.arguments());
        command.args(["--", &format!("/mnt/bin/{program}")]);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("RUST_BACKTRACE", "1");
        command
    }
}

/// Where cargo has put both programs.
fn programs() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_popup-vpn")).parent().unwrap();
    assert!(
        directory.join("popup-gateway").exists(),
        "{} has no popup-gateway: run `cargo build` (with `--release` for release tests) first, or `make test`",
        directory.display()
    );
    directory.to_owned()
}

/// Runs `work` on a thread that is the unprivileged user, so that files it makes are that user's.
pub(super) fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{set_thread_gid, set_thread_res_uid};
    let (uid, gid) = (
        rustix::process::Uid::from_raw(NOBODY),
        rustix::process::Gid::from_raw(NOBODY),
    );
    let result = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            set_thread_gid(gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        inside.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
