//! Drives the simulation by the clock and has containers run.
//!
//! One task owns the timers; each sandbox has a task of its own, so that a slow start does not
//! hold up anything else. Everything ends when [`Cloud`] is dropped by its owner.

mod names;
mod sandbox;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::arm::{
    Command, ContainerEvent, Faults, Reply, Request, SandboxId, Settings, Simulation,
};
use crate::proxy::Weather;
use crate::runner::Runner;

pub use names::Names;

/// The simulated cloud in real time.
#[derive(Debug)]
pub struct Cloud {
    simulation: Mutex<Simulation>,
    wake: Notify,
    /// The names of public addresses.
    pub names: Names,
    /// The weather in front of storage, where there is any.
    pub storage_weather: watch::Sender<Weather>,
    /// The faults of storage, where there is any.
    storage_faults: Mutex<Faults>,
}

/// Ends the cloud's tasks when it is dropped.
#[derive(Debug)]
pub struct Driver {
    task: JoinHandle<()>,
    end: Arc<Notify>,
}

impl Driver {
    /// Ends them when every container has been ended politely, and its sandbox taken away.
    pub async fn end(mut self) {
        self.end.notify_one();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cloud {
    /// A cloud whose containers are run by `runner`.
    pub fn start(settings: Settings, runner: Arc<dyn Runner>) -> (Arc<Self>, Driver) {
        let cloud = Arc::new(Self {
            simulation: Mutex::new(Simulation::new(settings)),
            wake: Notify::new(),
            names: Names::default(),
            storage_weather: watch::Sender::default(),
            storage_faults: Mutex::default(),
        });
        let end = Arc::new(Notify::new());
        let task = tokio::spawn(drive(Arc::clone(&cloud), runner, Arc::clone(&end)));
        (cloud, Driver { task, end })
    }

    /// Carries a request out.
    pub fn handle(&self, request: &Request) -> Reply {
        self.with(|simulation| simulation.handle_request(request, Timestamp::now()))
    }

    /// Does something with the faults of storage.
    pub fn with_storage<T>(&self, work: impl FnOnce(&mut Faults) -> T) -> T {
        let faults = self.storage_faults.lock();
        work(&mut faults.unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something with the simulation, and then what follows from it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Simulation) -> T) -> T {
        let mut simulation = self
            .simulation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut simulation);
        self.wake.notify_one();
        result
    }
}

async fn drive(cloud: Arc<Cloud>, runner: Arc<dyn Runner>, end: Arc<Notify>) {
    let (events, mut happened) = mpsc::unbounded_channel::<ContainerEvent>();
    let mut sandboxes: HashMap<SandboxId, sandbox::Handle> = HashMap::new();
    let mut open = JoinSet::new();
    loop {
        let (commands, next) = {
            let mut simulation = cloud
                .simulation
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            simulation.handle_timeout(Timestamp::now());
            let commands: Vec<Command> = std::iter::from_fn(|| simulation.poll_command()).collect();
            (commands, simulation.poll_timeout())
        };
        for command in commands {
            match command {
                Command::Open(sandbox) => {
                    let id = sandbox.id;
                    let (handle, life) = sandbox::open(sandbox, &runner, &cloud, &events);
                    open.spawn(life);
                    sandboxes.insert(id, handle);
                }
                Command::Run(id, spec) => {
                    if let Some(handle) = sandboxes.get(&id) {
                        handle.run(spec);
                    }
                }
                // The task ends by itself once it has closed its sandbox.
                Command::Close(id) => drop(sandboxes.remove(&id)),
                Command::Resolve(name, ip) => cloud.names.set(&name, ip),
            }
        }
        let pause = next.map_or(Duration::from_secs(3600), |next| {
            Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
        });
        tokio::select! {
            () = end.notified() => break,
            Some(_) = open.join_next() => {}
            () = cloud.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            event = happened.recv() => {
                if let Some(event) = event {
                    let mut simulation = cloud.simulation.lock().unwrap_or_else(PoisonError::into_inner);
                    simulation.handle_container(event, Timestamp::now());
                }
            }
        }
    }
    drop(sandboxes);
    while open.join_next().await.is_some() {}
}
