use super::*;

#[test]
fn an_operation_that_fails_leaves_a_failed_group_behind() {
    let mut cloud = Cloud::new();
    cloud.fault(
        json!({"kind": "operationFails", "code": "InternalServerError", "message": "sorry"}),
    );
    let reply = cloud.put(body());
    let poll = reply
        .header("azure-asyncoperation")
        .unwrap()
        .trim_start_matches("https://management.test")
        .to_owned();
    cloud.pass(Duration::from_secs(60));
    let status = cloud.call("GET", &poll, None).body.unwrap();
    assert_eq!(status["status"], "Failed");
    assert_eq!(
        status["error"],
        json!({"code": "InternalServerError", "message": "sorry"})
    );
    assert_eq!(cloud.get()["properties"]["provisioningState"], "Failed");
}

#[test]
fn an_image_that_cannot_be_pulled_says_so_in_the_events() {
    let mut cloud = Cloud::new();
    cloud.fault(json!({"kind": "imagePull"}));
    cloud.put(body());
    cloud.pass(Duration::from_secs(10));
    let shown = cloud.get();
    let view = &shown["properties"]["containers"][0]["properties"]["instanceView"];
    assert_eq!(view["currentState"]["state"], "Waiting");
    assert!(view["events"].to_string().contains("Failed to pull image"));
    assert_eq!(shown["properties"]["provisioningState"], "Creating");
    cloud.pass(Duration::from_secs(120));
    assert_eq!(cloud.get()["properties"]["provisioningState"], "Failed");
}

#[test]
fn a_crash_loop_counts_restarts_with_growing_pauses() {
    let mut cloud = Cloud::new();
    cloud.fault(json!({"kind": "crashLoop", "exitCode": 101}));
    cloud.put(body());
    cloud.pass(Duration::from_secs(20 + 1 + 10 + 1 + 20 + 2));
    let shown = cloud.get();
    let view = &shown["properties"]["containers"][0]["properties"]["instanceView"];
    assert_eq!(view["restartCount"], 3);
    assert_eq!(view["previousState"]["exitCode"], 101);
    assert!(
        view["currentState"]["detailStatus"]
            .as_str()
            .unwrap()
            .contains("CrashLoopBackOff")
    );
}

#[test]
fn a_slow_delete_and_a_slow_start_take_longer() {
    let mut cloud = Cloud::new();
    cloud.fault(json!({"kind": "slowStart", "ms": 100_000}));
    cloud.fault(json!({"kind": "slowDelete", "ms": 180_000}));
    cloud.put(body());
    cloud.pass(Duration::from_secs(100));
    assert_eq!(cloud.get()["properties"]["provisioningState"], "Creating");
    cloud.pass(Duration::from_secs(30));
    assert_eq!(cloud.get()["properties"]["provisioningState"], "Succeeded");
    cloud.call("DELETE", GROUP, None);
    cloud.pass(Duration::from_secs(180));
    assert_eq!(cloud.call("GET", GROUP, None).status, 200);
    cloud.pass(Duration::from_secs(10));
    assert_eq!(cloud.call("GET", GROUP, None).status, 404);
}

#[test]
fn what_the_service_refuses_at_once_makes_no_group() {
    for (fault, code) in [
        ("labelTaken", "DnsNameLabelNotAvailable"),
        ("noCapacity", "ServiceUnavailable"),
        ("inaccessibleImage", "InaccessibleImage"),
    ] {
        let mut cloud = Cloud::new();
        cloud.fault(json!({"kind": fault}));
        assert_eq!(cloud.put(body()).code(), code);
        assert_eq!(cloud.call("GET", GROUP, None).status, 404);
        assert_eq!(cloud.put(body()).status, 201);
    }
}

#[test]
fn quotas_and_rates_are_kept() {
    let mut cloud = Cloud::with(Settings {
        quotas: Quotas {
            cores: 1.5,
            per_5_minutes: 3,
            ..Quotas::default()
        },
        ..Settings::default()
    });
    assert_eq!(cloud.put(body()).status, 201);
    let other = GROUP.replace("westeurope", "other");
    let reply = cloud.call("PUT", &other, Some(body()));
    assert_eq!(reply.code(), "ContainerGroupQuotaReached");
    let text = reply.body.unwrap().to_string();
    assert!(
        text.contains("StandardCores") && text.contains("Limit: '1.5'"),
        "{text}"
    );
    cloud.call("PUT", &other, Some(body()));
    let reply = cloud.call("PUT", &other, Some(body()));
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").is_some());
}

#[test]
fn a_delete_while_it_is_being_created_ends_the_creation() {
    let mut cloud = Cloud::new();
    cloud.put(body());
    cloud.pass(Duration::from_secs(2));
    assert_eq!(cloud.call("DELETE", GROUP, None).status, 202);
    cloud.pass(Duration::from_secs(60));
    assert_eq!(cloud.call("GET", GROUP, None).status, 404);
    assert!(
        !cloud
            .commands
            .iter()
            .any(|command| matches!(command, Command::Open(_)))
    );
}

#[test]
fn what_happens_in_an_older_sandbox_is_ignored() {
    let mut cloud = Cloud::running();
    let older = cloud.sandbox().id;
    cloud.call("POST", &format!("{GROUP}/restart"), None);
    cloud.pass(Duration::from_secs(60));
    cloud.happens(older, Happening::Exited(0, 137));
    let shown = cloud.get();
    assert_eq!(shown["properties"]["instanceView"]["state"], "Running");
}
