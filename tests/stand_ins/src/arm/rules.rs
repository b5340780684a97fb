//! What the service refuses although it has the right shape.
//!
//! Codes are those that users report; where none was found the code is `InvalidRequestContent`
//! and the text says what is wrong.

use std::collections::HashSet;

use serde_json::Value;

use super::spec::{IpSpec, Port, Spec, list, ports, text};
use super::{ArmError, Identity, Settings};

/// Ports that Container Instances keeps for itself (the service's FAQ).
const RESERVED_PORTS: [(u64, u64); 11] = [
    (22, 22),
    (1025, 1027),
    (3389, 3399),
    (9999, 9999),
    (19000, 19000),
    (19080, 19080),
    (19390, 19390),
    (19100, 19100),
    (20000, 30000),
    (49152, 65534),
    (65536, u64::MAX),
];
/// Ports of one address (the service's quota page).
const MAX_PORTS: usize = 5;

/// Checks a body that has passed the schema.
pub(super) fn check(name: &str, body: &Value, settings: &Settings) -> Result<(), ArmError> {
    let spec = Spec::read(body);
    check_name(name, "container group")?;
    check_location(text(&body["location"]), settings)?;
    check_tags(&body["tags"])?;
    check_identity(body, &spec, settings)?;
    check_containers(body, &spec)?;
    check_ip(body, &spec)?;
    check_volumes(body)
}

fn invalid(message: impl Into<String>) -> ArmError {
    ArmError::bad("InvalidRequestContent", message)
}

/// 1 to 63 lower-case letters, digits and hyphens, no hyphen first or last.
fn check_name(name: &str, what: &str) -> Result<(), ArmError> {
    if is_label(name, 1) && !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(invalid(format!(
        "The {what} name '{name}' is invalid. It must be 1 to 63 characters long and contain only \
         lowercase letters, numbers, and hyphens, and not begin or end with a hyphen."
    )))
}

