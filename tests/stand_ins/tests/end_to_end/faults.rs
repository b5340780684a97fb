//! What the product makes of the faults of Resource Manager, of containers and of those who give
//! tokens: a clear error or success, and one group at most.

use std::time::Duration;

use popup_stand_ins::client::Answer;
use serde_json::{Value, json};

use crate::cloud::{Azure, Capabilities, Runner};
use crate::eventually;
use crate::function_app::FunctionApp;

/// Long enough for what the handler itself allows an operation.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn start(app: &FunctionApp<'_>) -> Answer {
    app.start_once()
}

/// Asks again until the VPN runs, as a caller would, and looks whether there was ever more than
/// one group.
#[track_caller]
pub fn converges(azure: &Azure, app: &FunctionApp<'_>) {
    let mut last = String::new();
    eventually(PATIENCE, "the VPN starts", || {
        let answer = start(app);
        last = answer.text();
        (answer.status == 200).then_some(())
    });
    assert_eq!(azure.summary()["mostAtOnce"], 1, "{last}");
}

fn after(fault: &Value, wait_s: &str, look: impl FnOnce(&Azure, &FunctionApp<'_>)) {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", wait_s)]);
    azure.fault(fault);
    look(&azure, &app);
}

/// One start works in spite of the fault.
fn survives(fault: &Value) {
    after(fault, "60", |azure, app| {
        let started = start(app);
        azure.assert_faults_met();
        assert_eq!(started.status, 200, "{}\n{}", started.text(), app.log());
        let summary = azure.summary();
        assert_eq!(
            (&summary["mostAtOnce"], &summary["groups"][0]["starts"]),
            (&json!(1), &json!(1))
        );
    });
}

#[test]
fn a_throttled_create_is_sent_again() {
    survives(&json!({"kind": "respond", "status": 429, "retryAfterS": 1, "method": "PUT"}));
}

#[test]
fn a_create_that_conflicts_is_sent_again() {
    survives(&json!({"kind": "respond", "status": 409, "method": "PUT"}));
}

#[test]
fn a_create_that_finds_the_service_broken_is_sent_again() {
    survives(&json!({"kind": "respond", "status": 500, "method": "PUT"}));
}

#[test]
fn a_create_that_finds_the_service_busy_is_sent_again() {
    survives(&json!({"kind": "respond", "status": 503, "method": "PUT"}));
}

#[test]
fn a_create_whose_connection_drops_is_sent_again() {
    survives(&json!({"kind": "drop", "method": "PUT"}));
}

#[test]
fn a_create_whose_answer_is_lost_is_not_sent_again() {
    survives(&json!({"kind": "loseAnswer", "method": "PUT"}));
}

#[test]
fn a_create_that_gets_no_answer_at_all_is_sent_again() {
    survives(&json!({"kind": "hang", "method": "PUT", "ms": 120_000}));
}

#[test]
fn a_look_that_fails_is_repeated() {
    let path = "containerGroups";
    survives(&json!({"kind": "respond", "status": 500, "method": "GET", "path": path}));
}

#[test]
fn a_token_endpoint_that_hiccups_delays_a_start() {
    survives(&json!({"kind": "respond", "status": 500, "path": "/msi/token"}));
}

#[test]
fn instance_metadata_that_is_late_delays_a_gateway() {
    survives(&json!({"kind": "respond", "status": 500, "path": "/metadata", "count": 2}));
}

/// The start fails with a code and leaves nothing; the next one works.
fn fails_clearly(fault: &Value) {
    after(fault, "60", |azure, app| {
        let answer = start(app);
        azure.assert_faults_met();
        let body = answer.json();
        assert_eq!(answer.status, 500, "{body:#}");
        assert_eq!(body["code"], "GatewayFailed", "{body:#}");
        eventually(PATIENCE, "nothing is left", || {
            azure.groups().is_empty().then_some(())
        });
        assert_eq!(app.status()["peers"], json!([]), "nobody has its key");
        converges(azure, app);
    });
}

#[test]
fn an_image_that_is_refused_is_told() {
    fails_clearly(&json!({"kind": "inaccessibleImage"}));
}

#[test]
fn an_image_that_cannot_be_pulled_is_told() {
    fails_clearly(&json!({"kind": "imagePull"}));
}

#[test]
fn a_name_that_is_taken_is_told() {
    fails_clearly(&json!({"kind": "labelTaken"}));
}

#[test]
fn a_region_without_room_is_told() {
    fails_clearly(&json!({"kind": "noCapacity"}));
}

#[test]
fn an_operation_that_ends_failed_is_told() {
    let code = "InternalServerError";
    fails_clearly(&json!({"kind": "operationFails", "code": code, "message": "sorry"}));
}

#[test]
fn a_container_that_keeps_crashing_is_told() {
    fails_clearly(&json!({"kind": "crashLoop", "exitCode": 101}));
}

#[test]
fn what_azure_refuses_is_told_by_its_name_and_with_what_to_do() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);
    for (status, code, cure) in [
        (403, "AuthorizationFailed", "role"),
        (403, "RequestDisallowedByPolicy", "policy"),
        (400, "ContainerGroupQuotaReached", "Quotas"),
        (
            409,
            "MissingSubscriptionRegistration",
            "az provider register",
        ),
        (503, "ServiceUnavailable", ""),
    ] {
        let fault = json!({"kind": "respond", "status": status, "code": code, "method": "PUT"});
        azure.fault(&fault);
        let answer = start(&app);
        azure.assert_faults_met();
        if status == 503 {
            assert_eq!(
                answer.status,
                200,
                "a moment later there is room: {}",
                answer.text()
            );
            continue;
        }
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["code"]),
            (500, &json!("GatewayFailed"))
        );
        let text = body["error"].as_str().unwrap();
        assert!(text.contains(code) && text.contains(cure), "{text}");
        assert_eq!(app.status()["state"], "failed");
        assert_eq!(app.status()["peers"], json!([]), "nobody has its key");
    }
    assert_eq!(azure.summary()["created"], 1);
}

