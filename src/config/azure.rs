//! What the Azure backend needs.

use std::fmt;
use std::net::SocketAddr;

use azure_core::credentials::Secret;
use azure_core::http::Url;
use popup_store::azure::{AccountUrl, ConnectionString};

use super::group::{self, GroupSettings};
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
        let arm_audience = arm_audience(reader);
        let credential = credential(reader);
        let storage = storage(reader);
        let group = group::read(reader, storage.as_ref());
        let passed_on: Vec<_> = passed_on(reader)
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "PATH" | "WG_UAPI_DIR"))
            .collect();
        let kernel = passed_on.contains(&("GATEWAY_MODE", "kernel".to_owned()));
        if kernel && !group.confidential {
            let cure = "kernel needs CONTAINER_SKU=Confidential: no other container may do that";
            reader.problem("GATEWAY_MODE", cure);
        }
        let ca_pem = ca_pem(reader);
        let dns_server = reader.parse("VPN_DNS_SERVER");
        Some(Self {
            subscription: subscription?,
            resource_group: resource_group?,
            arm: arm?,
            arm_audience,
            credential,
            storage: storage?,
            group,
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

fn arm_audience(reader: &mut Reader<'_>) -> String {
    let text = reader
        .text("ARM_AUDIENCE")
        .unwrap_or_else(|| PUBLIC_CLOUD.to_owned());
    let valid = |url: Url| url.scheme() == "https" && url.has_host() && url.query().is_none();
    if !Url::parse(&text).is_ok_and(valid) {
        let cure = "must be what tokens for Azure are asked for, as https://management.azure.com/";
        reader.problem("ARM_AUDIENCE", cure);
    }
    text
}

fn credential(reader: &mut Reader<'_>) -> CredentialSettings {
    const SECRET: &str = "AZURE_CLIENT_SECRET";
    let client_id = reader.text("AZURE_CLIENT_ID");
    if client_id.as_deref().is_some_and(|id| !is_guid(id)) {
        reader.problem("AZURE_CLIENT_ID", "must be the client id of an identity");
    }
    if reader.text("IDENTITY_ENDPOINT").is_some() {
        return CredentialSettings::ManagedIdentity(client_id);
    }
    let tenant_id = reader.text("AZURE_TENANT_ID");
    let tenant = |id: &str| is_guid(id) || is_host(id);
    if tenant_id.as_deref().is_some_and(|id| !tenant(id)) {
        reader.problem("AZURE_TENANT_ID", "must be a directory's id or domain");
    }
    let secret = reader.text(SECRET).map(Secret::new);
    match (tenant_id, client_id, secret) {
        (Some(tenant_id), Some(client_id), Some(secret)) => CredentialSettings::ClientSecret {
            tenant_id,
            client_id,
            secret,
        },
        (_, _, Some(_)) => {
            let cure = "needs AZURE_TENANT_ID and AZURE_CLIENT_ID beside it";
            reader.problem(SECRET, cure);
            CredentialSettings::DeveloperTools
        }
        (_, _, None) => CredentialSettings::DeveloperTools,
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

fn ca_pem(reader: &mut Reader<'_>) -> Option<String> {
    let path = reader.path("TLS_CA_FILE")?;
    std::fs::read_to_string(path)
        .map_err(|error| reader.problem("TLS_CA_FILE", error))
        .ok()
}

pub(super) fn matching(
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

pub(super) fn is_guid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// What a resource group may be called, in letters that need no escape in a URL.
pub(super) fn is_plain(text: &str) -> bool {
    (1..=90).contains(&text.len())
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.()".contains(&b))
}

pub(super) fn is_host(text: &str) -> bool {
    text.parse::<crate::vpn::Host>().is_ok()
}

#[cfg(test)]
mod tests;
