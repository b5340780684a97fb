use std::time::Duration;

use serde_json::json;

use crate::boxes::{Client, Internet};
use crate::cloud::{Azure, FunctionApp};
use crate::eventually;

fn whole_life(capabilities: &str) {
    let azure = Azure::start("process", capabilities);
    let _internet = Internet::new(&azure);
    let app = FunctionApp::start(&azure, &[("START_WAIT_SECONDS", "60")]);

    let laptop = app.add_peer("laptop");
    let first = Client::new(&azure, 0);
    first.up(&laptop);
    first.browses();
    let metadata = "http://169.254.169.254/metadata/identity/oauth2/token";
    assert!(
        !first.curl(3, metadata).succeeded(),
        "metadata is the gateway's alone"
    );

    let phone = app.add_peer("phone");
    let second = Client::new(&azure, 1);
    second.up(&phone);
    second.browses();
    first.browses();
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
    first.down();

    app.start_vpn(&json!({}));
    let after = azure.summary();
    assert_ne!(before["groups"][0]["ip"], after["groups"][0]["ip"]);
    assert_eq!(before["groups"][0]["fqdn"], after["groups"][0]["fqdn"]);
    first.up(&laptop);
    first.browses();
}

#[test]
fn a_vpn_lives_on_azure_under_the_default_capabilities() {
    whole_life("default");
}

#[test]
fn a_vpn_lives_on_azure_without_any_capability() {
    whole_life("none");
}