#[test]
fn a_handler_that_may_not_look_at_groups_says_so_and_stops_all_the_same() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);
    converges(&azure, &app);
    let path = "containerGroups";
    azure.fault(&json!({"kind": "respond", "status": 403, "path": path, "count": 999}));
    for answer in [start(&app), app.stop()] {
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["code"]),
            (500, &json!("BackendRefused"))
        );
        assert!(
            body["error"]
                .as_str()
                .unwrap()
                .contains("AuthorizationFailed"),
            "{body:#}"
        );
    }
    assert!(
        azure.lease()["lease"].is_null(),
        "the gateway ends by itself"
    );
    azure.clear_faults();
    assert!(app.tick());
    eventually(PATIENCE, "the group is gone", || {
        azure.groups().is_empty().then_some(())
    });
}

#[test]
fn operations_that_may_not_be_followed_hold_up_neither_a_start_nor_a_stop() {
    for status in [403, 404] {
        let azure = Azure::start(Runner::Process, Capabilities::None);
        let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);
        azure.fault(
            &json!({"kind": "respond", "status": status, "path": "/operations/", "count": 999}),
        );
        converges(&azure, &app);
        azure.fault(&json!({"kind": "slowDelete", "ms": 3000}));
        let stopped = app.stop();
        assert_eq!(stopped.status, 200, "{}", stopped.text());
        assert!(azure.groups().is_empty());
        azure.assert_faults_met();
        let summary = azure.summary();
        assert_eq!(
            (&summary["created"], azure.arrived("DELETE")),
            (&json!(1), 1)
        );
    }
}

/// While it lasts every start fails with this code and nothing is made; afterwards the next works.
fn while_it_lasts(fault: &Value, code: &str) -> Answer {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);
    azure.fault(fault);
    let answer = start(&app);
    azure.assert_faults_met();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["code"], code);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(azure.summary()["created"], 0);
    azure.clear_faults();
    converges(&azure, &app);
    assert_eq!(azure.summary()["created"], 1);
    answer
}

#[test]
fn throttling_that_lasts_is_passed_on_with_its_time() {
    let fault =
        json!({"kind": "respond", "status": 429, "retryAfterS": 77, "method": "PUT", "count": 99});
    let answer = while_it_lasts(&fault, "Throttled");
    assert_eq!(answer.header("retry-after"), Some("77"));
}

#[test]
fn without_resource_manager_nothing_is_begun() {
    let path = "containerGroups";
    let fault = json!({"kind": "respond", "status": 503, "path": path, "count": 999});
    while_it_lasts(&fault, "BackendUnavailable");
}

#[test]
fn without_tokens_nothing_is_begun() {
    let fault = json!({"kind": "respond", "status": 500, "path": "/msi/token", "count": 999});
    while_it_lasts(&fault, "StorageUnavailable");
}

#[test]
fn a_stop_gets_through_whatever_the_delete_meets() {
    let azure = Azure::start(Runner::Fake, Capabilities::Default);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "1")]);
    assert_eq!(start(&app).status, 202);
    let faults = [
        json!({"kind": "respond", "status": 409, "method": "DELETE"}),
        json!({"kind": "respond", "status": 429, "retryAfterS": 1, "method": "DELETE"}),
        json!({"kind": "respond", "status": 500, "method": "DELETE"}),
        json!({"kind": "drop", "method": "DELETE"}),
        json!({"kind": "loseAnswer", "method": "DELETE"}),
    ];
    faults.iter().for_each(|fault| azure.fault(fault));
    let stopped = app.stop();
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    assert_eq!(azure.groups().len(), 0);
    azure.assert_faults_met();
    assert!(
        azure.arrived("DELETE") > faults.len(),
        "each was met, and the last one told that the group is on its way out"
    );
}

#[test]
fn a_start_during_a_delete_that_takes_minutes_is_told_to_come_back() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "5")]);
    converges(&azure, &app);
    azure.fault(&json!({"kind": "slowDelete", "ms": 22_000}));
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| app.stop());
        eventually(PATIENCE, "the group is on its way out", || {
            (azure.arrived("DELETE") == 1).then_some(())
        });
        let refused = start(&app);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["code"], "Busy");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(app.status()["state"], "stopping");
        let stopped = stop.join().unwrap();
        assert_eq!(stopped.status, 200, "{}", stopped.text());
    });
    converges(&azure, &app);
    assert_eq!(azure.summary()["created"], 2);
}
