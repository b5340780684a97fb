//! The Functions host double with a small handler.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use popup_stand_ins::client::{Answer, call};
use popup_stand_ins::functions_host::{FunctionsHost, Options, State};
use serde_json::{Value, json};
use support::eventually;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// A package whose handler is `support/handler.py`.
fn package() -> (TempDir, Options) {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, value: Value| {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, value.to_string()).unwrap();
    };
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"];
    let python = python.iter().find(|path| fs::exists(path).unwrap_or(false));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/handler.py");
    let handler = json!({
        "description": {"defaultExecutablePath": python, "arguments": [script]},
        "enableProxyingHttpRequest": true,
        "initializationTimeout": "01:00:00",
    });
    write(
        "host.json",
        json!({"version": "2.0", "customHandler": handler}),
    );
    let http = |level: &str, methods: Value, route: &str| {
        let trigger = json!({
            "type": "httpTrigger", "direction": "in", "name": "req",
            "authLevel": level, "methods": methods, "route": route,
        });
        json!({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]})
    };
    write(
        "open/function.json",
        http("anonymous", json!(["get", "post"]), "open/{*rest}"),
    );
    write(
        "closed/function.json",
        http("function", json!(["post"]), "closed"),
    );
    write(
        "admins/function.json",
        http("admin", json!(["get"]), "admins"),
    );
    let timer = json!({"type": "timerTrigger", "name": "timer", "schedule": "0 */5 * * * *"});
    write("tick/function.json", json!({"bindings": [timer]}));
    let options = Options::new(directory.path());
    (directory, options)
}

async fn get(host: &FunctionsHost, target: &str, headers: &[(&str, &str)]) -> Answer {
    call(host.address, None, "GET", target, headers, None)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_reaches_the_handler_with_its_own_path_query_host_and_body() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options.setting("A_SETTING", "a value"))
        .await
        .unwrap();
    let target = "/api/open/a%20b/c?x=1&y=%2F";
    let headers = [("host", "my-app.azurewebsites.net")];
    let body = json!({"hello": "there"});
    let answer = call(host.address, None, "POST", target, &headers, Some(&body))
        .await
        .unwrap();
    let seen = answer.json();
    assert_eq!(seen["path"], target);
    assert_eq!(seen["host"], "my-app.azurewebsites.net");
    assert_eq!(seen["body"], body.to_string());
    assert_eq!(seen["setting"], "a value");
    assert_eq!(seen["invocation"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn keys_open_what_their_level_says() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options).await.unwrap();
    let post = async |target: &str, headers: &[(&str, &str)]| {
        call(host.address, None, "POST", target, headers, None)
            .await
            .unwrap()
            .status
    };
    assert_eq!(post("/api/closed", &[]).await, 401);
    assert_eq!(post("/api/closed?code=wrong", &[]).await, 401);
    assert_eq!(post("/api/closed?code=host-key", &[]).await, 200);
    assert_eq!(
        post("/api/closed", &[("x-functions-key", "master-key")]).await,
        200
    );
    assert_eq!(
        get(&host, "/api/admins?code=host-key", &[]).await.status,
        401
    );
    assert_eq!(
        get(&host, "/api/admins?code=master-key", &[]).await.status,
        200
    );
}

#[tokio::test]
async fn what_no_function_takes_is_not_found() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options).await.unwrap();
    for target in ["/", "/api/none", "/api/closed", "/tick", "/api/tick"] {
        assert_eq!(get(&host, target, &[]).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn a_timer_gets_an_envelope_and_a_failure_is_one() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options.clone()).await.unwrap();
    let fired = host.fire("tick").await.unwrap();
    assert!(fired.succeeded, "{fired:?}");
    let seen: Value = serde_json::from_str(fired.outcome.split_once(' ').unwrap().1).unwrap();
    assert_eq!(
        (&seen["method"], &seen["path"]),
        (&json!("POST"), &json!("/tick"))
    );
    let envelope: Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
    assert_eq!(envelope["Data"]["timer"]["IsPastDue"], false);
    assert_eq!(envelope["Metadata"]["sys"]["MethodName"], "tick");
    assert!(host.log().iter().any(|line| line.text == "from the timer"));

    let host = FunctionsHost::start(options.setting("FAIL_TIMER", "1"))
        .await
        .unwrap();
    let fired = host.fire("tick").await.unwrap();
    assert!(
        !fired.succeeded && fired.outcome.starts_with("500 "),
        "{fired:?}"
    );
}

#[tokio::test]
async fn stdout_is_information_and_stderr_is_an_error() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options).await.unwrap();
    get(&host, "/api/open", &[]).await;
    let log = host.log();
    let error = |text: &str| {
        log.iter()
            .find(|line| line.text == text)
            .map(|line| line.error)
    };
    assert_eq!(
        (error("to stdout"), error("to stderr")),
        (Some(false), Some(true))
    );
}

#[tokio::test]
async fn a_handler_that_dies_is_started_again_and_the_third_time_ends_the_host() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options).await.unwrap();
    // A dying process may still take a connection.
    let pid = async || {
        eventually(PATIENCE, "the handler answers", async || {
            let answer = get(&host, "/api/open", &[]).await;
            (answer.status == 200).then(|| answer.json()["pid"].clone())
        })
        .await
    };
    let mut last = pid().await;
    for _ in 0..2 {
        assert_eq!(get(&host, "/api/open/die", &[]).await.status, 500);
        let next = pid().await;
        assert_ne!(next, last);
        last = next;
    }
    get(&host, "/api/open/die", &[]).await;
    host.shut_down().await;
    assert_eq!(host.state(), State::ShutDown);
    assert_eq!(get(&host, "/api/open", &[]).await.status, 500);
}

#[tokio::test]
async fn a_handler_that_never_starts_ends_the_host() {
    let (_directory, options) = package();
    let host = FunctionsHost::start(options.setting("DIE_AT_START", "1"))
        .await
        .unwrap();
    assert!(!host.ready().await);
}

#[tokio::test]
async fn a_request_ends_at_the_front_ends_limit() {
    let (_directory, mut options) = package();
    // 230 s become 2.3 s, and the start's 3600 s become 36 s.
    options.scale = 0.01;
    let host = FunctionsHost::start(options).await.unwrap();
    assert!(host.ready().await);
    let begun = Instant::now();
    assert_eq!(get(&host, "/api/open/hang", &[]).await.status, 502);
    assert!(begun.elapsed() < Duration::from_secs(20));
}
