//! One box: network, mount and process namespaces held by an anchor process.

use std::fmt::Write as _;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the lab needs, and the Debian package that has it.
const TOOLS: [(&str, &str); 17] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("timeout", "coreutils"),
    ("wg", "wireguard-tools"),
    ("wg-quick", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("resolvconf", "openresolv"),
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("dig", "dnsutils"),
    ("nft", "nftables"),
    ("traceroute", "traceroute"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
];

/// Fails with the reason and the cure when this machine cannot hold a lab.
pub(super) fn require_tools() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the end-to-end tests make network namespaces and so need root: run `sudo make test`"
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let mut missing = String::new();
    for (tool, package) in TOOLS {
        if !path
            .split(':')
            .any(|directory| Path::new(directory).join(tool).exists())
        {
            writeln!(missing, "  {tool} (apt-get install {package})").unwrap();
        }
    }
    assert!(
        missing.is_empty(),
        "the end-to-end tests need programs that `make test` installs:\n{missing}"
    );
    assert!(
        Path::new("/dev/net/tun").exists(),
        "the end-to-end tests run real WireGuard clients and so need /dev/net/tun: `modprobe tun`, \
         or in a container `--device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN`"
    );
}

/// A box. Everything in it ends when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    anchor: Child,
    /// The box's process 1, as numbered outside.
    init: u32,
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    pub output: Output,
    pub took: Duration,
}

impl Finished {
    /// What it printed.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it printed for a person, both streams.
    pub fn text(&self) -> String {
        format!(
            "{}{}",
            self.stdout(),
            String::from_utf8_lossy(&self.output.stderr)
        )
    }

    pub fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    /// Panics with its output unless it succeeded.
    #[track_caller]
    pub fn expect(self, what: &str) -> Self {
        assert!(
            self.succeeded(),
            "{what}: {} after {:?}\n{}",
            self.output.status,
            self.took,
            self.text()
        );
        self
    }
}

impl Namespace {
    /// Makes a box and runs the shell commands `setup` in it.
    pub(super) fn new(setup: &str) -> Self {
        let script = format!("{setup}\necho ready\nexec cat >/dev/null");
        let mut anchor = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "private", "--", "sh", "-euc", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = [0; 6];
        let result = anchor.stdout.as_mut().unwrap().read_exact(&mut ready);
        assert!(
            result.is_ok() && &ready == b"ready\n",
            "this machine does not let root make namespaces (in a container: --privileged); setup was:\n{setup}"
        );
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", anchor.id())).unwrap();
        let init = children.split_whitespace().next().unwrap().parse().unwrap();
        Self { anchor, init }
    }

    /// A command that will run in the box.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.init.to_string(),
            "--net",
            "--mount",
            "--pid",
            "--",
            program,
        ]);
        command
    }

    /// Runs a program in the box and kills it when it takes longer than `patience`.
    pub fn run(&self, patience: Duration, arguments: &[&str]) -> Finished {
        let mut command = self.command("timeout");
        command
            .arg("--kill-after=1")
            .arg(patience.as_secs_f32().to_string())
            .args(arguments);
        finish(command)
    }

    /// Runs shell commands in the box; they must succeed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.run(Duration::from_secs(20), &["sh", "-euc", script])
            .expect(script)
            .stdout()
    }

    /// Runs `work` on a thread whose sockets are made in the box. They stay there wherever they
    /// are used later.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let net = fs::File::open(format!("/proc/{}/ns/net", self.init)).unwrap();
        let result = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Lays a cable from `here` in this box to `there` in the other.
    pub(super) fn connect(&self, here: &str, other: &Self, there: &str) {
        let peer = other.init.to_string();
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.init.to_string(),
            "--net",
            "--",
            "ip",
            "link",
            "add",
            here,
        ]);
        command.args(["type", "veth", "peer", "name", there, "netns", &peer]);
        finish(command).expect("a veth pair is made");
    }

    /// The outside numbers of the box's processes with this name.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.init)).unwrap();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let ended = fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains(") Z "));
            let space = fs::read_link(format!("/proc/{pid}/ns/pid"));
            comm.trim_end() == name && !ended && space.is_ok_and(|space| space == own)
        })
        .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.anchor.stdin.take());
        self.anchor.wait().ok();
    }
}

fn finish(mut command: Command) -> Finished {
    let begun = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Finished {
        output,
        took: begun.elapsed(),
    }
}

/// Sends `signal` to a process that the test started.
pub(super) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).ok();
}
