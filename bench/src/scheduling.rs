//! The kernel's autogroups (sched(7)) are off while the bench runs.
//!
//! They put the processes of a session into one group beside the kernel's threads. A machine's
//! receiving thread then waits for seconds behind the programs that it receives for, now and then,
//! which no card's interrupt does; what is lost meanwhile would be blamed on the server.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

const ENABLED: &str = "/proc/sys/kernel/sched_autogroup_enabled";

/// On again when this is dropped, or this process ends, however it ends.
#[derive(Debug)]
pub(crate) struct WithoutAutogroups(Option<Child>);

impl WithoutAutogroups {
    /// Turns them off where that can be done; [`are_on`] tells.
    pub(crate) fn new() -> Result<Self> {
        if !are_on() {
            return Ok(Self(None));
        }
        let restorer = restorer()?;
        // Where it is refused the figures say so.
        std::fs::write(ENABLED, "0").ok();
        Ok(Self(Some(restorer)))
    }
}

impl Drop for WithoutAutogroups {
    fn drop(&mut self) {
        if let Some(restorer) = &mut self.0 {
            drop(restorer.stdin.take());
            restorer.wait().ok();
        }
    }
}

/// Whether there are autogroups now.
pub(crate) fn are_on() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "1")
}

/// A process that turns them on at the end of its input, which comes when this process ends.
fn restorer() -> Result<Child> {
    let mut restorer = Command::new("sh")
        .args(["-c", &format!("echo ready; cat; echo 1 >{ENABLED}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What ends this process must not end that one.
        .process_group(0)
        .spawn()?;
    let mut ready = restorer.stdout.take().context("the restorer's output")?;
    ready.read_exact(&mut [0; 6])?;
    Ok(restorer)
}
