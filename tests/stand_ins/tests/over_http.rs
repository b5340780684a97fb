//! The simulation over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::Duration;

use popup_stand_ins::client::call;
use popup_stand_ins::runner::Script;
use popup_stand_ins::token;
use serde_json::{Value, json};
use support::{Azure, eventually, quick};

const GROUP: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerInstance/containerGroups/vpn?api-version=2023-05-01";

fn body() -> Value {
    json!({
        "location": "westeurope",
        "properties": {
            "osType": "Linux",
            "restartPolicy": "OnFailure",
            "containers": [{"name": "gateway", "properties": {
                "image": "i", "ports": [{"port": 443, "protocol": "UDP"}],
                "resources": {"requests": {"cpu": 1, "memoryInGB": 1.5}},
            }}],
            "ipAddress": {"type": "Public", "ports": [{"port": 443, "protocol": "UDP"}], "dnsNameLabel": "popup"},
        },
    })
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn settled(azure: &Azure) -> Value {
    eventually(PATIENCE, "the group settles", async || {
        let shown = azure.call("GET", GROUP, None).await.unwrap().json();
        let state = shown["properties"]["provisioningState"]
            .as_str()
            .unwrap_or_default();
        ["Succeeded", "Failed"].contains(&state).then_some(shown)
    })
    .await
}

#[tokio::test]
async fn a_group_runs_and_its_name_follows() {
    let azure = Azure::start(quick()).await;
    let answer = azure.call("PUT", GROUP, Some(&body())).await.unwrap();
    assert_eq!(answer.status, 201);
    let poll = answer.header("azure-asyncoperation").unwrap();
    assert!(poll.starts_with(&azure.url()), "{poll}");
    let shown = settled(&azure).await;
    let ip = shown["properties"]["ipAddress"]["ip"].clone();
    let name = "popup.westeurope.azurecontainer.io";
    assert_eq!(shown["properties"]["ipAddress"]["fqdn"], name);
    eventually(PATIENCE, "the name resolves", async || {
        let answer = azure
            .call("GET", &format!("/_simulation/names/{name}"), None)
            .await
            .unwrap();
        (answer.json()["ip"] == ip).then_some(())
    })
    .await;
    assert_eq!(azure.runner.open_sandboxes().len(), 1);
}

#[tokio::test]
async fn a_container_that_cannot_start_fails_the_group_and_says_why() {
    let azure = Azure::start(quick()).await;
    azure
        .runner
        .script(Script::Refuse("no such program".to_owned()));
    azure.call("PUT", GROUP, Some(&body())).await.unwrap();
    let shown = settled(&azure).await;
    assert_eq!(shown["properties"]["provisioningState"], "Failed");
    assert!(shown.to_string().contains("no such program"));
}

#[tokio::test]
async fn what_a_container_prints_is_in_its_log() {
    let azure = Azure::start(quick()).await;
    azure.runner.script(Script::Exit("goodbye\n".to_owned(), 0));
    azure.call("PUT", GROUP, Some(&body())).await.unwrap();
    settled(&azure).await;
    let logs = GROUP.replace("?", "/containers/gateway/logs?");
    eventually(PATIENCE, "the log is there", async || {
        let log = azure.call("GET", &logs, None).await.unwrap().json();
        (log["content"] == "goodbye\n").then_some(())
    })
    .await;
    let shown = azure.call("GET", GROUP, None).await.unwrap().json();
    assert_eq!(shown["properties"]["instanceView"]["state"], "Succeeded");
}

#[tokio::test]
async fn faults_of_the_connection_are_what_they_say() {
    let azure = Azure::start(quick()).await;
    azure
        .fault(json!({"kind": "respond", "status": 429, "retryAfterS": 3}))
        .await;
    let answer = azure.call("GET", GROUP, None).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("3"))
    );
    azure.fault(json!({"kind": "drop", "method": "PUT"})).await;
    assert!(azure.call("PUT", GROUP, Some(&body())).await.is_err());
    assert_eq!(azure.call("GET", GROUP, None).await.unwrap().status, 404);
    azure
        .fault(json!({"kind": "loseAnswer", "method": "PUT"}))
        .await;
    assert!(azure.call("PUT", GROUP, Some(&body())).await.is_err());
    assert_eq!(azure.call("GET", GROUP, None).await.unwrap().status, 200);
    let summary = azure
        .call("GET", "/_simulation/summary", None)
        .await
        .unwrap()
        .json();
    assert_eq!(
        (&summary["created"], &summary["mostAtOnce"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_put_that_is_held_takes_effect_late() {
    let azure = Azure::start(quick()).await;
    azure
        .fault(json!({"kind": "hold", "method": "PUT", "beforeMs": 200}))
        .await;
    let body = body();
    let (put, early) = tokio::join!(
        azure.call("PUT", GROUP, Some(&body)),
        azure.call("DELETE", GROUP, None)
    );
    assert_eq!(early.unwrap().status, 204);
    assert_eq!(put.unwrap().status, 201);
}

#[tokio::test]
async fn a_put_that_has_come_is_carried_out_though_its_sender_has_gone() {
    for fault in [
        json!({"kind": "hold", "method": "PUT", "beforeMs": 300}),
        json!({"kind": "late", "method": "PUT", "ms": 300}),
    ] {
        let azure = Azure::start(quick()).await;
        azure.fault(fault).await;
        let body = body();
        let put = azure.call("PUT", GROUP, Some(&body));
        let answer = tokio::time::timeout(Duration::from_millis(150), put).await;
        assert!(!matches!(answer, Ok(Ok(_))), "there is no answer");
        let shown = async || azure.call("GET", GROUP, None).await.unwrap().status;
        assert_eq!(shown().await, 404);
        eventually(PATIENCE, "the group is there", async || {
            (shown().await == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_a_token_for_it_resource_manager_refuses() {
    let azure = Azure::start(quick()).await;
    let ca = Some(azure.ca_pem.as_str());
    let answer = call(azure.address(), ca, "GET", GROUP, &[], None)
        .await
        .unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").is_some());
}

#[tokio::test]
async fn the_function_apps_identity_gets_a_token_only_with_the_secret_header() {
    let azure = Azure::start(quick()).await;
    let target = "/msi/token?api-version=2019-08-01&resource=https://management.azure.com/";
    let refused = azure.call("GET", target, None).await.unwrap();
    assert_eq!(refused.status, 401);
    let headers = [("x-identity-header", azure.app.header.as_str())];
    let ca = Some(azure.ca_pem.as_str());
    let answer = call(azure.address(), ca, "GET", target, &headers, None)
        .await
        .unwrap()
        .json();
    let given = answer["access_token"].as_str().unwrap();
    let claims = token::check(
        given,
        &["https://management.azure.com"],
        jiff::Timestamp::now(),
    )
    .unwrap();
    assert_eq!(claims["appid"], azure.app.identity.client_id.as_str());
    assert!(answer["expires_on"].is_string());
}
