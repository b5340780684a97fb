//! The simulation: requests, time and happenings in; replies and commands out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::address::Pool;
use super::container::{Command, ContainerEvent, Happening, Sandbox, SandboxId};
use super::fault::Faults;
use super::group::{Group, Provisioning, Run, Step};
use super::operation::{Operation, Outcome};
use super::quota::Rates;
use super::view::GroupSummary;
use super::{Admission, ArmError, Fault, Settings};

mod calls;
mod operations;
mod put;

/// A request, without what HTTP adds to it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT`…
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The body, when there is one.
    pub body: Option<Value>,
    /// `https://host:port`, for URLs in answers.
    pub origin: String,
}

/// An answer, without what HTTP adds to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers that mean something.
    pub headers: Vec<(&'static str, String)>,
    /// JSON; none for 202 and 204.
    pub body: Option<Value>,
}

/// What a test may want to know.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// All groups.
    pub groups: Vec<GroupSummary>,
    /// How many groups have been made.
    pub created: usize,
    /// How many there were at most at one time.
    pub most_at_once: usize,
    /// Every request that has come: method, path.
    pub arrived: Vec<(String, String)>,
    /// Every request so far: method, path, status (0 when the connection was ended).
    pub requests: Vec<(String, String, u16)>,
}

#[derive(Debug)]
enum Timer {
    Step(SandboxId, Step),
    Remove(String),
    Publish(String, Ipv4Addr),
    Withdraw(String, Ipv4Addr),
}

/// Container groups of every subscription. See the module's theory of operation.
#[derive(Debug)]
pub struct Simulation {
    settings: Settings,
    groups: BTreeMap<String, Group>,
    operations: HashMap<String, Operation>,
    faults: Faults,
    rates: Rates,
    pool: Pool,
    names: HashMap<String, Ipv4Addr>,
    /// Sandboxes on their way out: whose, and with which address.
    closing: HashMap<SandboxId, (String, Option<Ipv4Addr>)>,
    timers: BTreeMap<(Timestamp, u64), Timer>,
    commands: VecDeque<Command>,
    numbers: u64,
    created: usize,
    most_at_once: usize,
    arrived: Vec<(String, String)>,
    requests: Vec<(String, String, u16)>,
}

