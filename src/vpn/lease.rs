//! The transitions of a lease document. Pure: time and identifiers are arguments.
//!
//! Theory of operation. A region is at rest without lease and without operation. A start claims
//! it (`operation`), writes its peer, and then sets the lease, which ends the claim. From then on
//! whoever sees the lease may create the gateway: it claims again for as long as that takes. A
//! stop takes the lease away at once, and whoever sees a gateway without a lease deletes it,
//! under a claim too. A claim ends at its deadline, so nothing waits for the dead.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use popup_model::document::{Extra, Work};
use popup_model::{LastStop, Lease, LeaseDocument, LeaseId, Operation, StopReason};

use super::request::{DEFAULT_IDLE, DEFAULT_LIFETIME, StartRequest};

/// Whether somebody is in the middle of something and still has time for it.
pub fn is_claimed(document: &LeaseDocument, now: Timestamp) -> bool {
    document
        .operation
        .as_ref()
        .is_some_and(|operation| now < operation.deadline)
}

/// Claims the region until `deadline`.
pub fn claim(document: &mut LeaseDocument, id: LeaseId, work: Work, deadline: Timestamp) {
    document.operation = Some(Operation { id, deadline, work });
}

/// Ends the claim `id`; false when it is somebody else's by now.
pub fn release(document: &mut LeaseDocument, id: &LeaseId) -> bool {
    let mine = document
        .operation
        .as_ref()
        .is_some_and(|operation| operation.id == *id);
    if mine {
        document.operation = None;
    }
    mine
}

/// Gives the right to run, which is returned, and ends the claim under which this was prepared.
pub fn start(
    document: &mut LeaseDocument,
    id: LeaseId,
    request: &StartRequest,
    now: Timestamp,
) -> Lease {
    document.operation = None;
    document.access = None;
    let lease = Lease {
        id,
        started_at: now,
        expires_at: later(now, request.lifetime.unwrap_or(DEFAULT_LIFETIME)),
        idle_timeout_s: request
            .idle_timeout
            .unwrap_or(Some(DEFAULT_IDLE))
            .map(|timeout| timeout.as_secs()),
        extra: Extra::new(),
    };
    document.lease = Some(lease.clone());
    lease
}

/// Changes how long a running VPN may go on, counted from now; false when nothing was asked.
pub fn extend(lease: &mut Lease, request: &StartRequest, now: Timestamp) -> bool {
    if let Some(lifetime) = request.lifetime {
        lease.expires_at = later(now, lifetime);
    }
    if let Some(timeout) = request.idle_timeout {
        lease.idle_timeout_s = timeout.map(|timeout| timeout.as_secs());
    }
    request.lifetime.is_some() || request.idle_timeout.is_some()
}

/// Takes the right to run away and notes why; false when there was none.
///
/// A claim stays: whoever creates or deletes right now finishes, and then sees this.
pub fn finish(
    document: &mut LeaseDocument,
    now: Timestamp,
    reason: StopReason,
    detail: Option<String>,
) -> bool {
    let Some(lease) = document.lease.take() else {
        return false;
    };
    document.access = None;
    document.last_stop = Some(LastStop {
        lease_id: lease.id,
        at: now,
        reason,
        detail,
    });
    true
}

/// Does what a stop asks for: takes away the lease, or the claim of a start that has none yet, or
/// at least the failure that nobody has seen so far. False when there is nothing to change.
///
/// Nothing is done outside under the claim of a start, so it may go at any time. An overdue one
/// goes, too: its start may only be slow.
pub fn revoke(document: &mut LeaseDocument, now: Timestamp, reason: StopReason) -> bool {
    if finish(document, now, reason, None) {
        return true;
    }
    let begins = |operation: &Operation| operation.work == Work::Begin;
    if document.operation.as_ref().is_some_and(begins) {
        document.operation = None;
        return true;
    }
    let failed = |stop: &&mut LastStop| stop.reason == StopReason::Failed;
    match document.last_stop.as_mut().filter(failed) {
        Some(stop) => {
            stop.reason = reason;
            true
        }
        None => false,
    }
}

