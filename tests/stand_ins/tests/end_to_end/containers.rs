//! What a container finds around itself, seen by a shell script in place of the gateway.

use std::time::Duration;

use popup_stand_ins::client::Answer;
use serde_json::{Value, json};

use crate::cloud::{Azure, Capabilities, Runner};
use crate::eventually;

const GROUP: &str = "/subscriptions/s/resourceGroups/popup/providers/Microsoft.ContainerInstance/containerGroups/probe";

/// Runs a shell script as a container, once, and returns its log.
fn log_of(runner: Runner, capabilities: Capabilities, script: &str) -> String {
    let azure = Azure::start(runner, capabilities);
    let script = format!("{script}\necho the end");
    create(&azure, "Never", &script);
    eventually(PATIENCE, "the script ends", || {
        let text = log(&azure);
        text.contains("the end").then_some(text)
    })
}

const PATIENCE: Duration = Duration::from_secs(30);

fn create(azure: &Azure, restart: &str, script: &str) {
    let image = azure.ready["settings"]["CONTAINER_IMAGE"].as_str();
    let identity = azure.ready["settings"]["GATEWAY_IDENTITY_ID"]
        .as_str()
        .unwrap();
    let body = json!({
        "location": "westeurope",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}},
        "properties": {
            "osType": "Linux",
            "restartPolicy": restart,
            "containers": [{"name": "probe", "properties": {
                "image": image.unwrap_or("probe"),
                "command": ["sh", "-c", script],
                "environmentVariables": [{"name": "SECRET", "secureValue": "sesame"}],
                "ports": [{"port": 443, "protocol": "UDP"}],
                "resources": {"requests": {"cpu": 1, "memoryInGB": 1.5}},
            }}],
            "ipAddress": {"type": "Public", "ports": [{"port": 443, "protocol": "UDP"}]},
        },
    });
    let created = call(azure, "PUT", "", Some(&body));
    assert_eq!(created.status, 201, "{}", created.text());
}

fn call(azure: &Azure, method: &str, part: &str, body: Option<&Value>) -> Answer {
    let plain = azure.ready["plain"].as_str().unwrap();
    let now = jiff::Timestamp::now();
    let token = popup_stand_ins::token::mint("https://management.azure.com", "c", "p", now);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let target = format!("{GROUP}{part}?api-version=2023-05-01");
    azure.call(plain, method, &target, &headers, body).unwrap()
}

fn log(azure: &Azure) -> String {
    let log = call(azure, "GET", "/containers/probe/logs", None).json();
    log["content"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_container_has_an_address_a_secret_and_a_token_and_no_tunnel() {
    let log = log_of(
        Runner::Process,
        Capabilities::Default,
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
    let log = log_of(
        Runner::Process,
        Capabilities::None,
        "id -u; grep CapEff /proc/self/status",
    );
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
}

#[test]
fn a_container_of_the_image_may_do_what_docker_s_defaults_allow() {
    let log = log_of(
        Runner::Podman,
        Capabilities::Default,
        "id -u; grep -E 'CapEff|Seccomp:' /proc/self/status; echo \"secret $SECRET $IDENTITY_ENDPOINT\"
         ip -4 -oneline address show dev eth0; cat /etc/resolv.conf
         ls /dev/net/tun 2>&1; ip link add x type dummy 2>&1
         try() { \"$@\" >/dev/null 2>&1 && echo \"can $1\" || echo \"cannot $1\"; }
         try unshare -U true; try mount -t tmpfs tmpfs /mnt; try iptables -L
         forward() { echo 1 >/proc/sys/net/ipv4/ip_forward; }; try forward
         url='http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://storage.azure.com'
         wget -q -O - --header 'Metadata: true' \"$url\"",
    );
    for expected in [
        "0\n",
        "CapEff:\t00000000a80425fb",
        "Seccomp:\t2",
        "secret sesame \n",
        "203.0.113.100/24",
        "nameserver 192.0.2.1",
        "Operation not permitted",
        "cannot unshare",
        "cannot mount",
        "cannot iptables",
        "cannot forward",
        "\"access_token\":\"",
    ] {
        assert!(log.contains(expected), "{expected} is not in\n{log}");
    }
    assert!(!log.contains("/dev/net/tun\n"), "{log}");
}

#[test]
fn a_container_of_the_image_without_capabilities_has_none_and_gets_none() {
    let log = log_of(
        Runner::Podman,
        Capabilities::None,
        "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status",
    );
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
    assert!(log.contains("NoNewPrivs:\t1"), "{log}");
}

#[test]
fn a_container_of_the_image_is_started_again_when_it_fails_and_only_then() {
    let azure = Azure::start(Runner::Podman, Capabilities::Default);
    // Each start is a new container: nothing but the log stays.
    create(
        &azure,
        "OnFailure",
        "echo a start of \"$(ls /mnt)\"; touch /mnt/file; exit 3",
    );
    let view = || {
        let shown = call(&azure, "GET", "", None).json();
        shown["properties"]["containers"][0]["properties"]["instanceView"].clone()
    };
    let view = eventually(PATIENCE, "it is started a third time", || {
        let view = view();
        (view["restartCount"].as_u64()? >= 2).then_some(view)
    });
    assert_eq!(view["previousState"]["exitCode"], 3, "{view:#}");
    let text = log(&azure);
    assert!(text.matches("a start of \n").count() >= 2, "{text}");
    assert_eq!(call(&azure, "DELETE", "", None).status, 202);
    eventually(PATIENCE, "it is gone", || {
        azure.groups().is_empty().then_some(())
    });
    create(&azure, "OnFailure", "exit 0");
    eventually(PATIENCE, "it is over", || {
        let shown = call(&azure, "GET", "", None).json();
        (shown["properties"]["instanceView"]["state"] == "Succeeded").then_some(())
    });
}