fn is_label(text: &str, shortest: usize) -> bool {
    (shortest..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn check_location(location: &str, settings: &Settings) -> Result<(), ArmError> {
    if location.is_empty() {
        return Err(ArmError::bad(
            "LocationRequired",
            "The location property is required for this definition.",
        ));
    }
    let plain = normalized(location);
    if settings.locations.contains(&plain) {
        return Ok(());
    }
    Err(ArmError::bad(
        "LocationNotAvailableForResourceType",
        format!(
            "The provided location '{location}' is not available for resource type \
             'Microsoft.ContainerInstance/containerGroups'. List of available regions for the \
             resource type is '{}'.",
            settings.locations.join(",")
        ),
    ))
}

/// `West Europe` and `westeurope` are the same place.
pub(super) fn normalized(location: &str) -> String {
    location.replace(' ', "").to_ascii_lowercase()
}

/// Limits of Resource Manager: 50 tags, names of 512 and values of 256 characters.
pub(super) fn check_tags(tags: &Value) -> Result<(), ArmError> {
    let Some(tags) = tags.as_object() else {
        return Ok(());
    };
    let fits = |name: &str, value: &Value| {
        name.len() <= 512
            && !name.contains(['<', '>', '%', '&', '\\', '?', '/'])
            && value.as_str().is_some_and(|value| value.len() <= 256)
    };
    if tags.len() <= 50 && tags.iter().all(|(name, value)| fits(name, value)) {
        return Ok(());
    }
    Err(ArmError::bad(
        "InvalidTagNameCharacters",
        "The tags are invalid.",
    ))
}

fn check_identity(body: &Value, spec: &Spec, settings: &Settings) -> Result<(), ArmError> {
    let kind = text(&body["identity"]["type"]).to_ascii_lowercase();
    if kind.contains("userassigned") == spec.identities.is_empty() {
        return Err(ArmError::bad(
            "InvalidIdentityType",
            "The identity type and its userAssignedIdentities do not go together.",
        ));
    }
    for identity in &spec.identities {
        if !Identity::is_resource_id(identity) {
            return Err(ArmError::bad(
                "LinkedInvalidPropertyId",
                format!(
                    "Property id '{identity}' at path 'identity.userAssignedIdentities' is invalid."
                ),
            ));
        }
        let same = |known: &Identity| known.resource_id.eq_ignore_ascii_case(identity);
        if !settings.identities.is_empty() && !settings.identities.iter().any(same) {
            return Err(ArmError::bad(
                "FailedIdentityOperation",
                format!("Identity operation for resource failed: '{identity}' was not found."),
            ));
        }
    }
    for credential in list(&body["properties"]["imageRegistryCredentials"]) {
        if let Some(identity) = credential["identity"].as_str() {
            let assigned = |own: &String| own.eq_ignore_ascii_case(identity);
            if !spec.identities.iter().any(assigned) {
                return Err(invalid(format!(
                    "The identity '{identity}' in the 'imageRegistryCredentials' is not among the \
                     identities of the container group."
                )));
            }
        } else if credential["username"].as_str().is_none() {
            return Err(invalid(
                "The 'username' in the 'imageRegistryCredentials' of container group is required.",
            ));
        }
    }
    Ok(())
}

fn check_containers(body: &Value, spec: &Spec) -> Result<(), ArmError> {
    let confidential = text(&body["properties"]["sku"]).eq_ignore_ascii_case("Confidential");
    if spec.containers.is_empty() || spec.containers.len() > 60 {
        return Err(invalid("A container group has 1 to 60 containers."));
    }
    let mut names = HashSet::new();
    for (container, value) in spec
        .containers
        .iter()
        .zip(list(&body["properties"]["containers"]))
    {
        check_name(&container.name, "container")?;
        if !names.insert(&container.name) {
            return Err(invalid(format!(
                "Two containers are named '{}'.",
                container.name
            )));
        }
        let properties = &value["properties"];
        if container.image.is_empty() {
            return Err(invalid(format!(
                "The container '{}' has no image.",
                container.name
            )));
        }
        let requests = &properties["resources"]["requests"];
        let positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
        if !positive(&requests["cpu"]) || !positive(&requests["memoryInGB"]) {
            return Err(ArmError::bad(
                "ResourceRequestsNotSpecified",
                format!(
                    "The resource requests of container '{}' are invalid.",
                    container.name
                ),
            ));
        }
        if (container.privileged
            || !list(&properties["securityContext"]["capabilities"]["add"]).is_empty())
            && !confidential
        {
            return Err(invalid(
                "Privileged containers and added capabilities need the Confidential SKU.",
            ));
        }
        check_variables(&container.name, &properties["environmentVariables"])?;
    }
    Ok(())
}

fn check_variables(container: &str, variables: &Value) -> Result<(), ArmError> {
    let mut names = HashSet::new();
    for variable in list(variables) {
        let name = text(&variable["name"]);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let values = [&variable["value"], &variable["secureValue"]];
        if name.is_empty() || !name.bytes().all(legal) || !names.insert(name) {
            return Err(ArmError::bad(
                "InvalidEnvironmentVariableName",
                format!("The environment variable '{name}' of container '{container}' is invalid."),
            ));
        }
        if values.iter().filter(|value| value.is_string()).count() != 1 {
            return Err(invalid(format!(
                "The environment variable '{name}' of container '{container}' needs either a \
                 'value' or a 'secureValue'."
            )));
        }
    }
    Ok(())
}

fn check_ip(body: &Value, spec: &Spec) -> Result<(), ArmError> {
    let containers = list(&body["properties"]["containers"]);
    let of_containers: Vec<Port> = containers
        .iter()
        .flat_map(|container| ports(&container["properties"]["ports"]))
        .collect();
    let Some(ip) = &spec.ip else {
        return Ok(());
    };
    if ip.ports.is_empty() {
        return Err(ArmError::bad(
            "MissingIpAddressPorts",
            "The ports in the 'ipAddress' of container group cannot be empty.",
        ));
    }
    if ip.ports.len() > MAX_PORTS {
        return Err(invalid(format!(
            "The 'ipAddress' has {} ports, at most {MAX_PORTS} are possible.",
            ip.ports.len()
        )));
    }
    for port in ip.ports.iter().chain(&of_containers) {
        let reserved = |(low, high): &(u64, u64)| (*low..=*high).contains(&port.number);
        if port.number == 0 || RESERVED_PORTS.iter().any(reserved) {
            return Err(ArmError::bad(
                "InvalidIpAddressPorts",
                format!("The port '{}' is reserved or out of range.", port.number),
            ));
        }
    }
    for (at, port) in ip.ports.iter().enumerate() {
        if ip.ports.iter().take(at).any(|other| other == port) {
            return Err(invalid(format!(
                "The port '{}' is there twice.",
                port.number
            )));
        }
        if !of_containers.contains(port) {
            return Err(invalid(format!(
                "Following ports '{}' in the 'ipAddress' are not used by any container.",
                port.number
            )));
        }
    }
    check_label(body, ip)
}

fn check_label(body: &Value, ip: &IpSpec) -> Result<(), ArmError> {
    let in_network = !list(&body["properties"]["subnetIds"]).is_empty();
    if in_network && ip.public {
        return Err(ArmError::bad(
            "PublicIPNotSupportedInVnet",
            "A container group in a virtual network cannot have a public address.",
        ));
    }
    match &ip.label {
        Some(_) if !ip.public => Err(invalid("A DNS name label needs a public address.")),
        Some(label) if !is_label(label, 5) => Err(ArmError::bad(
            "InvalidDnsNameLabel",
            format!(
                "The DNS name label '{label}' is invalid. It must be 5 to 63 letters, numbers and \
                 hyphens."
            ),
        )),
        _ => Ok(()),
    }
}

fn check_volumes(body: &Value) -> Result<(), ArmError> {
    let properties = &body["properties"];
    let volumes = list(&properties["volumes"]);
    let kinds = [
        "azureFile",
        "emptyDir",
        "gitRepo",
        "secret",
        "secretReference",
    ];
    for volume in volumes {
        let name = text(&volume["name"]);
        check_name(name, "volume")?;
        if kinds
            .iter()
            .filter(|kind| !volume[**kind].is_null())
            .count()
            != 1
        {
            return Err(invalid(format!(
                "The volume '{name}' needs exactly one kind."
            )));
        }
        let file = &volume["azureFile"];
        if file.is_object() && text(&file["storageAccountKey"]).is_empty() {
            return Err(invalid(format!(
                "The 'storageAccountKey' of volume '{name}' is required."
            )));
        }
    }
    for container in list(&properties["containers"]) {
        for mount in list(&container["properties"]["volumeMounts"]) {
            let name = text(&mount["name"]);
            if !volumes.iter().any(|volume| volume["name"] == mount["name"]) {
                return Err(invalid(format!(
                    "The volume '{name}' that is mounted is not there."
                )));
            }
            let path = text(&mount["mountPath"]);
            if path.is_empty() || path.contains(':') {
                return Err(invalid(format!("The mount path '{path}' is invalid.")));
            }
        }
    }
    Ok(())
}
