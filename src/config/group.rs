//! What shapes the container groups.

use azure_core::credentials::Secret;
use popup_store::azure::AccountKey;

use super::Reader;
use super::azure::{StorageAccess, StorageSettings, is_guid, is_host, is_plain, matching};

mod image;

const DEFAULT_IMAGE: &str = "ghcr.io/popup-vpn/popup-gateway:latest";
/// The most that a group may have anywhere, from "Resource availability" in the documentation of
/// Container Instances. Most regions have less, which only they tell.
const MAX_CPU: f64 = 31.0;
const MAX_MEMORY_GB: f64 = 240.0;

/// What shapes the container groups.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// The image.
    pub image: String,
    /// A private registry that the gateway's identity may pull from.
    pub registry: Option<String>,
    /// The gateway's identity.
    pub identity: Option<GatewayIdentity>,
    /// CPU cores.
    pub cpu: f64,
    /// Memory in GB.
    pub memory_gb: f64,
    /// Confidential containers, the only ones with the privileges of kernel mode.
    pub confidential: bool,
    /// Where container logs go.
    pub log_analytics: Option<LogAnalytics>,
    /// A file share for the interface's key.
    pub files: Option<AzureFiles>,
}

/// A user-assigned identity.
#[derive(Debug, Clone)]
pub struct GatewayIdentity {
    /// Its resource id.
    pub id: String,
    /// Its client id.
    pub client_id: String,
}

/// A Log Analytics workspace.
#[derive(Debug, Clone)]
pub struct LogAnalytics {
    /// Which.
    pub workspace_id: String,
    /// Container Instances takes no identity here.
    pub workspace_key: Secret,
}

/// An Azure Files share.
#[derive(Debug, Clone)]
pub struct AzureFiles {
    /// The account.
    pub account: String,
    /// Container Instances takes no identity here.
    pub key: Secret,
    /// The share.
    pub share: String,
}

pub(super) fn read(reader: &mut Reader<'_>, storage: Option<&StorageSettings>) -> GroupSettings {
    let image = reader
        .text("CONTAINER_IMAGE")
        .unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
    if !image::is_reference(&image) {
        reader.problem(
            "CONTAINER_IMAGE",
            "must be an image such as ghcr.io/owner/name:tag",
        );
    }
    let registry = reader.text("REGISTRY_SERVER");
    if registry.as_deref().is_some_and(|server| !is_host(server)) {
        reader.problem(
            "REGISTRY_SERVER",
            "must be a name such as registry.azurecr.io",
        );
    }
    let identity = identity(reader);
    let by_identity = storage.is_some_and(|s| matches!(s.access, StorageAccess::Identity(_)));
    if identity.is_none() && (by_identity || registry.is_some()) {
        let cure = "must be the resource id of the identity by which the gateway reaches its \
                    documents and a private registry";
        reader.problem("GATEWAY_IDENTITY_ID", cure);
    }
    let cpu = number(reader, "CPU", 1.0, MAX_CPU);
    let memory_gb = number(reader, "MEMORY_GB", 1.5, MAX_MEMORY_GB);
    let confidential = match reader.text("CONTAINER_SKU").as_deref() {
        None | Some("Standard") => false,
        Some("Confidential") => true,
        Some(_) => {
            reader.problem("CONTAINER_SKU", "must be Standard or Confidential");
            false
        }
    };
    GroupSettings {
        image,
        registry,
        identity,
        cpu,
        memory_gb,
        confidential,
        log_analytics: log_analytics(reader),
        files: files(reader),
    }
}

fn identity(reader: &mut Reader<'_>) -> Option<GatewayIdentity> {
    let id = reader.text("GATEWAY_IDENTITY_ID")?;
    if !is_identity(&id) {
        let cure = "must be a resource id, /subscriptions/.../resourceGroups/.../providers/\
                    Microsoft.ManagedIdentity/userAssignedIdentities/...";
        reader.problem("GATEWAY_IDENTITY_ID", cure);
    }
    let cure = "must be the client id of that identity";
    let client_id = matching(reader, "GATEWAY_IDENTITY_CLIENT_ID", is_guid, cure)?;
    Some(GatewayIdentity { id, client_id })
}

