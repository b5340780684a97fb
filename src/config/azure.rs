//! What the Azure backend needs.

use std::fmt;
use std::net::SocketAddr;

use azure_core::credentials::Secret;
use azure_core::http::Url;
use popup_store::azure::{AccountUrl, ConnectionString};

use super::{Reader, list, passed_on};

/// Ports that Container Instances keeps for itself, from its FAQ.
const RESERVED_PORTS: [(u16, u16); 10] = [
    (22, 22),
    (1025, 1027),
    (3389, 3399),
    (9999, 9999),
    (19000, 19000),
    (19080, 19080),
    (19100, 19100),
    (19390, 19390),
    (20000, 30000),
    (49152, 65535),
];
/// "Ports per IP" in its quotas.
const MAX_PORTS: usize = 5;
const DEFAULT_PORT: u16 = 443;
const DEFAULT_IMAGE: &str = "ghcr.io/popup-vpn/popup-gateway:latest";
const PUBLIC_CLOUD: &str = "https://management.azure.com/";

/// What the Azure backend needs.
#[derive(Debug, Clone)]
pub struct AzureSettings {
    /// Whose bill it is.
    pub subscription: String,
    /// Where the container groups are.
    pub resource_group: String,
    /// Azure Resource Manager.
    pub arm: Url,
    /// What tokens for it are asked for.
    pub arm_audience: String,
    /// Who asks.
    pub credential: CredentialSettings,
    /// Where the documents are.
    pub storage: StorageSettings,
    /// The container groups.
    pub group: GroupSettings,
    /// Variables for the gateway, each checked and with its value.
    pub passed_on: Vec<(&'static str, String)>,
    /// Certificates that are trusted besides Mozilla's, as PEM.
    pub ca_pem: Option<String>,
    /// Who is asked where the VPN's name leads; the system's resolver when absent.
    pub dns_server: Option<SocketAddr>,
}

/// Who the handler is to Azure.
#[derive(Clone)]
pub enum CredentialSettings {
    /// The function app's identity; the user-assigned one with this client id, where given.
    ManagedIdentity(Option<String>),
    /// A service principal.
    ClientSecret {
        /// Its directory.
        tenant_id: String,
        /// Its name.
        client_id: String,
        /// Its password.
        secret: Secret,
    },
    /// Whoever is signed in with `az` or `azd` on this machine.
    DeveloperTools,
}

impl fmt::Debug for CredentialSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManagedIdentity(id) => write!(f, "ManagedIdentity({id:?})"),
            Self::ClientSecret { client_id, .. } => write!(f, "ClientSecret({client_id}, hidden)"),
            Self::DeveloperTools => f.write_str("DeveloperTools"),
        }
    }
}

/// Where the documents are, and how they are opened.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// The account.
    pub access: StorageAccess,
    /// The version of its interface; the library's own when absent.
    pub api_version: Option<String>,
}

/// How the account is opened.
#[derive(Debug, Clone)]
pub enum StorageAccess {
    /// By identity.
    Identity(AccountUrl),
    /// By the account's key.
    Key(ConnectionString),
}

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

/// The ports of the container group.
pub(super) fn ports(reader: &mut Reader<'_>) -> Vec<u16> {
    let name = match reader.text("VPN_PORTS") {
        None if reader.text("VPN_PORT").is_some() => "VPN_PORT",
        _ => "VPN_PORTS",
    };
    let Some(text) = reader.text(name) else {
        return vec![DEFAULT_PORT];
    };
    let parsed: Result<Vec<u16>, _> = list(&text).map(str::parse).collect();
    let mut ports = match parsed {
        Ok(ports) if !ports.is_empty() && !ports.contains(&0) => ports,
        _ => {
            reader.problem(name, "must be port numbers such as 443,500,4500");
            return vec![DEFAULT_PORT];
        }
    };
    let mut seen = std::collections::HashSet::new();
    ports.retain(|port| seen.insert(*port));
    if ports.len() > MAX_PORTS {
        reader.problem(name, format_args!("Azure allows {MAX_PORTS} ports at most"));
    }
    for port in &ports {
        let reserved = |(first, last): &&(u16, u16)| (first..=last).contains(&port);
        if let Some((first, last)) = RESERVED_PORTS.iter().find(reserved) {
            let range = if first == last {
                String::new()
            } else {
                format!(" ({first}-{last})")
            };
            let cure = format!(
                "Azure Container Instances reserves port {port}{range}; use 443, 500, 4500 or 1194"
            );
            reader.problem(name, cure);
        }
    }
    ports
}

