//! Makes the server's core a slower one.
//!
//! Where the server is cheap and there are two cores, its client is the bottleneck and a full core
//! cannot be saturated. A real-time thread then takes its part of every millisecond, before the
//! server, its cards and the kernel alike: what is left behaves as a core that is so much slower.
//! (A CPU quota would not do: its steps are those of the timer tick, and it exempts kernel threads.)

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const PERIOD: Duration = Duration::from_millis(1);

/// Takes the core for 1 - `share` of the time, until the process is ended.
pub(crate) fn burn(share: f64) -> Result<()> {
    // A burner without a bench would slow the machine down until somebody noticed.
    let bench = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    anyhow::ensure!(bench == rustix::process::getppid(), "the bench has ended");
    let burnt = PERIOD.mul_f64(1.0 - share);
    let mut begin = Instant::now();
    loop {
        while begin.elapsed() < burnt {
            std::hint::spin_loop();
        }
        begin += PERIOD;
        let now = Instant::now();
        // After a pause of the whole machine the lost periods are not made up for.
        begin = begin.max(now - PERIOD);
        std::thread::sleep(begin.saturating_duration_since(now));
    }
}

/// Leaves the server its share until dropped.
#[derive(Debug)]
pub(crate) struct Brake {
    burners: Vec<Child>,
}

impl Brake {
    /// One on each of the server's cores.
    pub(crate) fn new(cores: &str, share: f64) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut brake = Self {
            burners: Vec::new(),
        };
        for core in crate::lab::cores::parse(cores)? {
            let burner = Command::new("chrt")
                .args(["--fifo", "50", "taskset", "--cpu-list", &core.to_string()])
                .arg(&program)
                .args(["burn", &share.to_string()])
                .stdin(Stdio::null())
                .spawn()
                .context("chrt does not start")?;
            brake.burners.push(burner);
        }
        std::thread::sleep(Duration::from_millis(50));
        Ok(brake)
    }

    /// What the burners have had so far.
    pub(crate) fn burnt(&self) -> Result<Duration> {
        let times = self
            .burners
            .iter()
            .map(|burner| crate::cpu::run_time_of_process(burner.id()));
        times.sum::<Result<Duration>>()
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        for burner in &mut self.burners {
            burner.kill().ok();
            burner.wait().ok();
        }
    }
}
