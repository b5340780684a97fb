//! While the bench runs the kernel's autogroups (sched(7)) are off, and cores that have nothing to
//! do stay awake.
//!
//! Autogroups put the processes of a session into one group beside the kernel's threads. A machine's
//! receiving thread then waits for seconds behind the programs that it receives for, now and then,
//! which no card's interrupt does; what is lost meanwhile would be blamed on the server.
//!
//! A sleeping core is woken by an interrupt from another one. Between virtual processors that takes
//! the sender some 10 µs, and the sleeper anything from 20 µs to milliseconds: the server would pay
//! for waking the machines it sends to, which no network makes it do.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
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

/// Keeps idle cores from sleeping until this is dropped, or this process ends: a latency of 0 µs is
/// asked for (Linux `Documentation/power/pm_qos_interface.rst`).
#[derive(Debug)]
pub(crate) struct Awake(#[expect(dead_code, reason = "it counts while it is open")] Option<File>);

impl Awake {
    /// Where it can be asked for; [`idle_cores`] tells.
    pub(crate) fn new() -> Self {
        Self(ask_for_no_latency().ok())
    }
}

fn ask_for_no_latency() -> std::io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .open("/dev/cpu_dma_latency")?;
    file.write_all(&0_i32.to_ne_bytes())?;
    Ok(file)
}

/// What idle cores do now, in words.
pub(crate) fn idle_cores() -> &'static str {
    let latency = File::open("/dev/cpu_dma_latency").and_then(|mut file| {
        let mut latency = [0; 4];
        file.read_exact(&mut latency)?;
        Ok(i32::from_ne_bytes(latency))
    });
    // Without a driver there is no state but sleep.
    let driver = std::fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver");
    match (latency, driver) {
        (Ok(0), Ok(driver)) if driver.trim() != "none" => "stay awake",
        _ => "may sleep",
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
