//! Starts, stops and what arrives too late: in the end there is what was last asked for.

use std::collections::HashSet;
use std::sync::Barrier;
use std::time::Duration;

use popup_stand_ins::client::Answer;
use serde_json::{Value, json};

use crate::cloud::{Azure, Capabilities, Runner};
use crate::eventually;
use crate::function_app::FunctionApp;

const PATIENCE: Duration = Duration::from_secs(60);
const WAIT: (&str, &str) = ("START_WAIT_SECONDS", "60");
const STATUS: &str = "westeurope.status.json";

#[track_caller]
fn assert_runs(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_stop_during_a_start_wins_and_leaves_nothing() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[WAIT]);
    azure.fault(&json!({"kind": "slowStart", "ms": 30_000}));
    std::thread::scope(|scope| {
        let start = scope.spawn(|| app.start_once());
        eventually(PATIENCE, "a group is under way", || {
            (azure.groups().len() == 1).then_some(())
        });
        let stopped = app.stop();
        assert_eq!(stopped.status, 200, "{}", stopped.text());
        let started = start.join().unwrap();
        assert_eq!(started.status, 409, "{}", started.text());
        assert_eq!(started.json()["code"], "Interrupted");
    });
    assert_eq!(azure.groups(), [json!(null); 0]);
    assert_eq!(app.status()["state"], "stopped");
    assert_eq!(app.status()["peers"], json!([]), "nobody has its key");
}

#[test]
fn a_start_during_a_stop_waits_for_its_end_and_begins_anew() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[WAIT]);
    let before = assert_runs(&app.start_once());
    azure.fault(&json!({"kind": "slowDelete", "ms": 5000}));
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| app.stop());
        eventually(PATIENCE, "the group is on its way out", || {
            (azure.arrived("DELETE") == 1).then_some(())
        });
        let after = assert_runs(&app.start_once());
        assert_ne!(before["leaseId"], after["leaseId"]);
        let stopped = stop.join().unwrap();
        assert_eq!(stopped.status, 200, "{}", stopped.text());
    });
    assert_eq!(app.status()["state"], "running");
    let summary = azure.summary();
    assert_eq!(
        (&summary["created"], &summary["mostAtOnce"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn a_put_that_lands_after_the_delete_is_cleared_by_the_timer() {
    let azure = Azure::start(Runner::Fake, Capabilities::Default);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "1")]);
    azure.fault(&json!({"kind": "late", "method": "PUT", "ms": 12_000}));
    let started = app.start_once();
    assert_eq!(started.status, 202, "{}", started.text());
    assert_eq!(azure.arrived("PUT"), 2, "the first one seemed to be lost");
    let stopped = app.stop();
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    assert_eq!(azure.groups().len(), 0);
    eventually(PATIENCE, "the late group is there", || {
        (azure.groups().len() == 1).then_some(())
    });
    assert!(app.tick());
    eventually(PATIENCE, "the late group is gone", || {
        azure.groups().is_empty().then_some(())
    });
    assert_eq!(app.status()["state"], "stopped");
}

#[test]
fn a_put_that_lands_on_the_next_lease_s_group_does_not_end_the_vpn() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let app = FunctionApp::start(&azure, &[WAIT]);
    azure.fault(&json!({"kind": "late", "method": "PUT", "ms": 20_000}));
    assert_runs(&app.start_once());
    assert_eq!(app.stop().status, 200);
    let lease = assert_runs(&app.start_once())["leaseId"].clone();
    eventually(
        PATIENCE,
        "the containers of an old lease are started",
        || (azure.groups().first()?["starts"] == 2).then_some(()),
    );
    eventually(
        PATIENCE,
        "the group is replaced, and its gateway ready",
        || {
            app.tick();
            let starts = azure.groups().first()?["starts"].clone();
            (starts == 1 && app.status()["state"] == "running").then_some(())
        },
    );
    assert_eq!(app.status()["leaseId"], lease);
    assert_eq!(azure.summary()["mostAtOnce"], 1);
}

#[test]
fn new_settings_replace_a_group_at_the_next_start_and_not_under_a_vpn_that_runs() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let lease = {
        let app = FunctionApp::start(&azure, &[WAIT]);
        assert_runs(&app.start_once())["leaseId"].clone()
    };
    let image = ("CONTAINER_IMAGE", "ghcr.io/popup-vpn/popup-gateway:next");
    let app = FunctionApp::start(&azure, &[WAIT, image, ("VPN_PORTS", "500")]);
    let phone = json!({"peer": {"name": "phone"}});
    let added = assert_runs(&app.call("POST", "/api/start-vpn", Some(&phone)));
    assert!(app.tick());
    assert_eq!(added["leaseId"], lease);
    assert_eq!(azure.summary()["created"], 1, "nobody's VPN was cut");
    assert_eq!(app.status()["state"], "running");
    assert_eq!(app.stop().status, 200);
    let again = assert_runs(&app.start_once());
    assert_ne!(again["leaseId"], lease);
    assert!(again["endpoint"].as_str().unwrap().ends_with(":500"));
    assert_eq!(azure.summary()["created"], 2);
}

#[test]
fn an_old_status_that_says_ready_is_not_believed() {
    let azure = Azure::start(Runner::Fake, Capabilities::Default);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "3")]);
    let now = jiff::Timestamp::now();
    let mut status = json!({
        "schema": 1, "region": "westeurope",
        "lease_id": "0123456789abcdef0123456789abcdef",
        "boot_id": "0123456789abcdef0123456789abcdef",
        "started_at": now, "updated_at": now,
        "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        "mode": "socket", "mode_reason": "", "ready": true, "config_revision": 1_000_000,
        "peers": [], "version": "0",
    });
    azure.write_document("status", STATUS, &status);
    let started = app.start_once();
    assert_eq!(started.status, 202, "{}", started.text());
    assert_eq!(app.status()["state"], "starting");
    // The same words under the lease in force are believed.
    status["lease_id"] = azure.lease()["lease"]["id"].clone();
    azure.write_document("status", STATUS, &status);
    assert_runs(&app.start_once());
    assert_eq!(app.status()["state"], "running");
}

#[test]
fn two_regions_that_start_for_the_first_time_together_end_with_one_key() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let regions = ["westeurope", "northeurope"];
    let settings = [WAIT, ("REGIONS", "westeurope,northeurope")];
    let apps = regions.map(|_| FunctionApp::start(&azure, &settings));
    // Each gateway has made a key before the other's is there.
    azure.storage_fault(&json!({
        "kind": "hold", "method": "PUT", "path": "/keys/", "beforeMs": 4000, "count": 2,
    }));
    let together = Barrier::new(regions.len());
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> = apps
            .iter()
            .zip(regions)
            .map(|(app, region)| {
                let together = &together;
                scope.spawn(move || {
                    let body = json!({"region": region, "peer": {"name": region}});
                    together.wait();
                    assert_runs(&app.call("POST", "/api/start-vpn", Some(&body)))
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    azure.assert_faults_met();
    let keys: HashSet<&str> = answers
        .iter()
        .map(|answer| answer["serverPublicKey"].as_str().unwrap())
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    for answer in &answers {
        let conf = answer["clientConfig"].as_str().unwrap();
        assert!(
            conf.contains(keys.iter().next().unwrap()),
            "the file has the key too"
        );
    }
    let groups = azure.groups();
    let names: HashSet<&str> = groups
        .iter()
        .map(|group| group["fqdn"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "each region has a group of its own");
}
