//! The container group of a gateway: what it is called, what it is made of, and what its tags say.

use std::collections::BTreeMap;

use azure_core::credentials::Secret;
use jiff::{SignedDuration, Timestamp};
use popup_model::{Lease, LeaseId, Region};
use popup_store::azure::SasTokens;

use super::arm::*;
use crate::config::{AzureSettings, GroupSettings, StorageAccess};

/// What all groups of this program begin with. The name never changes: with
/// `ResourceGroupReuse` it is what the DNS name is made of.
pub(super) const PREFIX: &str = "wireguard-vpn-";
/// The one container.
pub(super) const CONTAINER: &str = "gateway";

const LEASE_TAG: &str = "popup-vpn-lease";
/// In seconds of Unix time: services on the way may rewrite what looks like a date.
const SIGNATURES_TAG: &str = "popup-vpn-signatures-end";
const VOLUME: &str = "wireguard-config";
const MOUNT: &str = "/etc/wireguard";
const GRACE: SignedDuration = SignedDuration::from_mins(5);

/// The name of a region's group, which is its DNS label too.
pub(super) fn name(region: &Region) -> String {
    format!("{PREFIX}{region}")
}

/// Whether a group was made by this program.
pub(super) fn is_ours(group: &ContainerGroup) -> bool {
    group.name.starts_with(PREFIX) && group.tags.contains_key(LEASE_TAG)
}

/// The lease that a group was made for.
pub(super) fn lease_of(group: &ContainerGroup) -> Option<LeaseId> {
    group.tags.get(LEASE_TAG)?.parse().ok()
}

/// When the signatures end that the gateway of a lease is started with: after the lease, for the
/// last status and for clocks that differ.
pub(super) fn signatures_end(lease: &Lease) -> Timestamp {
    lease
        .expires_at
        .checked_add(GRACE)
        .unwrap_or(Timestamp::MAX)
}

/// When the signatures of a group end; `None` where its gateway has an identity.
pub(super) fn signatures_end_of(group: &ContainerGroup) -> Option<Timestamp> {
    let seconds = group.tags.get(SIGNATURES_TAG)?.parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// The body that creates a region's group under a lease.
pub(super) fn request(
    settings: &AzureSettings,
    region: &Region,
    lease: &Lease,
    ports: &[u16],
    sas: Option<&SasTokens>,
) -> GroupRequest {
    let group = &settings.group;
    let udp = |port: &u16| Port {
        protocol: "UDP",
        port: *port,
    };
    let ports: Vec<Port> = ports.iter().map(udp).collect();
    let properties = ContainerPropertiesRequest {
        image: group.image.clone(),
        ports: ports.clone(),
        environment_variables: variables(settings, region, lease, sas),
        resources: Resources {
            requests: ResourceRequests {
                cpu: group.cpu,
                memory_in_gb: group.memory_gb,
            },
        },
        volume_mounts: group
            .files
            .iter()
            .map(|_| MountRequest {
                name: VOLUME,
                mount_path: MOUNT,
            })
            .collect(),
        security_context: group.confidential.then_some(SecurityContextRequest {
            privileged: true,
            allow_privilege_escalation: true,
        }),
    };
    let mut tags = BTreeMap::from([(LEASE_TAG, lease.id.to_string())]);
    if sas.is_some() {
        let end = signatures_end(lease).as_second();
        tags.insert(SIGNATURES_TAG, end.to_string());
    }
    GroupRequest {
        location: region.to_string(),
        tags,
        identity: group.identity.as_ref().map(|identity| IdentityRequest {
            kind: "UserAssigned",
            user_assigned_identities: BTreeMap::from([(identity.id.clone(), Empty {})]),
        }),
        properties: GroupPropertiesRequest {
            sku: if group.confidential {
                "Confidential"
            } else {
                "Standard"
            },
            os_type: "Linux",
            restart_policy: "OnFailure",
            containers: vec![ContainerRequest {
                name: CONTAINER,
                properties,
            }],
            ip_address: IpAddressRequest {
                kind: "Public",
                ports,
                dns_name_label: name(region),
                auto_generated_domain_name_label_scope: "ResourceGroupReuse",
            },
            image_registry_credentials: registries(group),
            diagnostics: group
                .log_analytics
                .as_ref()
                .map(|workspace| DiagnosticsRequest {
                    log_analytics: LogAnalyticsRequest {
                        workspace_id: workspace.workspace_id.clone(),
                        workspace_key: workspace.workspace_key.clone(),
                    },
                }),
            volumes: volumes(group),
            confidential_compute_properties: group.confidential.then_some(Empty {}),
        },
    }
}

fn registries(group: &GroupSettings) -> Vec<RegistryRequest> {
    let registry = group.registry.iter().zip(&group.identity);
    registry
        .map(|(server, identity)| RegistryRequest {
            server: server.clone(),
            identity: identity.id.clone(),
        })
        .collect()
}

fn volumes(group: &GroupSettings) -> Vec<VolumeRequest> {
    let volume = |files: &crate::config::AzureFiles| VolumeRequest {
        name: VOLUME,
        azure_file: AzureFileRequest {
            share_name: files.share.clone(),
            storage_account_name: files.account.clone(),
            storage_account_key: files.key.clone(),
        },
    };
    group.files.iter().map(volume).collect()
}

/// What the gateway reads from its environment.
fn variables(
    settings: &AzureSettings,
    region: &Region,
    lease: &Lease,
    sas: Option<&SasTokens>,
) -> Vec<Variable> {
    let account = match &settings.storage.access {
        StorageAccess::Identity(url) => url,
        StorageAccess::Key(connection) => &connection.url,
    };
    let mut variables = vec![
        plain("REGION", region.to_string()),
        plain("LEASE_ID", lease.id.to_string()),
        plain("LEASE_EXPIRES_AT", lease.expires_at.to_string()),
        plain("STORAGE_ACCOUNT_URL", account.to_string()),
    ];
    if let Some(version) = &settings.storage.api_version {
        variables.push(plain("STORAGE_API_VERSION", version.clone()));
    }
    if let Some(sas) = sas {
        let tokens = [
            ("STORAGE_SAS_CONTROL", &sas.control),
            ("STORAGE_SAS_STATUS", &sas.status),
            ("STORAGE_SAS_KEYS", &sas.keys),
        ];
        let secret = |(name, sas): (&'static str, &popup_store::azure::Sas)| Variable {
            name,
            value: None,
            secure_value: Some(Secret::new(sas.as_str().to_owned())),
        };
        variables.extend(tokens.map(secret));
    } else if let Some(identity) = &settings.group.identity {
        variables.push(plain("AZURE_CLIENT_ID", identity.client_id.clone()));
    }
    if settings.group.files.is_some() {
        variables.push(plain("VPN_KEY_DIR", MOUNT.to_owned()));
    }
    if let Some(pem) = &settings.ca_pem {
        variables.push(plain("TLS_CA_PEM", pem.clone()));
    }
    let passed_on = settings.passed_on.iter();
    variables.extend(passed_on.map(|(name, value)| plain(name, value.clone())));
    variables
}

fn plain(name: &'static str, value: String) -> Variable {
    Variable {
        name,
        value: Some(value),
        secure_value: None,
    }
}

#[cfg(test)]
mod tests;
