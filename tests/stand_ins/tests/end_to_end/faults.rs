//! What the product makes of Azure's faults: a clear error or success, and one group at most.

use std::time::Duration;

use popup_stand_ins::client::Answer;
use serde_json::{Value, json};

use crate::boxes::{Client, Internet};
use crate::cloud::{Azure, FunctionApp};
use crate::eventually;

/// Long enough for what the handler itself allows an operation.
const PATIENCE: Duration = Duration::from_secs(90);

fn start(app: &FunctionApp<'_>) -> Answer {
    app.call("POST", "/api/start-vpn", Some(&json!({})))
}

/// Asks again until the VPN runs, as a caller would, and looks whether there was ever more than
/// one group.
#[track_caller]
fn converges(azure: &Azure, app: &FunctionApp<'_>) {
    let mut last = String::new();
    eventually(PATIENCE, "the VPN starts", || {
        let answer = start(app);
        last = answer.text();
        (answer.status == 200).then_some(())
    });
    assert_eq!(azure.summary()["mostAtOnce"], 1, "{last}");
}

fn after(fault: &Value, wait_s: &str, look: impl FnOnce(&Azure, &FunctionApp<'_>)) {
    let azure = Azure::start("process", "none");
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", wait_s)]);
    azure.fault(fault);
    look(&azure, &app);
}

#[test]
fn throttling_a_busy_service_and_a_lost_answer_are_survived() {
    for fault in [
        json!({"kind": "respond", "status": 429, "retryAfterS": 1, "method": "PUT"}),
        json!({"kind": "respond", "status": 503, "method": "PUT"}),
        json!({"kind": "respond", "status": 500, "method": "GET", "path": "containerGroups"}),
        json!({"kind": "drop", "method": "PUT"}),
        json!({"kind": "loseAnswer", "method": "PUT"}),
        json!({"kind": "respond", "status": 500, "path": "/msi/token"}),
        json!({"kind": "respond", "status": 500, "path": "/metadata"}),
    ] {
        after(&fault, "60", |azure, app| converges(azure, app));
    }
}

#[test]
fn what_cannot_work_is_an_error_with_a_code_and_leaves_nothing_behind() {
    for fault in [
        json!({"kind": "inaccessibleImage"}),
        json!({"kind": "labelTaken"}),
        json!({"kind": "noCapacity"}),
        json!({"kind": "operationFails", "code": "InternalServerError", "message": "sorry"}),
        json!({"kind": "imagePull"}),
        json!({"kind": "crashLoop", "exitCode": 101}),
    ] {
        after(&fault, "60", |azure, app| {
            let answer = start(app);
            let body = answer.json();
            assert!(answer.status >= 400, "{fault}: {body:#}");
            assert!(
                body["code"].is_string() && body["error"].is_string(),
                "{fault}: {body:#}"
            );
            eventually(PATIENCE, "nothing is left", || {
                azure.summary()["groups"]
                    .as_array()
                    .unwrap()
                    .is_empty()
                    .then_some(())
            });
            // The fault was for one request: the next one works.
            converges(azure, app);
        });
    }
}

#[test]
fn a_delete_that_takes_long_does_not_hold_up_the_next_start_for_ever() {
    let fault = json!({"kind": "slowDelete", "ms": 8000});
    after(&fault, "60", |azure, app| {
        converges(azure, app);
        let stopped = app.call("POST", "/api/stop-vpn", None);
        assert!([200, 202].contains(&stopped.status), "{}", stopped.text());
        converges(azure, app);
        assert_eq!(azure.summary()["created"], 2);
    });
}

#[test]
fn a_handler_killed_in_the_middle_of_a_start_is_repaired_by_the_next_call() {
    let fault = json!({"kind": "hold", "method": "PUT", "afterMs": 3000});
    after(&fault, "60", |azure, app| {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| app.call("POST", "/api/start-vpn", Some(&json!({}))).status);
            eventually(PATIENCE, "the group has been asked for", || {
                (azure.summary()["created"] == 1).then_some(())
            });
            app.kill_handler();
            assert_eq!(call.join().unwrap(), 500);
        });
        converges(azure, app);
        assert_eq!(azure.summary()["created"], 1);
    });
}

#[test]
fn without_storage_the_tunnel_goes_on_and_the_handler_says_what_is_wrong() {
    let azure = Azure::start("process", "default");
    let _internet = Internet::new(&azure);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);
    let client = Client::new(&azure, 0);
    client.up(&app.add_peer("laptop"));
    client.browses();
    azure.storage("down");
    let answer = start(&app);
    assert!(answer.status >= 500, "{}", answer.text());
    assert!(answer.json()["code"].is_string(), "{}", answer.text());
    client.browses();
    azure.storage("fine");
    converges(&azure, &app);
    client.browses();
}
