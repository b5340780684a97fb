//! What a container finds around itself, seen by a shell script in place of the gateway.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud::Azure;
use crate::eventually;

const GROUP: &str = "/subscriptions/s/resourceGroups/popup/providers/Microsoft.ContainerInstance/containerGroups/probe";

/// Runs a shell script as a container and returns its log.
fn log_of(capabilities: &str, script: &str) -> String {
    let azure = Azure::start("process", capabilities);
    let identity = azure.ready["settings"]["GATEWAY_IDENTITY_ID"]
        .as_str()
        .unwrap();
    let body = json!({
        "location": "westeurope",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}},
        "properties": {
            "osType": "Linux",
            "restartPolicy": "Never",
            "containers": [{"name": "probe", "properties": {
                "image": "probe",
                "command": ["sh", "-c", format!("{script}\necho the end")],
                "environmentVariables": [{"name": "SECRET", "secureValue": "sesame"}],
                "ports": [{"port": 443, "protocol": "UDP"}],
                "resources": {"requests": {"cpu": 1, "memoryInGB": 1.5}},
            }}],
            "ipAddress": {"type": "Public", "ports": [{"port": 443, "protocol": "UDP"}]},
        },
    });
    let plain = azure.ready["plain"].as_str().unwrap();
    let now = jiff::Timestamp::now();
    let token = popup_stand_ins::token::mint("https://management.azure.com", "c", "p", now);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let call = |method: &str, part: &str, body: Option<&Value>| {
        let target = format!("{GROUP}{part}?api-version=2023-05-01");
        azure.call(plain, method, &target, &headers, body).unwrap()
    };
    let created = call("PUT", "", Some(&body));
    assert_eq!(created.status, 201, "{}", created.text());
    eventually(Duration::from_secs(30), "the script ends", || {
        let log = call("GET", "/containers/probe/logs", None).json();
        let text = log["content"].as_str().unwrap_or_default().to_owned();
        text.contains("the end").then_some(text)
    })
}

#[test]
fn a_container_has_an_address_a_secret_and_a_token_and_no_tunnel() {
    let log = log_of(
        "default",
        "id -u; grep CapEff /proc/self/status; echo \"secret $SECRET $IDENTITY_ENDPOINT\"
         ip -4 -oneline address show dev eth0; cat /etc/resolv.conf
         ls /dev/net/tun 2>&1; ip link add x type dummy 2>&1
         url='http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://storage.azure.com'
         curl -s \"$url\"; curl -s -H 'Metadata: true' \"$url\"; curl -s -H 'Metadata: true' \"$url&client_id=other\"",
    );
    for expected in [
        "0\n",
        "CapEff:\t00000000a80425fb",
        "secret sesame \n",
        "203.0.113.100/24",
        "nameserver 192.0.2.1",
        "Operation not permitted",
        "Required metadata header not specified",
        "\"access_token\":\"",
        "Identity not found",
    ] {
        assert!(log.contains(expected), "{expected} is not in\n{log}");
    }
    assert!(!log.contains("/dev/net/tun\n"), "{log}");
}

#[test]
fn without_capabilities_root_has_none() {
    let log = log_of("none", "id -u; grep CapEff /proc/self/status");
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
}
