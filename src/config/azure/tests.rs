use crate::config::{BackendSettings, Settings, SettingsError};

use super::*;

const IDENTITY: &str = "/subscriptions/x/resourceGroups/g/providers/\
                        Microsoft.ManagedIdentity/userAssignedIdentities/gateway";
const GUID: &str = "00000000-0000-0000-0000-000000000001";

fn read(changes: &[(&str, &str)]) -> Result<(Settings, AzureSettings), SettingsError> {
    let base = [
        ("SUBSCRIPTION_ID", GUID),
        ("RESOURCE_GROUP", "popup"),
        ("REGIONS", "northeurope,eastus"),
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
    })?;
    match settings.backend.clone() {
        BackendSettings::Azure(azure) => Ok((settings, *azure)),
        BackendSettings::Local(_) => panic!("local"),
    }
}

fn problem(changes: &[(&str, &str)]) -> String {
    read(changes).unwrap_err().to_string()
}

#[test]
fn the_least_that_is_needed_is_the_public_cloud_on_port_443() {
    let (settings, azure) = read(&[]).unwrap();
    assert_eq!(settings.vpn.ports, [443]);
    assert_eq!(azure.arm.as_str(), PUBLIC_CLOUD);
    assert!(matches!(
        azure.credential,
        CredentialSettings::DeveloperTools
    ));
    assert_eq!((azure.group.cpu, azure.group.memory_gb), (1.0, 1.5));
    assert!(!azure.group.confidential);
}

#[test]
fn a_reserved_port_is_told_with_the_reason() {
    let text = problem(&[("VPN_PORTS", "443,51820")]);
    assert!(text.contains("reserves port 51820 (49152-65535)"), "{text}");
    assert!(problem(&[("VPN_PORT", "22")]).contains("reserves port 22;"));
    assert!(problem(&[("VPN_PORTS", "1,2,3,4,5,6")]).contains("5 ports"));
    assert_eq!(
        read(&[("VPN_PORTS", "443, 500 443")]).unwrap().0.vpn.ports,
        [443, 500]
    );
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let empty = [
        "RESOURCE_GROUP",
        "REGIONS",
        "STORAGE_ACCOUNT_URL",
        "GATEWAY_IDENTITY_ID",
    ];
    let changes: Vec<(&str, &str)> = empty.iter().map(|name| (*name, "")).collect();
    let text = problem(&changes);
    for name in ["RESOURCE_GROUP", "REGIONS", "STORAGE_ACCOUNT_URL"] {
        assert!(
            text.contains(&format!("{name}: ")),
            "{name} is missing in {text}"
        );
    }
    let text = problem(&[
        ("SUBSCRIPTION_ID", "x"),
        ("ARM_ENDPOINT", "http://127.0.0.1/"),
        ("CPU", "0"),
        ("MEMORY_GB", "much"),
        ("CONTAINER_IMAGE", "a b"),
        ("CONTAINER_SKU", "Large"),
        ("LOG_ANALYTICS_WORKSPACE_ID", "w"),
        ("AZURE_FILES_SHARE", "s"),
        ("TLS_CA_FILE", "/does/not/exist"),
        ("STORAGE_API_VERSION", "new"),
        ("GATEWAY_IDENTITY_ID", ""),
    ]);
    for name in [
        "SUBSCRIPTION_ID",
        "ARM_ENDPOINT",
        "CPU",
        "MEMORY_GB",
        "CONTAINER_IMAGE",
        "CONTAINER_SKU",
        "LOG_ANALYTICS_WORKSPACE_KEY",
        "AZURE_FILES_KEY",
        "AZURE_FILES_ACCOUNT",
        "TLS_CA_FILE",
        "STORAGE_API_VERSION",
        "GATEWAY_IDENTITY_ID",
    ] {
        assert!(
            text.contains(&format!("{name}: ")),
            "{name} is missing in {text}"
        );
    }
}

#[test]
fn a_connection_string_needs_no_identity() {
    let key = "AccountName=popup;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";
    let changes = [
        ("STORAGE_ACCOUNT_URL", ""),
        ("GATEWAY_IDENTITY_ID", ""),
        ("AZURE_STORAGE_CONNECTION_STRING", key),
    ];
    let (settings, azure) = read(&changes).unwrap();
    assert!(matches!(azure.storage.access, StorageAccess::Key(_)));
    assert!(!format!("{settings:?}").contains("c2VjcmV0"));
    assert!(problem(&[("AZURE_STORAGE_CONNECTION_STRING", key)]).contains("either"));
}

