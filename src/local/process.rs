//! The gateway as a process: begun, watched and ended.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use popup_store::RunLock;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{POLL, blocking};

/// How long a gateway may take to end when asked to.
const TERM_TIME: Duration = Duration::from_secs(3);
/// How long the kernel may take to end it when told to.
const KILL_TIME: Duration = Duration::from_secs(2);

const PROGRAM: &str = "popup-gateway";

/// What to run, with an environment of exactly this.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) environment: Vec<(&'static str, String)>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    /// With exit code 0: it is not to be made again.
    pub(super) clean: bool,
    /// How long it had run.
    pub(super) after: Duration,
    /// When.
    pub(super) at: Instant,
    code: Option<i32>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit code {code} after {:?}", self.after),
            None => write!(f, "a signal after {:?}", self.after),
        }
    }
}

/// A child of this handler. It lives on when this is dropped, and when the handler is killed.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
    kill: watch::Sender<bool>,
}

/// The program that is installed together with this one.
pub(super) fn beside_this_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(PROGRAM);
    if path.is_file() {
        return Ok(path);
    }
    let cure = format!(
        "{} is missing: build it with cargo build --release, or set POPUP_GATEWAY",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::NotFound, cure))
}

impl Child {
    /// Begins a process in a process group of its own, so that a Ctrl-C meant for the handler
    /// does not end it.
    pub(super) fn spawn(launch: Launch) -> io::Result<Self> {
        let mut process = Command::new(&launch.program)
            .env_clear()
            .envs(launch.environment)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(false)
            .spawn()?;
        let begun = Instant::now();
        let pid = process.id().unwrap_or_default();
        let (exit_sender, exit) = watch::channel(None);
        let (kill, mut killed) = watch::channel(false);
        tokio::spawn(async move {
            let status = tokio::select! {
                status = process.wait() => status,
                () = told(&mut killed) => {
                    if let Err(error) = process.start_kill() {
                        warn!(pid, %error, "cannot kill the gateway");
                    }
                    process.wait().await
                }
            };
            let status = status.inspect_err(|error| warn!(%error, "lost sight of the gateway"));
            let (clean, code) = match status {
                Ok(status) => (status.success(), status.code()),
                Err(_) => (false, None),
            };
            let exit = Exit {
                clean,
                after: begun.elapsed(),
                at: Instant::now(),
                code,
            };
            match clean {
                true => info!(pid, "the gateway has ended"),
                false => warn!(pid, %exit, "the gateway ended"),
            }
            exit_sender.send_replace(Some(exit));
        });
        Ok(Self { pid, exit, kill })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Ends it at once and waits for that.
    pub(super) async fn kill(mut self) {
        self.kill.send_replace(true);
        let ended = self.exit.wait_for(Option::is_some);
        if tokio::time::timeout(KILL_TIME, ended).await.is_err() {
            warn!(pid = self.pid, "the gateway does not end");
        }
    }
}

/// Waits to be told to kill; for ever, when whoever could tell is gone.
async fn told(killed: &mut watch::Receiver<bool>) {
    if killed.wait_for(|killed| *killed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends the process that holds a run lock: politely, then not.
pub(super) async fn end_holder(lock: &Path) -> io::Result<()> {
    for (signal, patience) in [(Signal::TERM, TERM_TIME), (Signal::KILL, KILL_TIME)] {
        if !send(lock, signal).await? {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if holder(lock).await?.is_none() {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
    Err(io::Error::other("the gateway survived SIGKILL"))
}

async fn holder(lock: &Path) -> io::Result<Option<popup_store::Holder>> {
    let lock = lock.to_owned();
    blocking(move || RunLock::holder(&lock)).await
}

/// Signals the holder; false when there is none. The pid is turned into a descriptor and the
/// lock looked at again before the signal is sent, so that a recycled pid is never hit.
async fn send(lock: &Path, signal: Signal) -> io::Result<bool> {
    let Some(before) = holder(lock).await? else {
        return Ok(false);
    };
    let Some(pid) = Pid::from_raw(before.pid) else {
        return Ok(false);
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if holder(lock).await?.as_ref() != Some(&before) {
        return Ok(false);
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
