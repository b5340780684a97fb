//! Why the gateway ends.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the gateway ends. All of these mean: do not start me again under this lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    LeaseOver,
    Fenced,
    Terminated,
    BadConfiguration(String),
}

impl Ending {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::LeaseOver => "lease_over",
            Self::Fenced => "fenced",
            Self::Terminated => "terminated",
            Self::BadConfiguration(_) => "bad_configuration",
        }
    }

    pub(super) fn detail(&self) -> Option<&str> {
        match self {
            Self::BadConfiguration(detail) => Some(detail),
            _ => None,
        }
    }
}

/// SIGTERM and SIGINT. None is lost that comes after this is made.
#[derive(Debug)]
pub(super) struct Signals(Option<[Signal; 2]>);

impl Signals {
    pub(super) fn new() -> Self {
        let streams = signal(SignalKind::terminate())
            .and_then(|terminate| Ok([terminate, signal(SignalKind::interrupt())?]));
        if let Err(error) = &streams {
            tracing::warn!("signals do not end this process, only the lease does: {error}");
        }
        Self(streams.ok())
    }

    /// Waits for one of them.
    pub(super) async fn terminated(&mut self) -> Ending {
        let Some([terminate, interrupt]) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => Ending::Terminated,
            _ = interrupt.recv() => Ending::Terminated,
        }
    }
}