fn is_identity(id: &str) -> bool {
    let parts: Vec<&str> = id.split('/').collect();
    let word = |at: usize, word: &str| parts[at].eq_ignore_ascii_case(word);
    parts.len() == 9
        && parts[0].is_empty()
        && word(1, "subscriptions")
        && word(3, "resourceGroups")
        && word(5, "providers")
        && word(6, "Microsoft.ManagedIdentity")
        && word(7, "userAssignedIdentities")
        && [2, 4, 8].iter().all(|at| is_plain(parts[*at]))
}

fn log_analytics(reader: &mut Reader<'_>) -> Option<LogAnalytics> {
    let [id, key] = ["LOG_ANALYTICS_WORKSPACE_ID", "LOG_ANALYTICS_WORKSPACE_KEY"];
    let [workspace_id] = together(reader, &[id, key])?.try_into().ok()?;
    if !is_guid(&workspace_id) {
        reader.problem(id, "must be the workspace's id, not its name");
    }
    check_key(reader, key);
    Some(LogAnalytics {
        workspace_id,
        workspace_key: Secret::new(reader.text(key)?),
    })
}

fn files(reader: &mut Reader<'_>) -> Option<AzureFiles> {
    let key = "AZURE_FILES_KEY";
    let names = ["AZURE_FILES_ACCOUNT", "AZURE_FILES_SHARE", key];
    let [account, share] = together(reader, &names)?.try_into().ok()?;
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !(3..=24).contains(&account.len()) || !plain(&account) {
        let cure = "must be a storage account's name: 3 to 24 of a-z 0-9";
        reader.problem(names[0], cure);
    }
    let parts = share.split('-').all(|part| !part.is_empty() && plain(part));
    if !(3..=63).contains(&share.len()) || !parts {
        let cure = "must be a share's name: 3 to 63 of a-z 0-9, with single hyphens between";
        reader.problem(names[1], cure);
    }
    check_key(reader, key);
    Some(AzureFiles {
        account,
        share,
        key: Secret::new(reader.text(key)?),
    })
}

/// All of these but the last, which is a secret; or none, and a problem if some are missing.
fn together(reader: &mut Reader<'_>, names: &[&str]) -> Option<Vec<String>> {
    let values: Vec<Option<String>> = names.iter().map(|name| reader.text(name)).collect();
    if values.iter().all(Option::is_none) {
        return None;
    }
    for (name, value) in names.iter().zip(&values) {
        if value.is_none() {
            reader.problem(
                name,
                format_args!("must be set too: {} go together", names.join(", ")),
            );
        }
    }
    values.into_iter().take(names.len() - 1).collect()
}

/// With one decimal at most: Container Instances takes no finer ones (`az container create
/// --help`).
fn number(reader: &mut Reader<'_>, name: &str, default: f64, most: f64) -> f64 {
    let Some(text) = reader.text(name) else {
        return default;
    };
    match text.parse::<f64>() {
        Ok(number) if (0.1..=most).contains(&number) && !too_fine(&text) => number,
        _ => {
            reader.problem(
                name,
                format_args!("must be from 0.1 to {most}, with one decimal at most"),
            );
            default
        }
    }
}

fn too_fine(number: &str) -> bool {
    let decimals = number.split_once('.').map(|(_, decimals)| decimals);
    decimals.is_some_and(|decimals| decimals.trim_end_matches('0').len() > 1)
}

fn check_key(reader: &mut Reader<'_>, name: &str) {
    let key = reader.text(name).map(|text| text.parse::<AccountKey>());
    if key.is_none_or(|key| key.is_err()) {
        reader.problem(name, "must be the key as the portal shows it, in base64");
    }
}