impl AzureSettings {
    /// `None` after problems.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let subscription = matching(
            reader,
            "SUBSCRIPTION_ID",
            is_guid,
            "must be a subscription's id",
        );
        let resource_group = matching(
            reader,
            "RESOURCE_GROUP",
            is_plain,
            "must be the name of a resource group",
        );
        let arm = arm_endpoint(reader);
        let arm_audience = reader
            .text("ARM_AUDIENCE")
            .unwrap_or_else(|| PUBLIC_CLOUD.to_owned());
        let credential = credential(reader);
        let storage = storage(reader);
        let group = group(reader, storage.as_ref());
        let passed_on = passed_on(reader)
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "PATH" | "WG_UAPI_DIR"))
            .collect();
        let ca_pem = ca_pem(reader);
        let dns_server = reader.parse("VPN_DNS_SERVER");
        Some(Self {
            subscription: subscription?,
            resource_group: resource_group?,
            arm: arm?,
            arm_audience,
            credential,
            storage: storage?,
            group: group?,
            passed_on,
            ca_pem,
            dns_server,
        })
    }
}

fn arm_endpoint(reader: &mut Reader<'_>) -> Option<Url> {
    let text = reader
        .text("ARM_ENDPOINT")
        .unwrap_or_else(|| PUBLIC_CLOUD.to_owned());
    let url = Url::parse(&text).ok().filter(|url| {
        url.scheme() == "https" && url.has_host() && url.path() == "/" && url.query().is_none()
    });
    if url.is_none() {
        reader.problem(
            "ARM_ENDPOINT",
            "must be an address such as https://management.azure.com/",
        );
    }
    url
}

fn credential(reader: &Reader<'_>) -> CredentialSettings {
    let client_id = reader.text("AZURE_CLIENT_ID");
    if reader.text("IDENTITY_ENDPOINT").is_some() {
        return CredentialSettings::ManagedIdentity(client_id);
    }
    let secret = reader.text("AZURE_CLIENT_SECRET").map(Secret::new);
    match (reader.text("AZURE_TENANT_ID"), client_id, secret) {
        (Some(tenant_id), Some(client_id), Some(secret)) => CredentialSettings::ClientSecret {
            tenant_id,
            client_id,
            secret,
        },
        _ => CredentialSettings::DeveloperTools,
    }
}

fn storage(reader: &mut Reader<'_>) -> Option<StorageSettings> {
    const KEY: &str = "AZURE_STORAGE_CONNECTION_STRING";
    let url = reader.parse::<AccountUrl>("STORAGE_ACCOUNT_URL");
    let key = reader.parse::<ConnectionString>(KEY);
    let given = (
        reader.text("STORAGE_ACCOUNT_URL").is_some(),
        reader.text(KEY).is_some(),
    );
    let access = match (url, key) {
        _ if given == (true, true) => {
            reader.problem(
                "STORAGE_ACCOUNT_URL",
                format_args!("set either this or {KEY}"),
            );
            None
        }
        _ if given == (false, false) => {
            let cure = format_args!("must be set, to the documents' account; or {KEY}");
            reader.problem("STORAGE_ACCOUNT_URL", cure);
            None
        }
        (Some(url), _) if url.is_plain() => {
            reader.problem(
                "STORAGE_ACCOUNT_URL",
                "must be https: tokens are not sent in clear",
            );
            None
        }
        (Some(url), _) => Some(StorageAccess::Identity(url)),
        (None, Some(key)) => Some(StorageAccess::Key(key)),
        (None, None) => None,
    };
    let date =
        |text: &str| text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let api_version = match reader.text("STORAGE_API_VERSION") {
        Some(text) if !date(&text) => {
            reader.problem(
                "STORAGE_API_VERSION",
                "must be a version such as 2025-11-05",
            );
            None
        }
        version => version,
    };
    Some(StorageSettings {
        access: access?,
        api_version,
    })
}

