use std::time::Duration;

use serde_json::json;

use crate::boxes::{Client, GREETING, Internet, PLATFORM};
use crate::cloud::{Azure, Capabilities, Runner, SERVICES, root};
use crate::eventually;
use crate::function_app::FunctionApp;

fn whole_life(runner: Runner, capabilities: Capabilities, settings: &[(&str, &str)], mode: &str) {
    let azure = Azure::start(runner, capabilities);
    let _internet = Internet::new(&azure);
    let settings = [&[("START_WAIT_SECONDS", "60")], settings].concat();
    let app = FunctionApp::start(&azure, &settings);

    let laptop = app.add_peer("laptop");
    let first = Client::new(&azure, 0);
    for address in PLATFORM {
        let answer = first.asks_the_platform(address);
        let there = (GREETING.to_owned(), Some(0));
        assert_eq!(
            answer, there,
            "{address} is there, and answers without a tunnel"
        );
    }
    first.up(&laptop);
    first.browses();
    // The gateway has got its own token there, or it would not run. Not even silence is enough.
    for address in PLATFORM {
        let answer = first.asks_the_platform(address);
        let refused = (String::new(), Some(7));
        assert_eq!(
            answer, refused,
            "{address} must be refused through the tunnel, at once"
        );
    }

    let phone = app.add_peer("phone");
    let second = Client::new(&azure, 1);
    second.up(&phone);
    second.browses();
    first.browses();
    assert_eq!(app.status()["mode"], mode);
    let before = azure.summary();
    assert_eq!(
        (&before["created"], &before["groups"][0]["starts"]),
        (&json!(1), &json!(1))
    );

    let stopped = app.call("POST", "/api/stop-vpn", None);
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    eventually(Duration::from_secs(30), "the group is gone", || {
        azure.summary()["groups"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });
    let said = azure.document("status", "westeurope.status.json").unwrap();
    assert_eq!(said["ended"]["reason"], "terminated", "it was asked to end");
    first.down();

    app.start_vpn(&json!({}));
    let after = azure.summary();
    assert_ne!(before["groups"][0]["ip"], after["groups"][0]["ip"]);
    assert_eq!(before["groups"][0]["fqdn"], after["groups"][0]["fqdn"]);
    first.up(&laptop);
    first.browses();
}

/// The first commands below a heading of docs/OPERATIONS.md.
fn documented(heading: &str) -> String {
    let text = std::fs::read_to_string(root().join("docs/OPERATIONS.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, commands) = section.split_once("\n```sh\n").unwrap();
    commands.split_once("```").unwrap().0.to_owned()
}

#[test]
fn a_202_becomes_a_file_by_the_commands_of_the_documentation() {
    let azure = Azure::start(Runner::Process, Capabilities::Default);
    let _internet = Internet::new(&azure);
    let app = FunctionApp::start(&azure, &[]);
    let peer = "{\"peer\": {\"name\": \"phone\"}}";
    let commands = documented("A start that takes longer");
    assert!(commands.contains(peer), "{commands}");
    // The lab has a resolver of its own.
    let lab = format!("{{\"peer\": {{\"name\": \"phone\"}}, \"dns\": [\"{SERVICES}\"]}}");
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "set -eu; cd '{}'; KEY=host-key; URL=http://{}\n{}",
        directory.path().display(),
        app.address,
        commands.replace(peer, &lab),
    );
    let finished = azure
        .namespace
        .run(Duration::from_secs(60), &["sh", "-c", &script]);
    finished.expect("the commands of OPERATIONS.md");
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the file stays: {left:?}");
    let conf = std::fs::read_to_string(directory.path().join("phone.conf")).unwrap();
    let phone = Client::new(&azure, 0);
    phone.up(&conf);
    phone.browses();
}

#[test]
fn a_vpn_lives_on_azure_under_the_default_capabilities() {
    whole_life(Runner::Process, Capabilities::Default, &[], "raw");
}

#[test]
fn a_vpn_lives_on_azure_without_any_capability() {
    whole_life(Runner::Process, Capabilities::None, &[], "socket");
}

#[test]
fn the_image_makes_a_vpn_under_the_default_capabilities_and_seccomp_profile() {
    whole_life(Runner::Podman, Capabilities::Default, &[], "raw");
}

#[test]
fn the_image_makes_a_vpn_without_any_capability() {
    whole_life(Runner::Podman, Capabilities::None, &[], "socket");
}

#[test]
fn the_image_makes_a_vpn_in_kernel_mode_where_it_is_privileged() {
    let settings = [
        ("CONTAINER_SKU", "Confidential"),
        ("GATEWAY_MODE", "kernel"),
    ];
    whole_life(Runner::Podman, Capabilities::Default, &settings, "kernel");
}
