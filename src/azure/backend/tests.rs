//! The backend against an ARM that misbehaves.

mod fake_arm;

use std::sync::Arc;

use axum::http::Method;
use popup_model::TunnelNetworks;
use popup_model::document::Extra;
use popup_store::azure::http_client;
use serde_json::{Value, json};

use super::*;
use crate::config::{BackendSettings, Settings};
use fake_arm::{Anybody, FakeArm, Fault};

pub(in crate::azure) const GUID: &str = "00000000-0000-0000-0000-000000000001";
const IDENTITY: &str = "/subscriptions/x/resourceGroups/g/providers/\
                        Microsoft.ManagedIdentity/userAssignedIdentities/gateway";
const NAME: &str = "wireguard-vpn-northeurope";

struct World {
    arm: FakeArm,
    backend: AzureBackend,
    lease: Lease,
    config: ServerConfig,
}

pub(in crate::azure) fn settings(changes: &[(&str, &str)]) -> AzureSettings {
    let base = [
        ("SUBSCRIPTION_ID", GUID),
        ("RESOURCE_GROUP", "popup"),
        ("REGIONS", "northeurope"),
        (
            "STORAGE_ACCOUNT_URL",
            "https://popup.blob.core.windows.net/",
        ),
        ("GATEWAY_IDENTITY_ID", IDENTITY),
        ("GATEWAY_IDENTITY_CLIENT_ID", GUID),
    ];
    let settings = Settings::read(&|name| {
        let mut all = changes.iter().chain(&base);
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    });
    match settings.unwrap().backend {
        BackendSettings::Azure(azure) => *azure,
        BackendSettings::Local(_) => panic!("local"),
    }
}

fn backend(arm: &FakeArm, settings: AzureSettings) -> AzureBackend {
    let http = http_client(Some(&arm.ca_pem)).unwrap();
    let client = ArmClient::new(
        arm.url.parse().unwrap(),
        &settings.arm_audience,
        Arc::new(Anybody),
        &http,
        settings.subscription.clone(),
        settings.resource_group.clone(),
    );
    let backend = AzureBackend::new(client, settings);
    AzureBackend {
        backoff: Duration::from_millis(1),
        ..backend
    }
}

fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

fn region() -> Region {
    "northeurope".parse().unwrap()
}

fn lease() -> Lease {
    Lease {
        id: LeaseId::generate(),
        started_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        expires_at: "2026-01-02T11:04:05Z".parse().unwrap(),
        idle_timeout_s: None,
        extra: Extra::new(),
    }
}

impl World {
    async fn new() -> Self {
        let arm = FakeArm::start().await;
        let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse().unwrap()).unwrap();
        let config = ServerConfig::new(networks, vec![443, 500]);
        Self {
            backend: backend(&arm, settings(&[])),
            arm,
            lease: lease(),
            config,
        }
    }

    async fn create(&self) -> Result<(), BackendError> {
        self.backend
            .create(&region(), &self.lease, &self.config, in_time())
            .await
    }

    async fn group(&self) -> Group {
        self.backend.observe(&region()).await.unwrap().group
    }

    async fn phase(&self) -> Phase {
        match self.group().await {
            Group::Present { lease, phase } => {
                assert_eq!(lease, Some(self.lease.id.clone()));
                phase
            }
            Group::Absent => panic!("there is no group"),
        }
    }
}

fn running() -> Value {
    json!({"restartCount": 0, "currentState": {"state": "Running"}, "events": []})
}

