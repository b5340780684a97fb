use std::time::Duration;

use popup_model::document::{Extra, Work};
use popup_model::{LeaseId, PrivateKey};

use super::super::request::StartRequest;
use super::*;

fn at(seconds: u64) -> Timestamp {
    lease::later(
        "2026-01-02T00:00:00Z".parse().unwrap(),
        Duration::from_secs(seconds),
    )
}

fn id(digit: char) -> LeaseId {
    digit.to_string().repeat(32).parse().unwrap()
}

/// Leased to `a` at 0 s, for 8 h and 30 min idle.
fn leased() -> LeaseDocument {
    let mut document = LeaseDocument::new("local".parse().unwrap());
    lease::start(&mut document, id('a'), &StartRequest::default(), at(0));
    document
}

fn stopped() -> LeaseDocument {
    let mut document = leased();
    lease::finish(&mut document, at(1), StopReason::Requested, None);
    document
}

fn present(lease: char, phase: Phase) -> Group {
    Group::Present {
        lease: Some(id(lease)),
        phase,
    }
}

/// Of lease `a`, started at 0 s, last active at `active`, written at `updated`.
fn status(active: Option<u64>, updated: u64) -> StatusDocument {
    StatusDocument {
        schema: 1,
        region: "local".parse().unwrap(),
        lease_id: id('a'),
        boot_id: id('0'),
        started_at: at(0),
        updated_at: at(updated),
        public_key: Some(PrivateKey::generate().public_key()),
        mode: "socket".to_owned(),
        mode_reason: String::new(),
        ready: true,
        config_revision: 1,
        active_at: active.map(at),
        peers: Vec::new(),
        drops: Default::default(),
        flows: Default::default(),
        version: String::new(),
        ended: None,
        extra: Extra::new(),
    }
}

fn ended(reason: &str, detail: Option<&str>) -> StatusDocument {
    ended_at(5, reason, detail)
}

fn ended_at(seconds: u64, reason: &str, detail: Option<&str>) -> StatusDocument {
    let detail = detail.map(str::to_owned);
    StatusDocument {
        ended: Some(End {
            at: at(seconds),
            reason: reason.to_owned(),
            detail,
        }),
        ..status(None, 5)
    }
}

fn decide(
    document: &LeaseDocument,
    group: Group,
    status: Option<StatusDocument>,
    now: u64,
) -> Action {
    let observed = Observed {
        group,
        started_at: None,
        status,
        is_status_known: true,
    };
    plan(document, &observed, at(now))
}

fn failed(detail: &str) -> Action {
    Action::Finish(StopReason::Failed, Some(detail.to_owned()))
}

fn phases() -> [Phase; 5] {
    let failed = Phase::Failed("no quota".to_owned());
    [
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Ended(None),
        failed,
    ]
}

#[test]
fn without_a_lease_nothing_may_be_there() {
    assert_eq!(decide(&stopped(), Group::Absent, None, 10), Action::Nothing);
    for phase in phases() {
        let expected = if phase == Phase::Stopping {
            Action::Wait
        } else {
            Action::Delete
        };
        for lease in ['a', 'b'] {
            let group = present(lease, phase.clone());
            assert_eq!(
                decide(&stopped(), group, Some(status(None, 5)), 10),
                expected,
                "{phase:?}"
            );
        }
    }
}

#[test]
fn with_a_lease_its_own_gateway_is_made_kept_or_given_up() {
    let silent = "the gateway ended without saying why; its log may tell";
    let table = [
        (Group::Absent, Action::Create),
        (present('a', Phase::Starting), Action::Wait),
        (present('a', Phase::Running), Action::Nothing),
        (present('a', Phase::Stopping), Action::Wait),
        (present('a', Phase::Ended(None)), failed(silent)),
        (
            present('a', Phase::Ended(Some("exit 0".to_owned()))),
            failed("exit 0"),
        ),
        (
            present('a', Phase::Failed("no quota".to_owned())),
            failed("no quota"),
        ),
    ];
    for (group, expected) in table {
        for status in [None, Some(status(None, 5))] {
            assert_eq!(
                decide(&leased(), group.clone(), status, 10),
                expected,
                "{group:?}"
            );
        }
    }
}

#[test]
fn a_gateway_of_another_or_unknown_lease_is_deleted_in_every_phase() {
    for phase in phases() {
        let expected = if phase == Phase::Stopping {
            Action::Wait
        } else {
            Action::Delete
        };
        for lease in [Some(id('b')), None] {
            let group = Group::Present {
                lease,
                phase: phase.clone(),
            };
            assert_eq!(decide(&leased(), group, None, 10), expected, "{phase:?}");
        }
    }
}

#[test]
fn a_gateway_that_crashed_is_made_again_and_one_that_ended_on_purpose_is_not() {
    assert_eq!(
        decide(&leased(), Group::Absent, Some(status(None, 5)), 10),
        Action::Create
    );
    let port = "UDP port 51820 is in use";
    let table = [
        (
            ended_at(8 * 3600 - 30, "lease_over", None),
            Action::Finish(StopReason::LifetimeOver, None),
        ),
        (ended("bad_configuration", Some(port)), failed(port)),
        (
            ended("fenced", None),
            failed("the gateway ended by itself (fenced)"),
        ),
    ];
    for (status, expected) in table {
        let groups = [
            Group::Absent,
            present('a', Phase::Running),
            present('a', Phase::Ended(None)),
        ];
        for group in groups {
            let action = decide(&leased(), group, Some(status.clone()), 10);
            assert_eq!(action, expected, "{:?}", status.ended);
        }
    }
}

