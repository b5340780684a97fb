//! Container groups in JSON. Of what ARM answers, only what is used is read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use azure_core::credentials::Secret;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The body of a PUT.
#[derive(Debug, Clone, Serialize)]
pub struct GroupRequest {
    /// The region.
    pub location: String,
    /// What the group is recognised by.
    pub tags: BTreeMap<&'static str, String>,
    /// Who it is to Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityRequest>,
    /// The rest.
    pub properties: GroupPropertiesRequest,
}

/// A user-assigned identity.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRequest {
    /// `UserAssigned`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// By resource id.
    pub user_assigned_identities: BTreeMap<String, Empty>,
}

/// `{}`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Empty {}

/// What runs, and how it is reached.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPropertiesRequest {
    /// `Standard` or `Confidential`.
    pub sku: &'static str,
    /// `Linux`.
    pub os_type: &'static str,
    /// `OnFailure`: exit code 0 means "do not start me again".
    pub restart_policy: &'static str,
    /// One.
    pub containers: Vec<ContainerRequest>,
    /// The public side.
    pub ip_address: IpAddressRequest,
    /// Private registries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_registry_credentials: Vec<RegistryRequest>,
    /// Where logs go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<DiagnosticsRequest>,
    /// File shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeRequest>,
    /// Wanted with `Confidential`; the service fills in a policy that allows everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidential_compute_properties: Option<Empty>,
}

/// A container.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerRequest {
    /// Its name.
    pub name: &'static str,
    /// The rest.
    pub properties: ContainerPropertiesRequest,
}

/// What a container is made of.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPropertiesRequest {
    /// The image.
    pub image: String,
    /// The same as in the group's address: a port that is not in both is refused.
    pub ports: Vec<Port>,
    /// Variables.
    pub environment_variables: Vec<Variable>,
    /// Its size.
    pub resources: Resources,
    /// Where volumes are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<MountRequest>,
    /// Privileges, which only `Confidential` gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContextRequest>,
}

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Port {
    /// `UDP`.
    pub protocol: &'static str,
    /// The number, inside and outside.
    pub port: u16,
}

/// A variable, whose value can be read back or not.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// For everybody who may read the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// For the container only.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "reveal_optional"
    )]
    pub secure_value: Option<Secret>,
}

/// A size.
#[derive(Debug, Clone, Serialize)]
pub struct Resources {
    /// What is reserved and paid for.
    pub requests: ResourceRequests,
}

/// What is reserved and paid for.
#[derive(Debug, Clone, Serialize)]
pub struct ResourceRequests {
    /// Cores.
    pub cpu: f64,
    /// GB.
    #[serde(rename = "memoryInGB")]
    pub memory_in_gb: f64,
}

/// Where a volume is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountRequest {
    /// Which.
    pub name: &'static str,
    /// Where.
    pub mount_path: &'static str,
}

/// Privileges.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContextRequest {
    /// All of them.
    pub privileged: bool,
    /// Goes with it.
    pub allow_privilege_escalation: bool,
}

/// The public side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpAddressRequest {
    /// `Public`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// All that is open.
    pub ports: Vec<Port>,
    /// The first part of the name.
    pub dns_name_label: String,
    /// `ResourceGroupReuse`: the same name at every start, and nobody else's.
    pub auto_generated_domain_name_label_scope: &'static str,
}

/// A registry that is opened by identity.
#[derive(Debug, Clone, Serialize)]
pub struct RegistryRequest {
    /// Its name.
    pub server: String,
    /// Whose role it is.
    pub identity: String,
}

/// Where logs go.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosticsRequest {
    /// A workspace.
    pub log_analytics: LogAnalyticsRequest,
}

/// A workspace.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogAnalyticsRequest {
    /// Which.
    pub workspace_id: String,
    /// Its key.
    #[serde(serialize_with = "reveal")]
    pub workspace_key: Secret,
}

/// A volume.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRequest {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub azure_file: AzureFileRequest,
}

/// A file share.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureFileRequest {
    /// Which.
    pub share_name: String,
    /// Whose.
    pub storage_account_name: String,
    /// Its key.
    #[serde(serialize_with = "reveal")]
    pub storage_account_key: Secret,
}

