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
    let managed = [("IDENTITY_ENDPOINT", "http://x"), ("AZURE_CLIENT_ID", "me")];
    let (_, azure) = read(&managed).unwrap();
    assert!(
        matches!(azure.credential, CredentialSettings::ManagedIdentity(Some(id)) if id == "me")
    );
    let principal = [
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "me"),
        ("AZURE_CLIENT_SECRET", "hunter2"),
    ];
    let (_, azure) = read(&principal).unwrap();
    assert!(matches!(
        azure.credential,
        CredentialSettings::ClientSecret { .. }
    ));
    assert!(!format!("{azure:?}").contains("hunter2"));
}