#[test]
fn a_gateway_that_was_terminated_or_ended_before_its_extended_lease_is_made_again() {
    let broken = Phase::Failed("no quota".to_owned());
    let table = [
        (Group::Absent, Action::Create),
        (present('b', Phase::Running), Action::Delete),
        (present('a', Phase::Starting), Action::Wait),
        (present('a', Phase::Running), Action::Nothing),
        (present('a', Phase::Ended(None)), Action::Delete),
        (present('a', broken), failed("no quota")),
    ];
    let before_its_end = ended_at(8 * 3600 - 31, "lease_over", None);
    for end in [ended("terminated", None), before_its_end] {
        for (group, expected) in table.clone() {
            let action = decide(&leased(), group.clone(), Some(end.clone()), 10);
            assert_eq!(action, expected, "{group:?} {:?}", end.ended);
        }
    }
}

#[test]
fn the_end_of_another_leases_gateway_is_not_believed() {
    let mut old = ended("bad_configuration", Some("old"));
    old.lease_id = id('b');
    assert_eq!(
        decide(&leased(), Group::Absent, Some(old.clone()), 10),
        Action::Create
    );
    assert_eq!(
        decide(&leased(), present('a', Phase::Starting), Some(old), 10),
        Action::Wait
    );
}

#[test]
fn the_lifetime_ends_to_the_second_whatever_is_there() {
    let over = Action::Finish(StopReason::LifetimeOver, None);
    let end = 8 * 3600;
    let groups = [
        Group::Absent,
        present('a', Phase::Running),
        present('b', Phase::Failed(String::new())),
    ];
    for group in groups {
        assert_eq!(
            decide(&leased(), group.clone(), None, end),
            over,
            "{group:?}"
        );
        assert_ne!(decide(&leased(), group, None, end - 1), over);
    }
}

#[test]
fn idle_means_no_inner_payload_for_the_timeout_by_a_fresh_report() {
    let idle = Action::Finish(StopReason::Idle, None);
    let running = || present('a', Phase::Running);
    let decide_at =
        |active, updated, now| decide(&leased(), running(), Some(status(active, updated)), now);
    assert_eq!(
        decide_at(None, 1800, 1801),
        idle,
        "never used since it started"
    );
    assert_eq!(decide_at(None, 1799, 1800), Action::Nothing);
    assert_eq!(decide_at(Some(100), 1900, 1901), idle);
    assert_eq!(decide_at(Some(101), 1900, 1901), Action::Nothing);
    assert_eq!(
        decide_at(None, 1800, 1860),
        Action::Nothing,
        "the report is a minute old"
    );
    assert_eq!(
        decide_at(None, 7200, 1801),
        Action::Nothing,
        "or from the future"
    );
}

#[test]
fn a_vpn_that_may_idle_for_ever_does() {
    let mut document = leased();
    document.lease.as_mut().unwrap().idle_timeout_s = None;
    let report = Some(status(None, 20_000));
    assert_eq!(
        decide(&document, present('a', Phase::Running), report, 20_001),
        Action::Nothing
    );
}

#[test]
fn a_gateway_of_another_lease_cannot_be_idle_for_us() {
    let mut report = status(None, 1800);
    report.lease_id = id('b');
    assert_eq!(
        decide(&leased(), present('a', Phase::Running), Some(report), 1801),
        Action::Nothing
    );
}

#[test]
fn an_operation_of_somebody_else_is_left_alone_until_its_deadline() {
    for mut document in [leased(), stopped()] {
        let groups = [
            Group::Absent,
            present('a', Phase::Running),
            present('b', Phase::Running),
        ];
        for group in groups {
            document.operation = None;
            let free = decide(&document, group.clone(), None, 30);
            lease::claim(&mut document, id('c'), Work::Create, at(30));
            assert_eq!(decide(&document, group.clone(), None, 29), Action::Wait);
            assert_eq!(decide(&document, group, None, 30), free);
        }
    }
}

#[test]
fn a_status_from_before_the_process_was_started_again_is_not_believed() {
    let lease = leased().lease.unwrap();
    let since = |started_at: Option<u64>| Observed {
        group: present('a', Phase::Running),
        started_at: started_at.map(at),
        status: Some(status(None, 600)),
        is_status_known: true,
    };
    for (started_at, believed) in [
        (None, true),
        (Some(0), true),
        (Some(20), true),
        (Some(300), false),
    ] {
        let observed = since(started_at);
        assert_eq!(
            observed.status_of(&lease).is_some(),
            believed,
            "{started_at:?}"
        );
    }
}

#[test]
fn a_gateway_that_runs_and_never_gets_ready_ends_as_failed() {
    let unready = StatusDocument {
        ready: false,
        ..status(None, 1790)
    };
    let observed = |status: Option<StatusDocument>, is_status_known, started_at| Observed {
        group: present('a', Phase::Running),
        started_at,
        status,
        is_status_known,
    };
    let ends = |observed: &Observed, now| {
        let action = plan(&leased(), observed, at(now));
        matches!(action, Action::Finish(StopReason::Failed, _))
    };
    let since = Some(at(0));
    for said in [None, Some(unready)] {
        assert!(!ends(&observed(said.clone(), true, since), 1799));
        assert!(ends(&observed(said.clone(), true, since), 1800));
        assert!(!ends(&observed(said.clone(), true, None), 9000), "local");
        assert!(!ends(&observed(said, true, Some(at(8000))), 9000), "again");
    }
    assert!(
        !ends(&observed(None, false, since), 9000),
        "storage hiccups"
    );
    let ready = observed(Some(status(Some(8990), 8990)), true, since);
    assert!(!ends(&ready, 9000));
}
