//! A runner for tests without root: containers are entries in a list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{Exit, Output, Place, Runner, RunnerError};
use crate::arm::{ContainerSpec, Sandbox, SandboxId};
use crate::cloud::Cloud;

/// Runs nothing.
#[derive(Debug, Default)]
pub struct FakeRunner {
    shared: Arc<Shared>,
}

/// What the next containers do.
#[derive(Debug, Clone, Default)]
pub enum Script {
    /// They run until they are stopped.
    #[default]
    Run,
    /// They cannot be started.
    Refuse(String),
    /// They print this and end with this code.
    Exit(String, i32),
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<Script>,
    open: Mutex<HashMap<SandboxId, Sandbox>>,
}

impl FakeRunner {
    /// Says what containers do from now on.
    pub fn script(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// The sandboxes that are there now.
    pub fn open_sandboxes(&self) -> Vec<Sandbox> {
        lock(&self.shared.open).values().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Runner for FakeRunner {
    async fn open(
        &self,
        sandbox: &Sandbox,
        _cloud: &Arc<Cloud>,
    ) -> Result<Box<dyn Place>, RunnerError> {
        lock(&self.shared.open).insert(sandbox.id, sandbox.clone());
        Ok(Box::new(FakePlace {
            shared: Arc::clone(&self.shared),
            id: sandbox.id,
            running: Vec::new(),
        }))
    }
}

struct FakePlace {
    shared: Arc<Shared>,
    id: SandboxId,
    /// Containers end when these are dropped.
    running: Vec<oneshot::Sender<i32>>,
}

#[async_trait]
impl Place for FakePlace {
    async fn run(&mut self, _spec: &ContainerSpec, output: Output) -> Result<Exit, RunnerError> {
        let (sender, exit) = oneshot::channel();
        match lock(&self.shared.script).clone() {
            Script::Run => self.running.push(sender),
            Script::Refuse(reason) => return Err(RunnerError(reason)),
            Script::Exit(text, code) => {
                output.write(text.as_bytes());
                let _ = sender.send(code);
            }
        }
        Ok(exit)
    }

    async fn close(self: Box<Self>) {
        lock(&self.shared.open).remove(&self.id);
    }
}
