//! What a PUT may change in a group that is already there.

use serde_json::Value;

use super::ArmError;
use super::spec::{Spec, list};

/// Fails when the new body differs where the service wants a new group (its update page; the text
/// is the service's).
pub(super) fn check(name: &str, old: &Value, new: &Value) -> Result<(), ArmError> {
    if frozen(old) == frozen(new) {
        return Ok(());
    }
    Err(ArmError::bad(
        "InvalidContainerGroupUpdate",
        format!(
            "The updates on container group '{name}' are invalid. If you are going to update the \
             os type, restart policy, network profile, CPU, memory or GPU resources for a \
             container group, you must delete it first and then create a new one."
        ),
    ))
}

/// What cannot change.
fn frozen(body: &Value) -> impl PartialEq {
    let spec = Spec::read(body);
    let properties = &body["properties"];
    let word = |name: &str, default: &str| {
        let value = properties[name].as_str().unwrap_or(default);
        value.to_ascii_lowercase()
    };
    let mut ports: Vec<(u64, String)> = spec
        .ip
        .iter()
        .flat_map(|ip| &ip.ports)
        .map(|port| (port.number, port.protocol.clone()))
        .collect();
    ports.sort();
    let resources = |container: &Value| {
        let requests = &container["properties"]["resources"]["requests"];
        (
            requests["cpu"].as_f64(),
            requests["memoryInGB"].as_f64(),
            requests["gpu"].clone(),
        )
    };
    (
        super::rules::normalized(body["location"].as_str().unwrap_or_default()),
        word("osType", "linux"),
        word("sku", "standard"),
        spec.restart,
        spec.ip.map(|ip| ip.public),
        ports,
        list(&properties["containers"])
            .iter()
            .map(resources)
            .collect::<Vec<_>>(),
        properties["subnetIds"].clone(),
    )
}
