//! What to do about the difference between what should run and what does.
//!
//! Invariant: `plan` is pure and total. It never answers `Create` while something is there, nor
//! lets anything run whose lease is over, foreign or gone; and it leaves a region alone while
//! somebody else's operation has time left.

use jiff::{SignedDuration, Timestamp};
use popup_model::document::End;
use popup_model::{Lease, LeaseDocument, StatusDocument, StopReason};

use super::backend::{Group, Phase};
use super::lease;

/// A status that is older tells nothing about now: the gateway writes every 15 s, and storage
/// may hiccup twice.
pub const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// A process that is not ready after this time will not be: it waits for a role, or for storage.
/// Azure itself gives a group 30 minutes to start.
const TO_BE_READY: SignedDuration = SignedDuration::from_mins(30);

/// By how much the clocks of a gateway, of its platform and of the handler may differ.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// What is the case.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What the backend sees.
    pub group: Group,
    /// When the process in it was started, where the backend sees that.
    pub started_at: Option<Timestamp>,
    /// What the gateway last said, whichever lease it ran under.
    pub status: Option<StatusDocument>,
    /// Whether that could be read: if not, it may have said anything.
    pub is_status_known: bool,
}

impl Observed {
    /// What the gateway said under this lease. A status of another one is not believed, nor one
    /// of a process that has been started again since.
    pub fn status_of(&self, lease: &Lease) -> Option<&StatusDocument> {
        let outlived = |status: &StatusDocument| {
            self.started_at
                .is_some_and(|started_at| started_at.duration_since(status.started_at) > SKEW)
        };
        self.status
            .as_ref()
            .filter(|status| status.lease_id == lease.id && !outlived(status))
    }

    /// Whether its process has had all the time that it can need to get ready, and is not. It costs
    /// what a working one does, and nobody can use it.
    fn is_stuck(&self, lease: &Lease, now: Timestamp) -> bool {
        let ready = |status: &StatusDocument| status.ready;
        let had_time = |started_at: Timestamp| now.duration_since(started_at) >= TO_BE_READY;
        self.is_status_known
            && !self.status_of(lease).is_some_and(ready)
            && self.started_at.is_some_and(had_time)
    }

    /// Whether a process runs that was made for this lease.
    pub fn is_running(&self, lease: &Lease) -> bool {
        matches!(
            &self.group,
            Group::Present { lease: Some(made_for), phase: Phase::Running } if *made_for == lease.id
        )
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Things are as they should be.
    Nothing,
    /// They are on their way, or somebody else is at it.
    Wait,
    /// Make a gateway.
    Create,
    /// Delete what is there.
    Delete,
    /// Take the lease away for this reason; deleting comes next.
    Finish(StopReason, Option<String>),
}

/// Decides.
pub fn plan(desired: &LeaseDocument, observed: &Observed, now: Timestamp) -> Action {
    if lease::is_claimed(desired, now) {
        return Action::Wait;
    }
    let Some(lease) = &desired.lease else {
        return match &observed.group {
            Group::Absent => Action::Nothing,
            group => clear(group),
        };
    };
    if now >= lease.expires_at {
        return Action::Finish(StopReason::LifetimeOver, None);
    }
    let status = observed.status_of(lease);
    let end = status.and_then(|status| status.ended.as_ref());
    let may_return = end.is_some_and(|end| may_return(lease, end));
    if let Some(end) = end.filter(|_| !may_return) {
        return finish_as(end);
    }
    if status.is_some_and(|status| is_idle(lease, status, now)) {
        return Action::Finish(StopReason::Idle, None);
    }
    match &observed.group {
        Group::Absent => Action::Create,
        group @ Group::Present {
            lease: made_for, ..
        } if made_for.as_ref() != Some(&lease.id) => clear(group),
        group @ Group::Present { phase, .. } => match phase {
            Phase::Running if observed.is_stuck(lease, now) => {
                let detail = "the gateway runs and does not get ready: its log may tell why; on \
                              Azure, check the roles of its identity on the storage account";
                Action::Finish(StopReason::Failed, Some(detail.to_owned()))
            }
            Phase::Running => Action::Nothing,
            Phase::Starting | Phase::Stopping => Action::Wait,
            Phase::Failed(detail) => Action::Finish(StopReason::Failed, Some(detail.clone())),
            Phase::Ended(_) if may_return => clear(group),
            Phase::Ended(detail) => {
                let silent = || "the gateway ended without saying why; its log may tell".to_owned();
                let detail = detail.clone().unwrap_or_else(silent);
                Action::Finish(StopReason::Failed, Some(detail))
            }
        },
    }
}

/// Gets rid of what should not be there, once.
fn clear(group: &Group) -> Action {
    match group {
        Group::Present {
            phase: Phase::Stopping,
            ..
        } => Action::Wait,
        _ => Action::Delete,
    }
}

/// Whether a gateway's end says nothing against making it again: somebody restarted or deleted its
/// group, or it ended before it could read that its lease had been extended.
fn may_return(lease: &Lease, end: &End) -> bool {
    match end.reason.as_str() {
        "terminated" => true,
        "lease_over" => lease.expires_at.duration_since(end.at) > SKEW,
        _ => false,
    }
}

fn finish_as(end: &End) -> Action {
    if end.reason == "lease_over" {
        return Action::Finish(StopReason::LifetimeOver, None);
    }
    let detail = match &end.detail {
        Some(detail) => detail.clone(),
        None => format!("the gateway ended by itself ({})", end.reason),
    };
    Action::Finish(StopReason::Failed, Some(detail))
}

/// Measured on the gateway's clock only, so that a difference between clocks cannot stop a VPN.
fn is_idle(lease: &Lease, status: &StatusDocument, now: Timestamp) -> bool {
    let Some(timeout) = lease.idle_timeout_s else {
        return false;
    };
    let since = status.active_at.unwrap_or(status.started_at);
    let idle = status.updated_at.duration_since(since);
    status.ready
        && now.duration_since(status.updated_at).abs() < FRESH
        && idle.as_secs() >= i64::try_from(timeout).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
