use super::*;

#[test]
fn a_group_goes_from_pending_to_succeeded_at_the_recorded_pace() {
    let mut cloud = Cloud::new();
    let reply = cloud.put(body());
    assert_eq!(reply.status, 201);
    let shown = reply.body.clone().unwrap();
    assert_eq!(shown["properties"]["provisioningState"], "Pending");
    assert_eq!(shown["properties"]["provisioningTimeoutInSeconds"], 1800);
    assert_eq!(
        shown["properties"]["instanceView"],
        json!({"events": [], "state": "Pending"})
    );
    assert!(shown["properties"]["ipAddress"]["ip"].is_null());
    assert_eq!(shown["id"], GROUP);
    let poll = reply.header("azure-asyncoperation").unwrap();
    assert!(
        poll.ends_with("?api-version=2018-06-01")
            && poll.contains("/locations/westeurope/operations/")
    );
    assert_eq!(
        reply.header("location").or(reply.header("retry-after")),
        None
    );
    let remaining = "x-ms-ratelimit-remaining-subscription-resource-requests-pt";
    assert_eq!(reply.header(&format!("{remaining}1h")), Some("299"));
    assert_eq!(reply.header(&format!("{remaining}5m")), Some("99"));

    let poll = poll
        .trim_start_matches("https://management.test")
        .to_owned();
    let status = |cloud: &mut Cloud| cloud.call("GET", &poll, None).body.unwrap();
    assert_eq!(status(&mut cloud)["status"], "Pending");
    cloud.pass(Duration::from_secs(4));
    assert_eq!(cloud.get()["properties"]["provisioningState"], "Creating");
    assert_eq!(
        status(&mut cloud)["properties"]["events"][0]["name"],
        "Pulling"
    );
    cloud.pass(Duration::from_secs(16));
    let shown = cloud.get();
    assert_eq!(shown["properties"]["provisioningState"], "Succeeded");
    assert_eq!(shown["properties"]["instanceView"]["state"], "Running");
    assert_eq!(shown["properties"]["ipAddress"]["ip"], "203.0.113.100");
    let fqdn = shown["properties"]["ipAddress"]["fqdn"].as_str().unwrap();
    let parts: Vec<&str> = fqdn.split('.').collect();
    assert_eq!(
        (parts[0], parts[1].len(), parts[2]),
        ("popup-vpn", 16, "westeurope")
    );
    let container = &shown["properties"]["containers"][0]["properties"]["instanceView"];
    assert_eq!(container["currentState"]["state"], "Running");
    assert_eq!(container["restartCount"], 0);
    let names: Vec<&str> = container["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["name"].as_str())
        .collect();
    assert_eq!(names, ["Pulling", "Pulled", "Started"]);
    assert_eq!(status(&mut cloud)["status"], "Succeeded");
}

#[test]
fn the_container_gets_its_environment_and_its_identity() {
    let cloud = Cloud::running();
    let sandbox = cloud.sandbox();
    assert_eq!(sandbox.identities, [Identity::of(IDENTITY)]);
    let run = cloud.commands.iter().find_map(|command| match command {
        Command::Run(_, spec) => Some(spec.clone()),
        _ => None,
    });
    let run = run.unwrap();
    assert!(
        run.environment
            .contains(&("STORAGE".to_owned(), "sesame".to_owned()))
    );
    assert!(!format!("{run:?}").contains("sesame"));
}

#[test]
fn secrets_never_come_out() {
    let mut cloud = Cloud::new();
    let created = cloud.put(body()).body.unwrap();
    cloud.pass(Duration::from_secs(60));
    let list = cloud
        .call("GET", GROUP.rsplit_once('/').unwrap().0, None)
        .body
        .unwrap();
    for shown in [created, cloud.get(), list] {
        assert!(!shown.to_string().contains("sesame"), "{shown:#}");
        assert!(shown.to_string().contains("\"STORAGE\""));
    }
}

#[test]
fn the_name_follows_the_address_with_a_lag() {
    let mut cloud = Cloud::new();
    cloud.put(body());
    cloud.pass(Duration::from_secs(20));
    let resolves = |cloud: &Cloud| {
        let last = cloud
            .commands
            .iter()
            .rev()
            .find_map(|command| match command {
                Command::Resolve(_, ip) => Some(*ip),
                _ => None,
            });
        last.flatten()
    };
    let first = cloud.sandbox().ip;
    assert_eq!(resolves(&cloud), None);
    cloud.pass(Duration::from_secs(10));
    assert_eq!(resolves(&cloud), first);
    cloud.call("DELETE", GROUP, None);
    cloud.pass(Duration::from_secs(5));
    assert_eq!(resolves(&cloud), first, "the old answer stays for a while");
    cloud.put(body());
    cloud.pass(Duration::from_secs(40));
    assert_ne!(cloud.sandbox().ip, first);
    assert_eq!(resolves(&cloud), cloud.sandbox().ip);
}

#[test]
fn a_deleted_group_is_there_until_its_sandbox_and_its_time_are_over() {
    let mut cloud = Cloud::running();
    cloud.closes = false;
    let reply = cloud.call("DELETE", GROUP, None);
    assert_eq!(reply.status, 202);
    let poll = reply
        .header("azure-asyncoperation")
        .unwrap()
        .trim_start_matches("https://management.test")
        .to_owned();
    cloud.pass(Duration::from_secs(30));
    assert_eq!(cloud.put(body()).code(), "ContainerGroupTransitioning");
    assert_eq!(cloud.call("DELETE", GROUP, None).status, 202);
    cloud.happens(cloud.sandbox().id, Happening::Closed);
    assert_eq!(
        cloud.call("GET", &poll, None).body.unwrap()["status"],
        "Succeeded"
    );
    assert_eq!(cloud.call("GET", GROUP, None).code(), "ResourceNotFound");
    assert_eq!(cloud.call("DELETE", GROUP, None).status, 204);
}

#[test]
fn a_deletion_that_takes_no_time_answers_200_with_the_group() {
    let mut cloud = Cloud::with(Settings {
        delays: Delays::recorded().scaled(0.0),
        ..Settings::default()
    });
    cloud.put(body());
    cloud.pass(Duration::ZERO);
    let reply = cloud.call("DELETE", GROUP, None);
    assert_eq!(
        (reply.status, &reply.body.unwrap()["id"]),
        (200, &json!(GROUP))
    );
    assert_eq!(cloud.call("GET", GROUP, None).status, 404);
}

#[test]
fn stop_and_start_give_another_address_and_the_same_name() {
    let mut cloud = Cloud::running();
    let before = cloud.get();
    assert_eq!(
        cloud.call("POST", &format!("{GROUP}/stop"), None).status,
        204
    );
    let stopped = cloud.get();
    assert_eq!(stopped["properties"]["instanceView"]["state"], "Stopped");
    assert!(stopped["properties"]["ipAddress"]["ip"].is_null());
    let reply = cloud.call("POST", &format!("{GROUP}/start"), None);
    assert_eq!(reply.status, 202);
    assert!(reply.header("azure-asyncoperation").is_some());
    cloud.pass(Duration::from_secs(60));
    let after = cloud.get();
    let address = |shown: &Value, part: &str| shown["properties"]["ipAddress"][part].clone();
    assert_ne!(address(&before, "ip"), address(&after, "ip"));
    assert_eq!(address(&before, "fqdn"), address(&after, "fqdn"));
    assert_eq!(
        cloud.call("POST", &format!("{GROUP}/restart"), None).status,
        204
    );
    assert_eq!(
        cloud.call("POST", &format!("{GROUP}/restart"), None).status,
        409
    );
}

#[test]
fn a_container_is_started_again_only_as_its_policy_says() {
    for (policy, code, again) in [
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Always", 0, true),
        ("Never", 1, false),
    ] {
        let mut cloud = Cloud::new();
        cloud.put(with("/properties/restartPolicy", json!(policy)));
        cloud.pass(Duration::from_secs(60));
        cloud.happens(cloud.sandbox().id, Happening::Exited(0, code));
        cloud.pass(Duration::from_secs(10));
        let shown = cloud.get();
        let view = &shown["properties"]["containers"][0]["properties"]["instanceView"];
        let state = if again { "Running" } else { "Terminated" };
        assert_eq!(view["currentState"]["state"], state, "{policy} {code}");
        assert_eq!(view["restartCount"], u32::from(again));
        let shown = if again {
            &view["previousState"]
        } else {
            &view["currentState"]
        };
        assert_eq!(shown["exitCode"], code);
    }
}

#[test]
fn a_put_on_a_running_group_restarts_it_with_status_200() {
    let mut cloud = Cloud::running();
    let first = cloud.sandbox().id;
    let reply = cloud.put(with("/tags/lease", json!("b")));
    assert_eq!(reply.status, 200);
    cloud.pass(Duration::from_secs(60));
    assert_ne!(cloud.sandbox().id, first);
    assert_eq!(cloud.get()["tags"]["lease"], "b");
    assert!(cloud.commands.contains(&Command::Close(first)));
    assert_eq!(cloud.simulation.summary().created, 1);
}

#[test]
fn patch_changes_tags_and_nothing_else() {
    let mut cloud = Cloud::running();
    let reply = cloud.call("PATCH", GROUP, Some(json!({"tags": {"lease": "c"}})));
    assert_eq!(reply.body.unwrap()["tags"], json!({"lease": "c"}));
    let reply = cloud.call("PATCH", GROUP, Some(json!({"properties": {}})));
    assert_eq!(reply.status, 400);
}

#[test]
fn logs_are_the_containers_output() {
    let mut cloud = Cloud::running();
    let sandbox = cloud.sandbox().id;
    cloud.happens(sandbox, Happening::Output(0, b"one\ntwo\n".to_vec()));
    let path = format!("{GROUP}/containers/gateway/logs");
    let reply = cloud.call(
        "GET",
        &format!("{path}?api-version=2023-05-01&tail=1"),
        None,
    );
    assert_eq!(reply.body, Some(json!({"content": "two\n"})));
    let other = format!("{GROUP}/containers/other/logs");
    assert_eq!(cloud.call("GET", &other, None).status, 404);
}

#[test]
fn lists_are_by_subscription_and_by_resource_group_without_instance_views() {
    let mut cloud = Cloud::running();
    let all = "/subscriptions/SUB/providers/Microsoft.ContainerInstance/containerGroups";
    let other = all.replace("providers", "resourceGroups/other/providers");
    let mut list = |path: &str| cloud.call("GET", path, None).body.unwrap()["value"].clone();
    assert_eq!(list(&other), json!([]));
    let listed = list(all);
    assert_eq!(listed[0]["name"], "wireguard-vpn-westeurope");
    assert!(listed[0]["properties"]["instanceView"].is_null());
}

#[test]
fn with_location_the_poll_is_202_and_ends_with_the_group() {
    let mut cloud = Cloud::with(Settings {
        long_running: LongRunning::Location,
        ..Settings::default()
    });
    let reply = cloud.put(body());
    assert_eq!(reply.header("azure-asyncoperation"), None);
    assert_eq!(reply.header("retry-after"), Some("10"));
    let poll = reply
        .header("location")
        .unwrap()
        .trim_start_matches("https://management.test")
        .to_owned();
    assert_eq!(cloud.call("GET", &poll, None).status, 202);
    cloud.pass(Duration::from_secs(60));
    let reply = cloud.call("GET", &poll, None);
    assert_eq!(
        (reply.status, &reply.body.unwrap()["id"]),
        (200, &json!(GROUP))
    );
}
