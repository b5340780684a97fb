//! One container group.
//!
//! Theory of operation: `begin` makes a new sandbox and the first step; each step names the next
//! one and when. What happens in the sandbox moves the containers; the group's own state follows
//! from theirs. Steps and happenings of an older sandbox never get here.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::container::SandboxId;
use super::log::Log;
use super::path::GroupPath;
use super::spec::Spec;
use super::{ArmError, Delays, Identity};

#[derive(Debug)]
pub(super) struct Group {
    pub(super) path: GroupPath,
    pub(super) location: String,
    /// As it was sent, with all secrets.
    pub(super) body: Value,
    pub(super) spec: Spec,
    pub(super) identities: Vec<Identity>,
    pub(super) fqdn: Option<String>,
    pub(super) provisioning: Provisioning,
    pub(super) run: Run,
    pub(super) starts: u32,
    pub(super) troubles: Troubles,
    /// The operation under way.
    pub(super) operation: Option<String>,
    pub(super) deletion: Option<Deletion>,
}

/// A deletion is over when its time has passed and the sandbox is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) due: bool,
}

/// What a fault makes of this group.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles {
    pub(super) image_pull: bool,
    pub(super) crash_loop: Option<i32>,
    pub(super) slower: Duration,
    pub(super) fails: Option<ArmError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provisioning {
    Pending,
    Creating,
    Succeeded,
    Failed,
}

impl Provisioning {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Creating => "Creating",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// The present start.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) sandbox: Option<SandboxId>,
    /// Whether whoever runs containers knows of the sandbox.
    pub(super) open: bool,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) events: Vec<Event>,
    pub(super) containers: Vec<ContainerState>,
    pub(super) stopped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) message: String,
    pub(super) warning: bool,
    pub(super) count: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) state: &'static str,
    pub(super) detail: String,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) exit_code: Option<i32>,
}

#[derive(Debug)]
pub(super) struct ContainerState {
    pub(super) current: Moment,
    pub(super) previous: Option<Moment>,
    pub(super) restarts: u32,
    pub(super) events: Vec<Event>,
    pub(super) log: Log,
}

/// What comes next in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    PullFailed,
    GiveUp,
    Pulled,
    Run,
    RestartContainer(usize),
    /// A container of a crash loop ends.
    Crash(usize, i32),
}

impl Moment {
    fn waiting(detail: &str) -> Self {
        Self {
            state: "Waiting",
            detail: detail.to_owned(),
            started_at: None,
            finished_at: None,
            exit_code: None,
        }
    }
}

impl ContainerState {
    fn new() -> Self {
        Self {
            current: Moment::waiting(""),
            previous: None,
            restarts: 0,
            events: Vec::new(),
            log: Log::default(),
        }
    }

    pub(super) fn tell(
        &mut self,
        now: Timestamp,
        name: &'static str,
        message: String,
        warning: bool,
    ) {
        let same = |event: &&mut Event| event.name == name && event.message == message;
        if let Some(event) = self.events.iter_mut().find(same) {
            event.count += 1;
            event.last_at = now;
            return;
        }
        self.events.push(Event {
            name,
            message,
            warning,
            count: 1,
            first_at: now,
            last_at: now,
        });
    }

    pub(super) fn wait_for(&mut self, detail: &str) {
        self.current = Moment::waiting(detail);
    }

    fn has_started(&self) -> bool {
        self.current.started_at.is_some() || self.previous.is_some()
    }
}

impl Run {
    pub(super) fn new(sandbox: SandboxId, ip: Option<Ipv4Addr>, containers: usize) -> Self {
        Self {
            sandbox: Some(sandbox),
            ip,
            containers: (0..containers).map(|_| ContainerState::new()).collect(),
            ..Self::default()
        }
    }

    /// Whether every container has started at least once.
    pub(super) fn has_started(&self) -> bool {
        !self.containers.is_empty() && self.containers.iter().all(ContainerState::has_started)
    }
}

impl Group {
    /// `instanceView.state`.
    pub(super) fn state_word(&self) -> &'static str {
        if self.run.stopped {
            return "Stopped";
        }
        if !self.run.has_started() {
            return "Pending";
        }
        let mut codes = self.run.containers.iter().map(|container| {
            let current = &container.current;
            current.exit_code.filter(|_| current.state == "Terminated")
        });
        match codes.try_fold(0, |sum: i32, code| Some(sum | code?)) {
            None => "Running",
            Some(0) => "Succeeded",
            Some(_) => "Failed",
        }
    }

    /// Whether it is in the middle of something.
    pub(super) fn is_transitioning(&self) -> bool {
        self.deletion.is_some()
            || matches!(
                self.provisioning,
                Provisioning::Pending | Provisioning::Creating
            )
    }

    pub(super) fn tell_all(
        &mut self,
        now: Timestamp,
        name: &'static str,
        warning: bool,
        about: &str,
    ) {
        let images = self
            .spec
            .containers
            .iter()
            .map(|container| &container.image);
        for (container, image) in self.run.containers.iter_mut().zip(images) {
            let message = about.replace("{image}", image);
            container.tell(now, name, message, warning);
        }
    }

    /// A container runs.
    pub(super) fn started(&mut self, index: usize, now: Timestamp) {
        let Some(container) = self.run.containers.get_mut(index) else {
            return;
        };
        container.tell(now, "Started", "Started container".to_owned(), false);
        container.current = Moment {
            state: "Running",
            started_at: Some(now),
            ..Moment::waiting("")
        };
    }

    /// A container has ended. Returns the pause before it is started again.
    pub(super) fn exited(
        &mut self,
        index: usize,
        code: i32,
        now: Timestamp,
        delays: &Delays,
    ) -> Option<Duration> {
        let again = !self.run.stopped && self.spec.restart.again(code);
        let container = self.run.containers.get_mut(index)?;
        let ended = Moment {
            state: "Terminated",
            detail: if code == 0 { "Completed" } else { "Error" }.to_owned(),
            started_at: container.current.started_at,
            finished_at: Some(now),
            exit_code: Some(code),
        };
        if !again {
            container.current = ended;
            container.log.stop();
            return None;
        }
        let pause = delays.restart_pause(container.restarts);
        container.previous = Some(ended);
        container.wait_for("CrashLoopBackOff: Back-off restarting failed container");
        let message = "Back-off restarting failed container".to_owned();
        container.tell(now, "BackOff", message, true);
        container.restarts += 1;
        Some(pause)
    }
}
