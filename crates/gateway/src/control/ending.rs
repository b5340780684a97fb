//! Why the gateway ends.

use tokio::signal::unix::{SignalKind, signal};

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

/// Waits for SIGTERM or SIGINT.
pub(super) async fn terminated() -> Ending {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("signals cannot be handled; only the lease ends this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => Ending::Terminated,
        _ = interrupt.recv() => Ending::Terminated,
    }
}