fn reveal<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.secret())
}

fn reveal_optional<S: Serializer>(
    secret: &Option<Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::secret).serialize(serializer)
}

/// A group as ARM shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct ContainerGroup {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What it is recognised by.
    #[serde(default, deserialize_with = "or_default")]
    pub tags: BTreeMap<String, String>,
    /// The rest.
    pub properties: GroupProperties,
}

/// A group's state.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupProperties {
    /// Of these, only `Succeeded` and `Failed` may be relied on.
    #[serde(deserialize_with = "or_default")]
    pub provisioning_state: String,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// The public side.
    pub ip_address: Option<IpAddress>,
    /// What goes on.
    #[serde(deserialize_with = "or_default")]
    pub instance_view: GroupView,
}

/// What goes on in a group.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GroupView {
    /// `Pending`, `Running`, `Stopped`, `Succeeded`, `Failed`.
    #[serde(deserialize_with = "or_default")]
    pub state: String,
    /// What happened to the group.
    #[serde(deserialize_with = "or_default")]
    pub events: Vec<Event>,
}

/// A container as ARM shows it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The rest.
    #[serde(deserialize_with = "or_default")]
    pub properties: ContainerProperties,
}

/// A container's state.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerProperties {
    /// What goes on; absent before anything does.
    pub instance_view: Option<ContainerView>,
}

/// What goes on in a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    /// How often it was started again.
    #[serde(deserialize_with = "or_default")]
    pub restart_count: u32,
    /// Now.
    #[serde(deserialize_with = "or_default")]
    pub current_state: ContainerState,
    /// What happened to it.
    #[serde(deserialize_with = "or_default")]
    pub events: Vec<Event>,
}

/// A container's state.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// `Waiting`, `Running`, `Terminated`.
    #[serde(deserialize_with = "or_default")]
    pub state: String,
    /// When that began.
    pub start_time: Option<Timestamp>,
    /// How it ended.
    pub exit_code: Option<i64>,
    /// More, such as `CrashLoopBackOff`.
    #[serde(deserialize_with = "or_default")]
    pub detail_status: String,
}

/// Something that happened.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// `Pulling`, `Pulled`, `Started`, `Failed`, `BackOff` and others.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// For a person.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// How often.
    #[serde(deserialize_with = "or_default")]
    pub count: u32,
    /// When last.
    pub last_timestamp: Option<Timestamp>,
}

impl Event {
    /// Whether something went wrong.
    pub fn is_warning(&self) -> bool {
        self.kind == "Warning" || matches!(self.name.as_str(), "Failed" | "BackOff" | "FailedMount")
    }
}

/// The public side of a group.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IpAddress {
    /// Fresh at every start.
    pub ip: Option<IpAddr>,
    /// The same at every start. Only ever read, never computed.
    pub fqdn: Option<String>,
}

/// A page of groups.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupPage {
    pub(super) value: Vec<ContainerGroup>,
    pub(super) next_link: Option<String>,
}

/// What a container has written.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Logs {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) content: String,
}

/// ARM writes `null` for what there is none of.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_there_is_none_of_may_be_null() {
        let event = json!({
            "name": null, "message": null, "type": null, "count": null, "lastTimestamp": null,
        });
        let state = json!({
            "state": null, "startTime": null, "exitCode": null, "detailStatus": null,
        });
        let view = json!({ "restartCount": null, "currentState": state, "events": [event] });
        let containers = json!([
            { "name": null, "properties": { "instanceView": view } },
            { "name": null, "properties": null },
        ]);
        let group = json!({
            "name": null,
            "tags": null,
            "properties": {
                "provisioningState": null,
                "containers": containers,
                "ipAddress": { "ip": null, "fqdn": null },
                "instanceView": { "state": null, "events": null },
            },
        });
        let group: ContainerGroup = serde_json::from_value(group).unwrap();
        assert_eq!(group.properties.containers.len(), 2);
        assert_eq!(group.properties.provisioning_state, "");
    }
}