#[tokio::test]
async fn a_group_is_made_once_and_tells_where_it_is_when_it_runs() {
    let world = World::new().await;
    assert_eq!(world.group().await, Group::Absent);
    world.create().await.unwrap();
    world.create().await.unwrap();
    assert_eq!(world.arm.count(&Method::PUT), 1);
    assert_eq!(world.phase().await, Phase::Starting);
    world.arm.set_state(NAME, "Running", running());
    let sighting = world.backend.observe(&region()).await.unwrap();
    let host = format!("{NAME}.hash.azurecontainer.io").parse().unwrap();
    assert_eq!(
        (sighting.host, sighting.public_ip),
        (Some(host), "203.0.113.9".parse().ok())
    );
    assert_eq!(world.phase().await, Phase::Running);
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_makes_one_group() {
    let world = World::new().await;
    world.arm.fail(Method::PUT, Fault::LoseAnswer);
    world.create().await.unwrap();
    assert_eq!(world.arm.count(&Method::PUT), 1);
    assert_eq!(world.phase().await, Phase::Starting);
}

#[tokio::test]
async fn what_passes_is_waited_out() {
    let world = World::new().await;
    for fault in [
        Fault::Drop,
        Fault::Refuse(500, "InternalServerError", None),
        Fault::Refuse(503, "ServiceUnavailable", None),
        Fault::Refuse(409, "ContainerGroupTransitioning", None),
        Fault::Refuse(429, "TooManyRequests", Some(0)),
    ] {
        world.arm.fail(Method::PUT, fault);
    }
    world.create().await.unwrap();
    assert_eq!(world.arm.count(&Method::PUT), 6);
    world.arm.fail(Method::GET, Fault::Drop);
    world
        .arm
        .fail(Method::GET, Fault::Refuse(502, "BadGateway", None));
    assert_eq!(world.phase().await, Phase::Starting);
    world.arm.fail(Method::DELETE, Fault::Drop);
    world.backend.delete(&region(), in_time()).await.unwrap();
    assert_eq!(world.group().await, Group::Absent);
}

#[tokio::test]
async fn a_long_throttling_is_told_and_not_waited_out() {
    let world = World::new().await;
    world.arm.fail(
        Method::PUT,
        Fault::Refuse(429, "TooManyRequests", Some(240)),
    );
    let error = world.create().await.unwrap_err();
    assert!(!error.permanent);
    assert_eq!(error.retry_after, Some(Duration::from_secs(240)));
    assert_eq!(world.arm.count(&Method::PUT), 1);
}

#[tokio::test]
async fn what_only_a_person_can_cure_is_told_at_once() {
    let world = World::new().await;
    world.arm.fail(
        Method::PUT,
        Fault::Refuse(400, "ContainerGroupQuotaReached", None),
    );
    let error = world.create().await.unwrap_err();
    assert!(
        error.permanent
            && error
                .source
                .to_string()
                .contains("ContainerGroupQuotaReached")
    );
    assert_eq!(world.arm.count(&Method::PUT), 1);
}

#[tokio::test]
async fn an_operation_that_fails_without_leaving_a_group_is_told() {
    let world = World::new().await;
    world
        .arm
        .fail(Method::PUT, Fault::FailLater("ContainerGroupQuotaReached"));
    world.create().await.unwrap();
    let Phase::Failed(reason) = world.phase().await else {
        panic!("it has failed")
    };
    assert!(reason.contains("ContainerGroupQuotaReached"), "{reason}");
    world.backend.delete(&region(), in_time()).await.unwrap();
    assert_eq!(world.group().await, Group::Absent);
}

#[tokio::test]
async fn a_gateway_that_ended_is_told_with_the_end_of_its_log() {
    let world = World::new().await;
    world.create().await.unwrap();
    world.arm.state().log = "one\ntwo\n\nthe lease is over\n".to_owned();
    let ended = json!({"restartCount": 0, "currentState": {"state": "Terminated", "exitCode": 0}});
    world.arm.set_state(NAME, "Succeeded", ended);
    let Phase::Ended(Some(reason)) = world.phase().await else {
        panic!("it has ended")
    };
    assert!(
        reason.ends_with("one | two | the lease is over"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_group_on_its_way_out_is_neither_believed_nor_deleted_twice() {
    let world = World::new().await;
    world.create().await.unwrap();
    world.arm.set_state(NAME, "Running", running());
    {
        let mut arm = world.arm.state();
        arm.slow_delete = true;
        arm.operation = vec![json!({"status": "Pending"}), json!({"status": "Succeeded"})];
    }
    world.backend.delete(&region(), in_time()).await.unwrap();
    assert_eq!(
        world.phase().await,
        Phase::Stopping,
        "though ARM still shows it running"
    );
    world.group().await;
    assert_eq!(world.group().await, Group::Absent);
}

#[tokio::test]
async fn a_group_that_was_stopped_by_hand_is_nobodys() {
    let world = World::new().await;
    world.create().await.unwrap();
    world.arm.set_state(NAME, "Stopped", running());
    assert!(matches!(
        world.group().await,
        Group::Present { lease: None, .. }
    ));
}

#[tokio::test]
async fn a_group_that_runs_keeps_its_image_when_the_settings_change() {
    let world = World::new().await;
    world.create().await.unwrap();
    world.arm.set_state(NAME, "Running", running());
    let newer = backend(
        &world.arm,
        settings(&[("CONTAINER_IMAGE", "example.org/newer:2"), ("CPU", "2")]),
    );
    let seen = newer.observe(&region()).await.unwrap().group;
    let lease = Some(world.lease.id.clone());
    let phase = Phase::Running;
    assert_eq!(seen, Group::Present { lease, phase });
}

#[tokio::test]
async fn an_operation_that_cannot_be_followed_leaves_it_to_the_group() {
    for refusal in [403, 404, 500] {
        let world = World::new().await;
        let hide = || world.arm.state().hidden_operation = Some(refusal);
        hide();
        world.create().await.unwrap();
        let made = world.arm.state().groups.remove(NAME).unwrap();
        assert_eq!(world.phase().await, Phase::Starting, "ARM lags: {refusal}");
        world.arm.state().groups.insert(NAME.to_owned(), made);
        world.arm.set_state(NAME, "Running", running());
        assert_eq!(world.phase().await, Phase::Running, "{refusal}");
        world.arm.state().slow_delete = true;
        world.backend.delete(&region(), in_time()).await.unwrap();
        assert_eq!(world.phase().await, Phase::Stopping, "{refusal}");
        world.arm.state().groups.clear();
        assert_eq!(world.group().await, Group::Absent, "{refusal}");
    }
}

#[tokio::test]
async fn what_an_operation_that_cannot_be_followed_explains_ends_soon() {
    let world = World::new().await;
    world.arm.state().hidden_operation = Some(404);
    world.create().await.unwrap();
    let made = world.arm.state().groups.remove(NAME).unwrap();
    world.backend.age(SHORT_MEMORY);
    assert_eq!(world.group().await, Group::Absent);
    world.arm.state().groups.insert(NAME.to_owned(), made);
    world.arm.set_state(NAME, "Running", running());
    world.arm.state().slow_delete = true;
    world.backend.delete(&region(), in_time()).await.unwrap();
    world.backend.age(SHORT_MEMORY);
    assert_eq!(
        world.phase().await,
        Phase::Running,
        "the delete came to nothing"
    );
}

#[tokio::test]
async fn nothing_is_asked_for_when_others_may_act_soon() {
    let world = World::new().await;
    let soon = Instant::now() + Duration::from_secs(20);
    let (region, lease, config) = (region(), &world.lease, &world.config);
    let created = world.backend.create(&region, lease, config, soon).await;
    assert!(!created.unwrap_err().permanent);
    assert_eq!(world.arm.count(&Method::PUT), 0);
}

#[tokio::test]
async fn the_address_is_told_only_while_the_gateway_runs() {
    let world = World::new().await;
    world.create().await.unwrap();
    world.arm.set_state(NAME, "Running", running());
    let address = async || world.backend.observe(&region()).await.unwrap().public_ip;
    assert!(address().await.is_some());
    let again = json!({"restartCount": 1, "currentState": {"state": "Waiting"}, "events": []});
    world.arm.set_state(NAME, "Pending", again);
    assert_eq!(address().await, None, "it is the last start's");
}

#[tokio::test]
async fn another_lease_keeps_its_group() {
    let mut world = World::new().await;
    world.create().await.unwrap();
    world.lease = lease();
    assert!(!world.create().await.unwrap_err().permanent);
    assert_eq!(world.arm.count(&Method::PUT), 1);
}

#[tokio::test]
async fn groups_in_forgotten_regions_are_deleted_and_those_of_others_are_not() {
    let world = World::new().await;
    world.create().await.unwrap();
    {
        let mut arm = world.arm.state();
        let ours = arm.groups[NAME].clone();
        for name in ["wireguard-vpn-eastus", "another-group"] {
            let mut group = ours.clone();
            group["name"] = name.into();
            arm.groups.insert(name.to_owned(), group);
        }
    }
    world.backend.remove_strays(&[region()]).await.unwrap();
    let mut left: Vec<String> = world.arm.state().groups.keys().cloned().collect();
    left.sort();
    assert_eq!(left, ["another-group", NAME]);
}

#[tokio::test]
async fn the_account_key_never_leaves_the_handler() {
    let arm = FakeArm::start().await;
    let key = "AccountName=popup;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";
    let changes = [
        ("STORAGE_ACCOUNT_URL", ""),
        ("GATEWAY_IDENTITY_ID", ""),
        ("AZURE_STORAGE_CONNECTION_STRING", key),
    ];
    let world = World::new().await;
    let backend = backend(&arm, settings(&changes));
    backend
        .create(&region(), &world.lease, &world.config, in_time())
        .await
        .unwrap();
    let body = arm.state().groups[NAME].clone();
    assert!(!body.to_string().contains("c2VjcmV0"));
    let variables = body["properties"]["containers"][0]["properties"]["environmentVariables"]
        .as_array()
        .unwrap()
        .clone();
    for name in [
        "STORAGE_SAS_CONTROL",
        "STORAGE_SAS_STATUS",
        "STORAGE_SAS_KEYS",
    ] {
        let variable = variables
            .iter()
            .find(|variable| variable["name"] == name)
            .unwrap();
        assert!(variable["value"].is_null());
        let sas = variable["secureValue"].as_str().unwrap();
        assert!(
            sas.contains("se=2026-01-02T11%3A09%3A05Z"),
            "it ends with the lease: {sas}"
        );
    }
}

#[tokio::test]
async fn a_gateway_that_begins_again_after_its_signatures_ended_is_nobodys() {
    let key = "AccountName=popup;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";
    let changes = [
        ("STORAGE_ACCOUNT_URL", ""),
        ("GATEWAY_IDENTITY_ID", ""),
        ("AZURE_STORAGE_CONNECTION_STRING", key),
    ];
    let mut world = World::new().await;
    world.backend = backend(&world.arm, settings(&changes));
    world.create().await.unwrap();
    let started = |at: &str| {
        let state = json!({"state": "Running", "startTime": at});
        json!({"restartCount": 0, "currentState": state, "events": []})
    };
    world
        .arm
        .set_state(NAME, "Running", started("2026-01-02T03:05:00Z"));
    assert_eq!(
        world.phase().await,
        Phase::Running,
        "an extension reaches it"
    );
    let sighting = world.backend.observe(&region()).await.unwrap();
    assert_eq!(sighting.started_at, "2026-01-02T03:05:00Z".parse().ok());
    // The lease of the group ended at 11:04:05.
    world
        .arm
        .set_state(NAME, "Running", started("2026-01-02T11:10:00Z"));
    assert!(matches!(
        world.group().await,
        Group::Present { lease: None, .. }
    ));
}

#[tokio::test]
async fn one_stray_that_cannot_be_deleted_does_not_keep_the_others() {
    let world = World::new().await;
    world.create().await.unwrap();
    {
        let mut arm = world.arm.state();
        let ours = arm.groups.remove(NAME).unwrap();
        for name in ["wireguard-vpn-eastus", "wireguard-vpn-westus"] {
            let mut group = ours.clone();
            group["name"] = name.into();
            arm.groups.insert(name.to_owned(), group);
        }
    }
    let refusal = Fault::Refuse(409, "ScopeLocked", None);
    world.arm.fail(Method::DELETE, refusal);
    let error = world.backend.remove_strays(&[region()]).await.unwrap_err();
    assert!(error.permanent && error.source.to_string().contains("lock"));
    assert_eq!(world.arm.state().groups.len(), 1);
}

#[tokio::test]
async fn nothing_is_asked_for_that_may_still_be_under_way_when_others_act() {
    let world = World::new().await;
    let (region, soon) = (region(), Instant::now() + UNDER_WAY);
    let error = world.backend.delete(&region, soon).await.unwrap_err();
    assert!(!error.permanent, "{error}");
    assert_eq!(world.arm.count(&Method::DELETE), 0);
    let create = world
        .backend
        .create(&region, &world.lease, &world.config, soon);
    assert!(!create.await.unwrap_err().permanent);
    assert_eq!(world.arm.count(&Method::PUT), 0);
}
