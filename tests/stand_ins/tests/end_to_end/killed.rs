//! A handler that is killed in the middle of something: the next call or the timer goes on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud::{Azure, Capabilities, Runner};
use crate::eventually;
use crate::function_app::FunctionApp;

const PATIENCE: Duration = Duration::from_secs(60);

/// A start whose handler is killed once its PUT has come to ARM, which does with it what `fault`
/// says.
fn after_a_killed_start(fault: &Value, look: impl FnOnce(&Azure, &FunctionApp<'_>)) {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);
    azure.fault(fault);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| app.start_once().status);
        eventually(PATIENCE, "the PUT has come", || {
            (azure.arrived("PUT") == 1).then_some(())
        });
        app.kill_handler();
        assert_eq!(call.join().unwrap(), 500);
    });
    let lease = azure.lease();
    assert!(
        lease["lease"].is_object() && lease["operation"].is_object(),
        "{lease:#}"
    );
    look(&azure, &app);
}

/// As if the handler had been killed before its PUT.
fn nothing_done() -> Value {
    json!({"kind": "hang", "method": "PUT", "ms": 120_000})
}

/// As if it had been killed before the answer.
fn done_without_an_answer() -> Value {
    json!({"kind": "hold", "method": "PUT", "afterMs": 120_000})
}

#[track_caller]
fn runs_by_the_timer_alone(app: &FunctionApp<'_>) {
    eventually(PATIENCE, "the timer has it run", || {
        assert!(app.tick());
        (app.status()["state"] == "running").then_some(())
    });
}

#[track_caller]
fn assert_one_group(azure: &Azure, puts: usize) {
    let summary = azure.summary();
    assert_eq!(
        (&summary["created"], &summary["groups"][0]["starts"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(azure.arrived("PUT"), puts);
}

#[test]
fn between_lease_and_put_the_next_call_creates_the_group() {
    after_a_killed_start(&nothing_done(), |azure, app| {
        assert_eq!(azure.groups().len(), 0);
        azure.expire_claim();
        let started = app.start_once();
        assert_eq!(started.status, 200, "{}", started.text());
        assert_one_group(azure, 2);
    });
}

#[test]
fn between_lease_and_put_the_timer_creates_the_group() {
    after_a_killed_start(&nothing_done(), |azure, app| {
        assert!(app.tick());
        assert_eq!(azure.groups().len(), 0, "the dead one still has its claim");
        azure.expire_claim();
        runs_by_the_timer_alone(app);
        assert_one_group(azure, 2);
    });
}

#[test]
fn between_put_and_answer_the_next_call_takes_the_group_as_it_is() {
    after_a_killed_start(&done_without_an_answer(), |azure, app| {
        let started = app.start_once();
        assert_eq!(started.status, 200, "{}", started.text());
        assert_one_group(azure, 1);
    });
}

#[test]
fn between_put_and_answer_the_timer_takes_the_group_as_it_is() {
    after_a_killed_start(&done_without_an_answer(), |azure, app| {
        azure.expire_claim();
        runs_by_the_timer_alone(app);
        assert_one_group(azure, 1);
    });
}

#[test]
fn the_peer_of_a_killed_start_goes_and_its_name_is_free() {
    after_a_killed_start(&done_without_an_answer(), |azure, app| {
        assert_eq!(app.start_once().status, 200);
        assert_eq!(app.status()["peers"][0]["name"], "peer-1");
        assert!(app.tick());
        assert_eq!(app.status()["peers"][0]["name"], "peer-1", "not yet");
        azure.expire_unanswered();
        assert!(app.tick());
        assert_eq!(app.status()["peers"], json!([]), "nobody has its key");
        let again = app.start_vpn(&json!({"peer": {"name": "peer-1"}}));
        assert!(again["clientConfig"].is_string(), "{again:#}");
        assert_one_group(azure, 1);
    });
}

#[test]
fn a_stop_after_it_holds_though_the_put_lands_later() {
    let late = json!({"kind": "hold", "method": "PUT", "beforeMs": 8000});
    after_a_killed_start(&late, |azure, app| {
        azure.expire_claim();
        let stopped = app.stop();
        assert_eq!(stopped.status, 200, "{}", stopped.text());
        assert_eq!(azure.groups().len(), 0);
        eventually(PATIENCE, "the group of the dead handler is there", || {
            (azure.groups().len() == 1).then_some(())
        });
        assert!(app.tick());
        eventually(PATIENCE, "it is gone", || {
            azure.groups().is_empty().then_some(())
        });
        assert_eq!(app.status()["state"], "stopped");
    });
}
