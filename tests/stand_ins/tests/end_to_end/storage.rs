//! Storage that says no, is slow or is away: a clear error or success, and no group for nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::boxes::{Client, Internet};
use crate::cloud::{Azure, Capabilities, Runner};
use crate::eventually;
use crate::faults::{converges, start};
use crate::function_app::FunctionApp;

const PATIENCE: Duration = Duration::from_secs(60);
const WAIT: (&str, &str) = ("START_WAIT_SECONDS", "60");

/// With these faults a start works all the same, and makes one peer and one group.
fn survives(faults: &[Value]) {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[WAIT]);
    for fault in faults {
        azure.storage_fault(fault);
    }
    let started = start(&app);
    azure.assert_faults_met();
    assert_eq!(started.status, 200, "{}\n{}", started.text(), app.log());
    let config = azure.document("control", "config.json").unwrap();
    assert_eq!(config["peers"].as_array().unwrap().len(), 1, "{config:#}");
    assert_eq!((azure.groups().len(), azure.arrived("PUT")), (1, 1));
}

fn refusal(status: u16, code: &str, path: &str, count: u32) -> Value {
    json!({
        "kind": "respond", "status": status, "code": code,
        "method": "PUT", "path": path, "count": count,
    })
}

#[test]
fn a_conflict_at_each_write_is_read_again_and_written_again() {
    survives(&[
        refusal(412, "ConditionNotMet", "lease.json", 3),
        refusal(409, "BlobAlreadyExists", "config.json", 2),
    ]);
}

#[test]
fn a_write_whose_answer_is_lost_is_not_done_twice() {
    survives(&[
        json!({"kind": "loseAnswer", "method": "PUT", "path": "config.json"}),
        json!({"kind": "loseAnswer", "method": "PUT", "path": "lease.json", "count": 2}),
    ]);
}

#[test]
fn a_busy_storage_is_asked_again() {
    survives(&[
        refusal(503, "ServerBusy", "lease.json", 2),
        json!({"kind": "respond", "status": 500, "code": "InternalError", "method": "GET", "count": 2}),
        json!({"kind": "drop", "path": "config.json"}),
    ]);
}

#[test]
fn a_slow_storage_only_delays_a_start() {
    survives(&[json!({"kind": "hold", "beforeMs": 700, "path": "/control/", "count": 12})]);
}

#[test]
fn without_storage_nothing_is_begun_and_the_answer_has_a_code() {
    for weather in ["down", "silent"] {
        let azure = Azure::start(Runner::Process, Capabilities::None);
        let app = FunctionApp::start(&azure, &[WAIT]);
        azure.storage(weather);
        let refused = start(&app);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["code"], "StorageUnavailable");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(azure.arrived("PUT"), 0, "no group without a lease");
        azure.storage("fine");
        converges(&azure, &app);
    }
}

#[test]
fn storage_that_goes_away_during_a_start_costs_neither_its_group_nor_its_key() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "5")]);
    azure.fault(&json!({"kind": "hold", "method": "PUT", "afterMs": 1500}));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| start(&app));
        eventually(PATIENCE, "the group is there", || {
            (azure.groups().len() == 1).then_some(())
        });
        azure.storage("down");
        let started = call.join().unwrap();
        assert_eq!(started.status, 202, "{}", started.text());
        let template = started.json()["clientConfigTemplate"].to_string();
        assert!(template.contains("PrivateKey = "), "{template}");
    });
    azure.storage("fine");
    azure.expire_claim();
    converges(&azure, &app);
    assert_eq!((azure.groups().len(), azure.arrived("PUT")), (1, 1));
    eventually(PATIENCE, "the answer is noted", || {
        let config = azure.document("control", "config.json")?;
        (config["peers"].as_array()?.len() == 1 && config["unanswered"].is_null()).then_some(())
    });
}

#[test]
fn without_storage_the_tunnel_goes_on_and_the_handler_says_what_is_wrong() {
    let azure = Azure::start(Runner::Process, Capabilities::Default);
    let _internet = Internet::new(&azure);
    let app = FunctionApp::start(&azure, &[WAIT]);
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