impl Simulation {
    /// An empty cloud.
    pub fn new(settings: Settings) -> Self {
        let (first, size) = settings.addresses;
        Self {
            settings,
            groups: BTreeMap::new(),
            operations: HashMap::new(),
            faults: Faults::default(),
            rates: Rates::default(),
            pool: Pool::new(first, size),
            names: HashMap::new(),
            closing: HashMap::new(),
            timers: BTreeMap::new(),
            commands: VecDeque::new(),
            numbers: 0,
            created: 0,
            most_at_once: 0,
            arrived: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Adds a fault.
    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Forgets all faults that are still to come.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// The faults that no request has met so far.
    pub fn unmet_faults(&self) -> Vec<Fault> {
        self.faults.unmet()
    }

    /// What the shell is to do with a request that has just come.
    pub fn admit(&mut self, method: &str, path: &str) -> Admission {
        self.arrived.push((method.to_owned(), path.to_owned()));
        self.faults.admission(method, path)
    }

    /// Notes the outcome of a request for [`Self::summary`].
    pub fn note(&mut self, method: &str, path: &str, status: u16) {
        let entry = (method.to_owned(), path.to_owned(), status);
        self.requests.push(entry);
    }

    /// What a test may want to know.
    pub fn summary(&self) -> Summary {
        Summary {
            groups: self.groups.values().map(GroupSummary::of).collect(),
            created: self.created,
            most_at_once: self.most_at_once,
            arrived: self.arrived.clone(),
            requests: self.requests.clone(),
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// The next thing to be done outside.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Timer::Step(sandbox, step) => self.step(sandbox, step, now),
                Timer::Remove(key) => {
                    if let Some(deletion) =
                        self.groups.get_mut(&key).and_then(|g| g.deletion.as_mut())
                    {
                        deletion.due = true;
                    }
                    self.finish_deletion(&key);
                }
                Timer::Publish(name, ip) => {
                    self.names.insert(name.clone(), ip);
                    self.commands.push_back(Command::Resolve(name, Some(ip)));
                }
                Timer::Withdraw(name, ip) => {
                    if self.names.get(&name) == Some(&ip) {
                        self.names.remove(&name);
                        self.commands.push_back(Command::Resolve(name, None));
                    }
                }
            }
        }
    }

    /// Takes note of what happened in a sandbox.
    pub fn handle_container(&mut self, event: ContainerEvent, now: Timestamp) {
        let ContainerEvent { sandbox, happening } = event;
        if happening == Happening::Closed {
            if let Some((key, ip)) = self.closing.remove(&sandbox) {
                ip.into_iter().for_each(|ip| self.pool.release(ip));
                self.finish_deletion(&key);
            }
            return;
        }
        let Some(key) = self.key_of(sandbox) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        match happening {
            Happening::Started(index) => {
                group.started(index, now);
                self.settle(&key, now);
            }
            Happening::Exited(index, code) => {
                if let Some(pause) = group.exited(index, code, now, &self.settings.delays) {
                    self.after(
                        now,
                        pause,
                        Timer::Step(sandbox, Step::RestartContainer(index)),
                    );
                }
            }
            Happening::CannotStart(index, reason) => {
                if let Some(container) = group.run.containers.get_mut(index) {
                    let message = format!("Error: Failed to start container: {reason}");
                    container.tell(now, "Failed", message.clone(), true);
                    container.wait_for("RunContainerError");
                    self.fail(&key, ArmError::bad("ContainerCreateFailed", message));
                }
            }
            Happening::Output(index, bytes) => {
                if let Some(container) = group.run.containers.get_mut(index) {
                    container.log.write(&bytes);
                }
            }
            Happening::Closed => {}
        }
    }

    fn after(&mut self, now: Timestamp, delay: Duration, timer: Timer) {
        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        let at = now.checked_add(delay).unwrap_or(Timestamp::MAX);
        self.numbers += 1;
        self.timers.insert((at, self.numbers), timer);
    }

    fn key_of(&self, sandbox: SandboxId) -> Option<String> {
        let of = |group: &Group| group.run.sandbox == Some(sandbox);
        let found = self.groups.iter().find(|(_, group)| of(group));
        found.map(|(key, _)| key.clone())
    }

    /// Gives a group a new sandbox.
    fn begin(&mut self, key: &str, operation: &str, now: Timestamp) {
        self.numbers += 1;
        let sandbox = SandboxId(self.numbers);
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let wants_ip = group.spec.ip.as_ref().is_some_and(|ip| ip.public);
        let ip = wants_ip.then(|| self.pool.take()).flatten();
        group.run = Run::new(sandbox, ip, group.spec.containers.len());
        group.provisioning = Provisioning::Pending;
        group.operation = Some(operation.to_owned());
        group.starts += 1;
        let pending = self.settings.delays.pending;
        self.after(now, pending, Timer::Step(sandbox, Step::Create));
    }

    /// Takes a group's sandbox away.
    fn close(&mut self, key: &str, now: Timestamp) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let Some(sandbox) = group.run.sandbox.take() else {
            return;
        };
        let ip = group.run.ip.take();
        let name = group.fqdn.clone();
        if group.run.open {
            self.closing.insert(sandbox, (key.to_owned(), ip));
            self.commands.push_back(Command::Close(sandbox));
        } else if let Some(ip) = ip {
            self.pool.release(ip);
        }
        if let (Some(name), Some(ip)) = (name, ip) {
            let lag = self.settings.delays.dns_lag;
            self.after(now, lag, Timer::Withdraw(name, ip));
        }
    }

