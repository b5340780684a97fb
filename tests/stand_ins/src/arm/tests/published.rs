//! The simulation against what Microsoft has published and recorded. The files are not part of
//! this repository: `POPUP_ACI_DIR` names the directory that has them, and without it these tests
//! have nothing to say.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn published(file: &str) -> Option<Value> {
    let directory = PathBuf::from(std::env::var_os("POPUP_ACI_DIR")?);
    let text = std::fs::read(directory.join(file)).expect(file);
    Some(serde_json::from_slice(&text).expect(file))
}

/// The paths of all members, lists without their numbers.
fn members(value: &Value, at: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{at}/{name}");
                all.insert(path.clone());
                members(value, &path, all);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, at, all)),
        _ => {}
    }
}

fn paths(value: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    members(value, "", &mut all);
    all
}

#[test]
fn a_recorded_create_is_answered_as_it_was() {
    let Some(recorded) = published("recorded/wire_2023-05-05_confidential_privileged_create.json")
    else {
        return;
    };
    let mut cloud = Cloud::new();
    let reply = cloud.put(recorded["put"]["body"].clone());
    assert_eq!(
        reply.status, recorded["put_response"]["status"],
        "{reply:?}"
    );
    let headers = recorded["put_response"]["headers"].as_object().unwrap();
    assert!(!headers.is_empty(), "nothing would be compared");
    for (name, _) in headers {
        assert!(
            reply.header(name).is_some(),
            "{name} is missing in {reply:?}"
        );
    }
    let body = reply.body.unwrap();
    let expected = &recorded["put_response"]["body_has"];
    for name in [
        "provisioningState",
        "provisioningTimeoutInSeconds",
        "instanceView",
    ] {
        assert!(!expected[name].is_null(), "{name} is not recorded");
        assert_eq!(body["properties"][name], expected[name], "{name}");
    }
    cloud.pass(Duration::from_secs(60));
    let shown = cloud.get();
    let finally = &recorded["get_final"];
    assert_eq!(
        shown["properties"]["provisioningState"],
        finally["provisioningState"]
    );
    let view = &shown["properties"]["containers"][0]["properties"]["instanceView"];
    let recorded = paths(&finally["containers[0].instanceView"]);
    assert!(
        recorded.len() >= 5,
        "nothing would be compared: {recorded:?}"
    );
    assert!(recorded.is_subset(&paths(view)), "{view:#}");
}

#[test]
fn the_published_example_of_a_create_has_all_its_members_here_too() {
    let Some(example) = published("examples/ContainerGroupsCreateOrUpdate.json") else {
        return;
    };
    let mut body = example["parameters"]["containerGroup"].clone();
    // Gone from the interface since 2021-10-01.
    body["properties"]
        .as_object_mut()
        .unwrap()
        .remove("networkProfile");
    let mut cloud = Cloud::new();
    let reply = cloud.put(body);
    assert_eq!(reply.status, 201, "{reply:?}");
    cloud.pass(Duration::from_secs(60));
    let ours = paths(&cloud.get());
    let theirs = paths(&example["responses"]["201"]["body"]);
    assert!(theirs.len() > 40, "nothing would be compared: {theirs:?}");
    let missing: Vec<&String> = theirs.difference(&ours).collect();
    // The example shows an empty key, the service and we none; some examples show more identity.
    let known = |path: &str| path.ends_with("/workspaceKey") || path.contains("/networkProfile");
    let missing: Vec<_> = missing.into_iter().filter(|path| !known(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_recorded_confidential_group_is_accepted() {
    let Some(body) = published("recorded/2025-09-01_ContainerGroupCreateConfidential_body.json")
    else {
        return;
    };
    let path = format!("{GROUP}?api-version=2025-09-01");
    let reply = Cloud::new().call("PUT", &path, Some(body));
    assert_eq!(reply.status, 201, "{reply:?}");
}
