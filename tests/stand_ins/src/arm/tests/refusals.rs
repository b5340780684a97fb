use super::*;

#[test]
fn ports_must_agree_in_both_places_and_not_be_reserved() {
    let container = "/properties/containers/0/properties/ports";
    let address = "/properties/ipAddress/ports";
    for (pointer, ports, code) in [
        (container, json!([{"port": 443}]), "InvalidRequestContent"),
        (
            address,
            json!([{"port": 443, "protocol": "TCP"}]),
            "InvalidRequestContent",
        ),
        (address, json!([]), "MissingIpAddressPorts"),
    ] {
        assert_eq!(Cloud::new().put(with(pointer, ports)).code(), code);
    }
    for (port, legal) in [
        (51820, false),
        (22, false),
        (20000, false),
        (65535, true),
        (4500, true),
    ] {
        let ports = json!([{"port": port, "protocol": "UDP"}]);
        let mut body = with(container, ports.clone());
        body["properties"]["ipAddress"]["ports"] = ports;
        let reply = Cloud::new().put(body);
        assert_eq!(reply.status == 201, legal, "{port}");
    }
    let six: Value = (500..506)
        .map(|port| json!({"port": port, "protocol": "UDP"}))
        .collect();
    let mut body = with(container, six.clone());
    body["properties"]["ipAddress"]["ports"] = six;
    assert_eq!(Cloud::new().put(body).status, 400);
}

#[test]
fn each_of_these_is_refused_with_400_and_makes_nothing() {
    for (pointer, value) in [
        ("/location", json!("atlantis")),
        ("/properties/containers", json!([])),
        ("/properties/containers/0/name", json!("Gateway_1")),
        ("/properties/containers/0/properties/image", json!("")),
        (
            "/properties/containers/0/properties/resources/requests/cpu",
            json!(0),
        ),
        (
            "/properties/containers/0/properties/environmentVariables/0/name",
            json!("STORAGE"),
        ),
        (
            "/properties/containers/0/properties/environmentVariables/0/value",
            Value::Null,
        ),
        ("/properties/ipAddress/dnsNameLabel", json!("vpn")),
        ("/properties/ipAddress/dnsNameLabel", json!("has.dots")),
        ("/properties/ipAddress/type", json!("Private")),
        (
            "/properties/volumes/0/azureFile/storageAccountKey",
            json!(""),
        ),
        ("/properties/restartPolicy", json!("Sometimes")),
        ("/identity/userAssignedIdentities", json!({"gateway": {}})),
        ("/identity/type", json!("None")),
        ("/tags", json!({"a/b": "c"})),
    ] {
        let mut cloud = Cloud::new();
        let reply = cloud.put(with(pointer, value.clone()));
        assert_eq!(reply.status, 400, "{pointer} {value}: {reply:?}");
        assert!(!reply.code().is_empty());
        assert_eq!(cloud.call("GET", GROUP, None).status, 404);
    }
}

#[test]
fn privileges_need_the_confidential_sku() {
    let mut body = body();
    body["properties"]["containers"][0]["properties"]["securityContext"] =
        json!({"privileged": true, "allowPrivilegeEscalation": true, "capabilities": {}});
    assert_eq!(Cloud::new().put(body.clone()).status, 400);
    body["properties"]["sku"] = json!("Confidential");
    body["properties"]["confidentialComputeProperties"] = json!({});
    assert_eq!(Cloud::new().put(body).status, 201);
}

#[test]
fn what_cannot_change_needs_a_new_group() {
    for (pointer, value, status) in [
        ("/properties/restartPolicy", json!("Always"), 400),
        (
            "/properties/containers/0/properties/resources/requests/memoryInGB",
            json!(2.0),
            400,
        ),
        (
            "/properties/containers/0/properties/image",
            json!("other"),
            200,
        ),
        ("/properties/ipAddress/dnsNameLabel", json!("another"), 200),
    ] {
        let reply = Cloud::running().put(with(pointer, value));
        assert_eq!(reply.status, status, "{pointer}");
        if status == 400 {
            assert!(
                reply
                    .body
                    .unwrap()
                    .to_string()
                    .contains("you must delete it first")
            );
        }
    }
}

#[test]
fn identities_must_exist_and_a_registrys_must_be_the_groups() {
    let settings = Settings {
        identities: vec![Identity::of(&IDENTITY.replace("gateway", "other"))],
        ..Settings::default()
    };
    assert_eq!(
        Cloud::with(settings).put(body()).code(),
        "FailedIdentityOperation"
    );
    let mut body = body();
    let other = IDENTITY.replace("gateway", "other");
    body["properties"]["imageRegistryCredentials"] =
        json!([{"server": "r.azurecr.io", "identity": other}]);
    assert_eq!(Cloud::new().put(body.clone()).status, 400);
    body["properties"]["imageRegistryCredentials"][0]["identity"] = json!(IDENTITY);
    assert_eq!(Cloud::new().put(body).status, 201);
}

#[test]
fn an_unsecure_label_belongs_to_the_first_who_asks() {
    let mut cloud = Cloud::new();
    let body = with(
        "/properties/ipAddress/autoGeneratedDomainNameLabelScope",
        json!("Unsecure"),
    );
    assert_eq!(cloud.put(body.clone()).status, 201);
    let other = GROUP.replace("vpn-rg", "other-rg");
    let reply = cloud.call("PUT", &other, Some(body));
    assert_eq!(reply.code(), "DnsNameLabelNotAvailable");
}

#[test]
fn a_second_put_during_the_first_is_a_conflict() {
    let mut cloud = Cloud::new();
    assert_eq!(cloud.put(body()).status, 201);
    let reply = cloud.put(body());
    assert_eq!(
        (reply.status, reply.code()),
        (409, "ContainerGroupTransitioning")
    );
}

#[test]
fn unknown_resource_groups_and_versions_are_refused() {
    let settings = Settings {
        resource_groups: vec!["other".to_owned()],
        ..Settings::default()
    };
    let reply = Cloud::with(settings).put(body());
    assert_eq!((reply.status, reply.code()), (404, "ResourceGroupNotFound"));
    let reply = Cloud::new().call("GET", &format!("{GROUP}?x=y"), None);
    assert_eq!(reply.code(), "MissingApiVersionParameter");
}
