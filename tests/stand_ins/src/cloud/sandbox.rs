//! The task of one sandbox: it is told to run containers until it is told to close.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Cloud;
use crate::arm::{ContainerEvent, ContainerSpec, Happening, Sandbox};
use crate::runner::{Output, Runner, RunnerError};

/// Tells a sandbox what to run. Dropping it closes the sandbox.
#[derive(Debug)]
pub(super) struct Handle(mpsc::UnboundedSender<ContainerSpec>);

impl Handle {
    pub(super) fn run(&self, spec: ContainerSpec) {
        // It can only have ended because the cloud has.
        let _ = self.0.send(spec);
    }
}

/// A sandbox, and what has to be polled until it is gone.
pub(super) fn open(
    sandbox: Sandbox,
    runner: &Arc<dyn Runner>,
    cloud: &Arc<Cloud>,
    events: &mpsc::UnboundedSender<ContainerEvent>,
) -> (Handle, impl Future<Output = ()> + Send + use<>) {
    let (sender, orders) = mpsc::unbounded_channel();
    let (runner, cloud, events) = (Arc::clone(runner), Arc::clone(cloud), events.clone());
    let life = live(sandbox, runner, cloud, events, orders);
    (Handle(sender), life)
}

async fn live(
    sandbox: Sandbox,
    runner: Arc<dyn Runner>,
    cloud: Arc<Cloud>,
    events: mpsc::UnboundedSender<ContainerEvent>,
    mut orders: mpsc::UnboundedReceiver<ContainerSpec>,
) {
    let id = sandbox.id;
    let tell = |happening| {
        let sandbox = id;
        let _ = events.send(ContainerEvent { sandbox, happening });
    };
    let mut place = runner.open(&sandbox, &cloud).await;
    while let Some(spec) = orders.recv().await {
        let index = spec.index;
        let started = match &mut place {
            Ok(place) => {
                place
                    .run(&spec, Output::new(events.clone(), id, index))
                    .await
            }
            Err(RunnerError(reason)) => Err(RunnerError(reason.clone())),
        };
        match started {
            Err(RunnerError(reason)) => tell(Happening::CannotStart(index, reason)),
            Ok(exit) => {
                tell(Happening::Started(index));
                let events = events.clone();
                tokio::spawn(async move {
                    // Without a code the container was ended with its sandbox.
                    if let Ok(code) = exit.await {
                        let happening = Happening::Exited(index, code);
                        let _ = events.send(ContainerEvent {
                            sandbox: id,
                            happening,
                        });
                    }
                });
            }
        }
    }
    if let Ok(place) = place {
        place.close().await;
    }
    tell(Happening::Closed);
}