fn group(reader: &mut Reader<'_>, storage: Option<&StorageSettings>) -> Option<GroupSettings> {
    let image = reader
        .text("CONTAINER_IMAGE")
        .unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
    if !is_image(&image) {
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
    let cpu = number(reader, "CPU", 1.0, 0.1..=32.0);
    let memory_gb = number(reader, "MEMORY_GB", 1.5, 0.1..=256.0);
    let confidential = match reader.text("CONTAINER_SKU").as_deref() {
        None | Some("Standard") => false,
        Some("Confidential") => true,
        Some(_) => {
            reader.problem("CONTAINER_SKU", "must be Standard or Confidential");
            false
        }
    };
    Some(GroupSettings {
        image,
        registry,
        identity,
        cpu,
        memory_gb,
        confidential,
        log_analytics: log_analytics(reader),
        files: files(reader),
    })
}

fn identity(reader: &mut Reader<'_>) -> Option<GatewayIdentity> {
    let id = reader.text("GATEWAY_IDENTITY_ID")?;
    let path = |b: u8| b.is_ascii_alphanumeric() || b"/._-()".contains(&b);
    if !id.starts_with("/subscriptions/") || !id.bytes().all(path) {
        reader.problem(
            "GATEWAY_IDENTITY_ID",
            "must be a resource id, /subscriptions/...",
        );
    }
    let cure = "must be the client id of that identity";
    let client_id = matching(reader, "GATEWAY_IDENTITY_CLIENT_ID", is_guid, cure)?;
    Some(GatewayIdentity { id, client_id })
}

fn log_analytics(reader: &mut Reader<'_>) -> Option<LogAnalytics> {
    let [id, key] = ["LOG_ANALYTICS_WORKSPACE_ID", "LOG_ANALYTICS_WORKSPACE_KEY"];
    let [workspace_id] = together(reader, &[id, key])?.try_into().ok()?;
    Some(LogAnalytics {
        workspace_id,
        workspace_key: Secret::new(reader.text(key)?),
    })
}

fn files(reader: &mut Reader<'_>) -> Option<AzureFiles> {
    let key = "AZURE_FILES_KEY";
    let names = ["AZURE_FILES_ACCOUNT", "AZURE_FILES_SHARE", key];
    let [account, share] = together(reader, &names)?.try_into().ok()?;
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

fn ca_pem(reader: &mut Reader<'_>) -> Option<String> {
    let path = reader.path("TLS_CA_FILE")?;
    std::fs::read_to_string(path)
        .map_err(|error| reader.problem("TLS_CA_FILE", error))
        .ok()
}

fn number(
    reader: &mut Reader<'_>,
    name: &str,
    default: f64,
    range: std::ops::RangeInclusive<f64>,
) -> f64 {
    let Some(text) = reader.text(name) else {
        return default;
    };
    match text.parse() {
        Ok(number) if range.contains(&number) => number,
        _ => {
            reader.problem(
                name,
                format_args!("must be from {} to {}", range.start(), range.end()),
            );
            default
        }
    }
}

fn matching(
    reader: &mut Reader<'_>,
    name: &str,
    valid: fn(&str) -> bool,
    cure: &str,
) -> Option<String> {
    let text = reader.text(name).filter(|text| valid(text));
    if text.is_none() {
        reader.problem(name, cure);
    }
    text
}

fn is_guid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// What a resource group may be called, in letters that need no escape in a URL.
fn is_plain(text: &str) -> bool {
    (1..=90).contains(&text.len())
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.()".contains(&b))
}

fn is_host(text: &str) -> bool {
    text.parse::<crate::vpn::Host>().is_ok()
}

fn is_image(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/.:@_-".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests;
