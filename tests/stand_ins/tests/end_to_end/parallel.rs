use std::collections::HashSet;
use std::sync::Barrier;

use popup_stand_ins::client::Answer;
use serde_json::{Value, json};

use crate::cloud::{Azure, Capabilities, Runner};
use crate::function_app::FunctionApp;

/// Fifty calls at one moment, from three handler processes.
fn fifty(azure: &Azure, wait_s: &str, body: impl Fn(usize) -> Value + Sync) -> Vec<Answer> {
    let apps = [(); 3].map(|()| FunctionApp::start(azure, &[("START_WAIT_SECONDS", wait_s)]));
    let together = Barrier::new(50);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|number| {
                let (app, together, body) = (&apps[number % 3], &together, &body);
                scope.spawn(move || {
                    together.wait();
                    app.call("POST", "/api/start-vpn", Some(&body(number)))
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn assert_one_group(azure: &Azure) {
    let summary = azure.summary();
    assert_eq!(summary["mostAtOnce"], 1, "{summary:#}");
    assert_eq!(summary["created"], 1, "{summary:#}");
    assert_eq!(summary["groups"][0]["starts"], 1);
}

#[test]
fn of_fifty_starts_without_a_name_one_gets_a_configuration() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let answers = fifty(&azure, "60", |_| json!({}));
    let mut configurations = 0;
    for answer in answers {
        assert!([200, 202].contains(&answer.status), "{}", answer.text());
        let body = answer.json();
        let config = body["clientConfig"].is_string();
        assert!(!config || answer.status == 200, "{body:#}");
        configurations += usize::from(config);
    }
    assert_eq!(configurations, 1);
    assert_one_group(&azure);
    let config = azure.document("control", "config.json").unwrap();
    assert_eq!(config["peers"].as_array().unwrap().len(), 1, "{config:#}");
}

#[test]
fn fifty_starts_from_three_handlers_make_one_group() {
    let azure = Azure::start(Runner::Fake, Capabilities::Default);
    let answers = fifty(&azure, "3", |_| json!({}));
    // The fake runner's gateway is never ready, so every caller is told to come back.
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    assert_one_group(&azure);
}

#[test]
fn fifty_starts_with_fifty_peers_give_fifty_addresses_in_one_group() {
    let azure = Azure::start(Runner::Process, Capabilities::None);
    let answers = fifty(
        &azure,
        "60",
        |number| json!({"peer": {"name": format!("peer{number}")}}),
    );
    let mut addresses = HashSet::new();
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let conf = answer.json()["clientConfig"].as_str().unwrap().to_owned();
        let address = conf
            .lines()
            .find(|line| line.starts_with("Address"))
            .unwrap();
        assert!(
            addresses.insert(address.to_owned()),
            "{address} is there twice"
        );
    }
    assert_eq!(addresses.len(), 50);
    assert_one_group(&azure);
}