/// `now` plus `duration`, or the end of time.
pub fn later(now: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| now.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn started(request: &StartRequest) -> LeaseDocument {
        let mut document = LeaseDocument::new("local".parse().unwrap());
        start(&mut document, LeaseId::generate(), request, now());
        document
    }

    #[test]
    fn a_lease_lasts_a_working_day_and_half_an_hour_idle_unless_asked_otherwise() {
        let lease = started(&StartRequest::default()).lease.unwrap();
        assert_eq!(lease.expires_at, "2026-01-02T11:04:05Z".parse().unwrap());
        assert_eq!(lease.idle_timeout_s, Some(1800));
        let never_idle = StartRequest {
            idle_timeout: Some(None),
            ..StartRequest::default()
        };
        assert_eq!(started(&never_idle).lease.unwrap().idle_timeout_s, None);
    }

    #[test]
    fn what_is_not_asked_for_stays_as_it_is() {
        let mut lease = started(&StartRequest::default()).lease.unwrap();
        let before = lease.clone();
        assert!(!extend(
            &mut lease,
            &StartRequest::default(),
            later(now(), Duration::from_secs(60))
        ));
        assert_eq!(lease, before);
        let request = StartRequest {
            lifetime: Some(Duration::from_secs(600)),
            ..StartRequest::default()
        };
        assert!(extend(
            &mut lease,
            &request,
            later(now(), Duration::from_secs(60))
        ));
        assert_eq!(lease.expires_at, later(now(), Duration::from_secs(660)));
        assert_eq!(lease.idle_timeout_s, before.idle_timeout_s);
    }

    #[test]
    fn finishing_says_which_lease_ended_and_leaves_others_their_claim() {
        let mut document = started(&StartRequest::default());
        let id = document.lease.as_ref().unwrap().id.clone();
        let operation = LeaseId::generate();
        claim(
            &mut document,
            operation.clone(),
            Work::Create,
            later(now(), Duration::from_secs(30)),
        );
        assert!(finish(&mut document, now(), StopReason::Idle, None));
        assert!(document.lease.is_none() && is_claimed(&document, now()));
        assert_eq!(document.last_stop.as_ref().unwrap().lease_id, id);
        assert!(
            !finish(&mut document, now(), StopReason::Requested, None),
            "there is none now"
        );
        assert_eq!(document.last_stop.unwrap().reason, StopReason::Idle);
    }

    #[test]
    fn a_claim_ends_with_its_release_or_at_its_deadline() {
        let mut document = started(&StartRequest::default());
        let mine = LeaseId::generate();
        let deadline = later(now(), Duration::from_secs(30));
        claim(&mut document, mine.clone(), Work::Delete, deadline);
        assert!(is_claimed(&document, now()) && !is_claimed(&document, deadline));
        assert!(
            !release(&mut document, &LeaseId::generate()),
            "it is not theirs"
        );
        assert!(release(&mut document, &mine) && !is_claimed(&document, now()));
    }

    #[test]
    fn a_stop_takes_the_claim_of_a_start_and_leaves_that_of_whoever_acts() {
        let deadline = later(now(), Duration::from_secs(30));
        for (work, goes) in [
            (Work::Begin, true),
            (Work::Create, false),
            (Work::Delete, false),
        ] {
            let mut document = LeaseDocument::new("local".parse().unwrap());
            claim(&mut document, LeaseId::generate(), work, deadline);
            let changed = revoke(&mut document, now(), StopReason::Requested);
            assert_eq!(changed, goes, "{work:?}");
            assert_eq!(is_claimed(&document, now()), !goes, "{work:?}");
        }
    }

    #[test]
    fn a_stop_takes_the_claim_of_a_start_that_is_overdue() {
        let mut document = LeaseDocument::new("local".parse().unwrap());
        claim(&mut document, LeaseId::generate(), Work::Begin, now());
        assert!(revoke(&mut document, now(), StopReason::Requested));
        assert_eq!(document.operation, None);
    }
}
