//! What a container group's many words mean: pure, from ARM's answer to a phase.

use jiff::Timestamp;

use super::arm::{ContainerGroup, ContainerView, Event};

/// A container that was started this often has no future.
const MAX_RESTARTS: u32 = 3;
/// What failed this often will fail again: Azure itself goes on, and bills, for 30 minutes.
const MAX_FAILURES: u32 = 3;

/// How a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// On its way, or about to be started again.
    Starting,
    /// Its container runs.
    Running,
    /// On its way out.
    Stopping,
    /// Somebody stopped it by hand.
    Stopped,
    /// Its container ended by itself and stays down.
    Ended,
    /// It will not run, for this reason.
    Broken(String),
}

pub(super) fn condition(group: &ContainerGroup) -> Condition {
    let properties = &group.properties;
    let container = properties.containers.first();
    let view = container.and_then(|container| container.properties.instance_view.as_ref());
    match properties.provisioning_state.as_str() {
        "Deleting" => return Condition::Stopping,
        "Failed" => return Condition::Broken(reason("Azure could not start it", group)),
        _ => {}
    }
    match properties.instance_view.state.as_str() {
        "Stopped" => return Condition::Stopped,
        "Failed" => return Condition::Broken(reason("its container failed", group)),
        "Succeeded" => return Condition::Ended,
        _ => {}
    }
    let Some(view) = view else {
        return match keeps_failing(&properties.instance_view.events) {
            true => Condition::Broken(reason("it cannot be started", group)),
            false => Condition::Starting,
        };
    };
    match (
        view.current_state.state.as_str(),
        view.current_state.exit_code,
    ) {
        ("Running", _) => Condition::Running,
        ("Terminated", Some(0)) => Condition::Ended,
        ("Terminated", code) if view.restart_count >= MAX_RESTARTS => {
            let code = code.map_or("no exit code".to_owned(), |code| {
                format!("exit code {code}")
            });
            Condition::Broken(reason(
                &format!("its container keeps ending ({code})"),
                group,
            ))
        }
        _ if view.restart_count >= MAX_RESTARTS => {
            Condition::Broken(reason("its container keeps ending", group))
        }
        _ if has_never_started(view)
            && (keeps_failing(&view.events) || keeps_failing(&properties.instance_view.events)) =>
        {
            Condition::Broken(reason("its container cannot be started", group))
        }
        _ => Condition::Starting,
    }
}

/// When the process in its container was started.
pub(super) fn started_at(group: &ContainerGroup) -> Option<Timestamp> {
    let container = group.properties.containers.first()?;
    let view = container.properties.instance_view.as_ref()?;
    view.current_state.start_time
}

fn has_never_started(view: &ContainerView) -> bool {
    !view.events.iter().any(|event| event.name == "Started")
}

fn keeps_failing(events: &[Event]) -> bool {
    let warnings = events.iter().filter(|event| event.is_warning());
    warnings.map(|event| event.count.max(1)).sum::<u32>() >= MAX_FAILURES
}

/// `what`, and the last thing that Azure complained of.
fn reason(what: &str, group: &ContainerGroup) -> String {
    let of_containers = group
        .properties
        .containers
        .iter()
        .filter_map(|container| container.properties.instance_view.as_ref())
        .flat_map(|view| &view.events);
    let events = group
        .properties
        .instance_view
        .events
        .iter()
        .chain(of_containers);
    let last = events
        .filter(|event| event.is_warning())
        .max_by_key(|event| event.last_timestamp);
    match last {
        Some(event) => {
            format!(
                "{what}: {} ({})",
                super::arm::printable(&event.message, 300),
                event.name
            )
        }
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn group(provisioning: &str, state: &str, view: Value) -> Condition {
        let group = json!({
            "name": "wireguard-vpn-x",
            "tags": null,
            "properties": {
                "provisioningState": provisioning,
                "containers": [{"name": "gateway", "properties": {"instanceView": view}}],
                "instanceView": {"state": state, "events": []},
            },
        });
        condition(&serde_json::from_value(group).unwrap())
    }

    fn in_state(state: Value, restarts: u32) -> Value {
        json!({"restartCount": restarts, "currentState": state, "events": []})
    }

    #[test]
    fn a_group_is_as_its_container_is() {
        let running = in_state(json!({"state": "Running", "detailStatus": ""}), 0);
        assert_eq!(
            group("Succeeded", "Running", running.clone()),
            Condition::Running
        );
        assert_eq!(
            group("Pending", "Pending", Value::Null),
            Condition::Starting
        );
        assert_eq!(
            group("Deleting", "Running", running.clone()),
            Condition::Stopping
        );
        assert_eq!(group("Succeeded", "Stopped", running), Condition::Stopped);
        let over = in_state(json!({"state": "Terminated", "exitCode": 0}), 0);
        assert_eq!(group("Succeeded", "Succeeded", over), Condition::Ended);
    }

    #[test]
    fn a_container_that_crashes_is_started_again_by_azure_three_times() {
        let crashed =
            |restarts| in_state(json!({"state": "Terminated", "exitCode": 101}), restarts);
        assert_eq!(
            group("Succeeded", "Running", crashed(1)),
            Condition::Starting
        );
        let Condition::Broken(reason) = group("Succeeded", "Running", crashed(3)) else {
            panic!("it has no future")
        };
        assert!(reason.contains("exit code 101"), "{reason}");
        let waiting = in_state(
            json!({"state": "Waiting", "detailStatus": "CrashLoopBackOff"}),
            4,
        );
        assert!(matches!(
            group("Succeeded", "Pending", waiting),
            Condition::Broken(_)
        ));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_not_waited_for() {
        let failing = |count| {
            let message = "failed to pull image \"x\": not found";
            json!({
                "currentState": {"state": "Waiting"},
                "events": [{"name": "Failed", "type": "Warning", "count": count, "message": message}],
            })
        };
        assert_eq!(group("Pending", "Pending", failing(1)), Condition::Starting);
        let Condition::Broken(reason) = group("Pending", "Pending", failing(3)) else {
            panic!("it will not be pulled")
        };
        assert!(reason.contains("failed to pull image"), "{reason}");
    }

    #[test]
    fn a_failed_group_says_what_azure_complained_of() {
        let body = include_str!("failed_group.json");
        let group: ContainerGroup = serde_json::from_str(body).unwrap();
        let Condition::Broken(reason) = condition(&group) else {
            panic!("it has failed")
        };
        assert!(reason.contains("mount error(2)"), "{reason}");
    }
}
