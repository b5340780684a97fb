//! The official SDK as a judge of the simulation.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use popup_stand_ins::arm::{LongRunning, Settings};
use support::{Azure, management_token, quick, tools};

async fn lifecycle(settings: Settings) {
    let azure = Azure::start(settings).await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, &azure.ca_pem).unwrap();
    let python = tools().join("azure-sdk/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run scripts/install-stand-ins.sh",
        python.display()
    );
    let output = tokio::process::Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/lifecycle.py"))
        .arg(azure.url())
        .arg(&ca)
        .arg(management_token())
        .arg("westeurope")
        .env_remove("HTTPS_PROXY")
        .env("NO_PROXY", "*")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert!(text(&output.stdout).ends_with("deleted\n"));
    assert_eq!(azure.runner.open_sandboxes(), []);
}

#[tokio::test]
async fn the_official_sdk_drives_a_group_through_its_whole_life() {
    lifecycle(quick()).await;
}

#[tokio::test]
async fn the_official_sdk_follows_a_location_as_well() {
    lifecycle(Settings {
        long_running: LongRunning::Location,
        ..quick()
    })
    .await;
}
