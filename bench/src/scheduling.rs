//! The kernel's autogroups (sched(7)) are off while the bench runs.
//!
//! They put the processes of a session into one group beside the kernel's threads. A machine's
//! receiving thread then waits for seconds behind the programs that it receives for, now and then,
//! which no card's interrupt does; what is lost meanwhile would be blamed on the server.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

const ENABLED: &str = "/proc/sys/kernel/sched_autogroup_enabled";

/// On again when this is dropped, or this process ends, however it ends.
#[derive(Debug)]
pub(crate) struct WithoutAutogroups(Option<Child>);

impl WithoutAutogroups {
    pub(crate) fn new() -> Result<Self> {
        if std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "1") {
            let restore = format!("echo ready; cat; echo 1 >{ENABLED}");
            let mut restorer = Command::new("sh")
                .args(["-c", &restore])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // What ends this process must not end that one.
                .process_group(0)
                .spawn()?;
            let mut ready = restorer.stdout.take().context("the restorer's output")?;
            std::io::Read::read_exact(&mut ready, &mut [0; 6])?;
            std::fs::write(ENABLED, "0")?;
            return Ok(Self(Some(restorer)));
        }
        Ok(Self(None))
    }
}

impl Drop for WithoutAutogroups {
    fn drop(&mut self) {
        if let Some(restorer) = &mut self.0 {
            // It waits for the end of its input.
            drop(restorer.stdin.take());
            restorer.wait().ok();
        }
    }
}