    fn step(&mut self, sandbox: SandboxId, step: Step, now: Timestamp) {
        let delays = self.settings.delays;
        let Some(key) = self.key_of(sandbox) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        let next = match step {
            Step::Create => {
                group.provisioning = Provisioning::Creating;
                group.tell_all(now, "Pulling", false, "pulling image \"{image}\"");
                let failed = group.troubles.image_pull;
                let next = if failed {
                    Step::PullFailed
                } else {
                    Step::Pulled
                };
                Some((delays.pulling, next))
            }
            Step::PullFailed => {
                let text = "Failed to pull image \"{image}\": not found";
                group.tell_all(now, "Failed", true, text);
                group.tell_all(now, "BackOff", true, "Back-off pulling image \"{image}\"");
                for container in &mut group.run.containers {
                    container.wait_for("ImagePullBackOff");
                }
                Some((delays.give_up, Step::GiveUp))
            }
            Step::GiveUp => {
                let text = "The image of the container group could not be pulled.";
                self.fail(&key, ArmError::bad("InaccessibleImage", text));
                None
            }
            Step::Pulled => {
                group.tell_all(
                    now,
                    "Pulled",
                    false,
                    "Successfully pulled image \"{image}\"",
                );
                Some((delays.starting + group.troubles.slower, Step::Run))
            }
            Step::Run => {
                if let Some(error) = group.troubles.fails.clone() {
                    self.fail(&key, error);
                    return;
                }
                self.open(&key, sandbox, now);
                None
            }
            Step::RestartContainer(index) => {
                self.run(&key, sandbox, index, now);
                None
            }
            Step::Crash(index, code) => {
                let happening = Happening::Exited(index, code);
                self.handle_container(ContainerEvent { sandbox, happening }, now);
                None
            }
        };
        if let Some((delay, step)) = next {
            self.after(now, delay, Timer::Step(sandbox, step));
        }
    }

    fn open(&mut self, key: &str, sandbox: SandboxId, now: Timestamp) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        group.run.open = true;
        let containers = group.spec.containers.len();
        self.commands.push_back(Command::Open(Sandbox {
            id: sandbox,
            group: group.path.name.clone(),
            ip: group.run.ip,
            identities: group.identities.clone(),
        }));
        for index in 0..containers {
            self.run(key, sandbox, index, now);
        }
    }

    fn run(&mut self, key: &str, sandbox: SandboxId, index: usize, now: Timestamp) {
        let Some(group) = self.groups.get(key) else {
            return;
        };
        if let Some(code) = group.troubles.crash_loop {
            let happening = Happening::Started(index);
            self.handle_container(ContainerEvent { sandbox, happening }, now);
            let soon = self.settings.delays.restart / 10;
            return self.after(now, soon, Timer::Step(sandbox, Step::Crash(index, code)));
        }
        if let Some(spec) = group.spec.containers.get(index) {
            self.commands.push_back(Command::Run(sandbox, spec.clone()));
        }
    }

    /// Ends provisioning when all containers have started.
    fn settle(&mut self, key: &str, now: Timestamp) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        if !group.is_transitioning() || !group.run.has_started() || group.deletion.is_some() {
            return;
        }
        group.provisioning = Provisioning::Succeeded;
        let (name, ip) = (group.fqdn.clone(), group.run.ip);
        let operation = group.operation.take();
        self.end_operation(operation, Outcome::Succeeded);
        if let (Some(name), Some(ip)) = (name, ip) {
            let lag = self.settings.delays.dns_lag;
            self.after(now, lag, Timer::Publish(name, ip));
        }
    }

    /// Provisioning has failed. The group stays, and so does its bill.
    fn fail(&mut self, key: &str, error: ArmError) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        group.provisioning = Provisioning::Failed;
        let operation = group.operation.take();
        self.end_operation(operation, Outcome::Failed(error));
    }

    fn end_operation(&mut self, id: Option<String>, outcome: Outcome) {
        if let Some(operation) = id.and_then(|id| self.operations.get_mut(&id)) {
            operation.outcome = outcome;
        }
    }

    fn finish_deletion(&mut self, key: &str) {
        let due = |group: &Group| group.deletion.is_some_and(|deletion| deletion.due);
        let closing = self.closing.values().any(|(closing, _)| closing == key);
        if !closing
            && self.groups.get(key).is_some_and(due)
            && let Some(group) = self.groups.remove(key)
        {
            self.end_operation(group.operation, Outcome::Succeeded);
        }
    }
}