#[test]
fn the_credential_is_chosen_by_what_is_there() {
    let managed = [("IDENTITY_ENDPOINT", "http://x"), ("AZURE_CLIENT_ID", GUID)];
    let (_, azure) = read(&managed).unwrap();
    assert!(
        matches!(azure.credential, CredentialSettings::ManagedIdentity(Some(id)) if id == GUID)
    );
    let principal = [
        ("AZURE_TENANT_ID", "example.org"),
        ("AZURE_CLIENT_ID", GUID),
        ("AZURE_CLIENT_SECRET", "hunter2"),
    ];
    let (_, azure) = read(&principal).unwrap();
    assert!(matches!(
        azure.credential,
        CredentialSettings::ClientSecret { .. }
    ));
    assert!(!format!("{azure:?}").contains("hunter2"));
}

/// Each of these alone is told, by the name of what is to be set.
#[test]
fn what_azure_would_refuse_later_is_told_now() {
    let files = |changed: (&'static str, &'static str)| {
        let all = [
            changed,
            ("REGIONS", "northeurope"),
            ("AZURE_FILES_ACCOUNT", "files"),
            ("AZURE_FILES_SHARE", "wireguard"),
            ("AZURE_FILES_KEY", "c2VjcmV0"),
        ];
        all.to_vec()
    };
    assert!(read(&files(("CPU", "0.5"))).is_ok());
    let workspace = |changed: (&'static str, &'static str)| {
        let all = [
            changed,
            ("LOG_ANALYTICS_WORKSPACE_ID", GUID),
            ("LOG_ANALYTICS_WORKSPACE_KEY", "c2VjcmV0"),
        ];
        all.to_vec()
    };
    assert!(read(&workspace(("CPU", "31"))).is_ok());
    let mut hosted = vec![
        ("IDENTITY_ENDPOINT", ""),
        ("FUNCTIONS_WORKER_RUNTIME", "custom"),
    ];
    hosted.push(("LEGION_SERVICE_HOST", "x"));
    let cases = [
        vec![("CPU", "1.25")],
        vec![("CPU", "32")],
        vec![("CPU", "NaN")],
        vec![("MEMORY_GB", "1.55")],
        vec![("MEMORY_GB", "241")],
        vec![("CONTAINER_IMAGE", "ghcr.io/Owner/name:tag")],
        vec![("REGIONS", "north-europe")],
        vec![("ARM_AUDIENCE", "management")],
        vec![("AZURE_CLIENT_ID", "me")],
        vec![("AZURE_TENANT_ID", "a b")],
        vec![("AZURE_CLIENT_SECRET", "hunter2")],
        vec![("GATEWAY_IDENTITY_ID", "/subscriptions/x/gateway")],
        vec![("GATEWAY_MODE", "kernel")],
        vec![("GATEWAY_MODE", "fast")],
        vec![("GATEWAY_THREADS", "17")],
        vec![("RAW_PROBE_TARGET", "https://x:443")],
        files(("AZURE_FILES_ACCOUNT", "My.Files")),
        files(("AZURE_FILES_SHARE", "a--b")),
        files(("AZURE_FILES_KEY", "not base64")),
        workspace(("LOG_ANALYTICS_WORKSPACE_ID", "logs")),
        workspace(("LOG_ANALYTICS_WORKSPACE_KEY", "?")),
        hosted,
    ];
    for changes in cases {
        let text = problem(&changes);
        let name = changes[0].0;
        assert!(
            text.starts_with(&format!("{name}: ")),
            "{changes:?}: {text}"
        );
        assert!(!text.contains("; "), "{changes:?}: {text}");
    }
    let mut shared = files(("CPU", "1"));
    shared[1] = ("REGIONS", "northeurope,eastus");
    assert!(problem(&shared).contains("AZURE_FILES_SHARE: one region"));
}

#[test]
fn a_region_that_is_named_twice_is_one() {
    let (settings, _) = read(&[("REGIONS", "eastus, northeurope eastus")]).unwrap();
    let regions: Vec<&str> = settings.vpn.regions.iter().map(|r| r.as_str()).collect();
    assert_eq!(regions, ["eastus", "northeurope"]);
}
