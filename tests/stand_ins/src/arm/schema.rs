//! Whether a request has the published shape.
//!
//! The type files under `schema/` are distilled from Azure/bicep-types-az by `python/schema.py`.
//! They say which properties exist, which are required, which are the service's own, and the
//! values of each enumeration. Properties that are the service's own are ignored in a request, as
//! ARM does.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::ArmError;

#[derive(Debug, Deserialize)]
struct Schema {
    root: String,
    types: BTreeMap<String, Type>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Type {
    scalar: Option<String>,
    #[serde(rename = "enum")]
    values: Option<Vec<String>>,
    items: Option<String>,
    properties: Option<BTreeMap<String, Property>>,
    additional: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Property {
    #[serde(rename = "type")]
    kind: String,
    required: bool,
    #[serde(rename = "readOnly")]
    read_only: bool,
}

/// Versions that the simulation serves, and the type file each is checked against.
const VERSIONS: [(&str, &LazyLock<Schema>); 5] = [
    ("2021-10-01", &OLDER),
    ("2022-09-01", &OLDER),
    ("2023-05-01", &OLDER),
    ("2024-10-01-preview", &NEWER),
    ("2025-09-01", &NEWER),
];

static OLDER: LazyLock<Schema> = LazyLock::new(|| {
    read(include_str!(
        "../../schema/container-groups-2023-05-01.json"
    ))
});
static NEWER: LazyLock<Schema> = LazyLock::new(|| {
    read(include_str!(
        "../../schema/container-groups-2025-09-01.json"
    ))
});

fn read(text: &str) -> Schema {
    // A wrong file then refuses every request, and the tests below say why.
    serde_json::from_str(text).unwrap_or(Schema {
        root: String::new(),
        types: BTreeMap::new(),
    })
}

/// Fails unless the API version is one of a container group's.
pub(super) fn check_version(version: Option<&str>) -> Result<(), ArmError> {
    find(version).map(drop)
}

fn find(version: Option<&str>) -> Result<&'static Schema, ArmError> {
    let Some(version) = version else {
        return Err(ArmError::bad(
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        ));
    };
    let known = VERSIONS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(version));
    known.map(|(_, schema)| &***schema).ok_or_else(|| {
        let all: Vec<&str> = VERSIONS.iter().map(|(version, _)| *version).collect();
        ArmError::bad(
            "InvalidApiVersionParameter",
            format!(
                "The api-version '{version}' is invalid. The supported versions are '{}'.",
                all.join(",")
            ),
        )
    })
}

/// Fails unless the body of a PUT has the shape of that version.
pub(super) fn check(body: &Value, version: Option<&str>) -> Result<(), ArmError> {
    let schema = find(version)?;
    schema.check(body, &schema.root, "")
}

impl Schema {
    fn check(&self, value: &Value, kind: &str, at: &str) -> Result<(), ArmError> {
        let wrong = |what: &str| Err(invalid(at, what));
        let Some(kind) = self.types.get(kind) else {
            return wrong("has a type that the simulation does not know");
        };
        if let Some(values) = &kind.values {
            let text = value.as_str().unwrap_or_default();
            if values.iter().any(|known| known.eq_ignore_ascii_case(text)) {
                return Ok(());
            }
            return wrong(&format!("must be one of {}", values.join(", ")));
        }
        if let Some(items) = &kind.items {
            let Some(list) = value.as_array() else {
                return wrong("must be a list");
            };
            let mut numbered = list.iter().enumerate();
            return numbered.try_for_each(|(number, item)| {
                self.check(item, items, &format!("{at}[{number}]"))
            });
        }
        if kind.properties.is_some() || kind.additional.is_some() {
            return self.check_object(value, kind, at);
        }
        let fits = match kind.scalar.as_deref() {
            Some("string") => value.is_string(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            _ => true,
        };
        if fits {
            return Ok(());
        }
        wrong(&format!(
            "must be a {}",
            kind.scalar.as_deref().unwrap_or("value")
        ))
    }

    fn check_object(&self, value: &Value, kind: &Type, at: &str) -> Result<(), ArmError> {
        let Some(object) = value.as_object() else {
            return Err(invalid(at, "must be an object"));
        };
        let none = BTreeMap::new();
        let properties = kind.properties.as_ref().unwrap_or(&none);
        let inside = |name: &str| match at {
            "" => name.to_owned(),
            at => format!("{at}.{name}"),
        };
        for (name, value) in object {
            // SDKs send null for what they do not set.
            if value.is_null() {
                continue;
            }
            match (properties.get(name), &kind.additional) {
                (Some(property), _) if property.read_only => {}
                (Some(property), _) => self.check(value, &property.kind, &inside(name))?,
                (None, Some(additional)) => self.check(value, additional, &inside(name))?,
                (None, None) => {
                    return Err(invalid(
                        &inside(name),
                        "is no member of the object (could not find member)",
                    ));
                }
            }
        }
        for (name, property) in properties {
            // A group's name is in its URL.
            let in_url = at.is_empty() && name == "name";
            if property.required && !in_url && object.get(name).is_none_or(Value::is_null) {
                return Err(invalid(&inside(name), "is required"));
            }
        }
        Ok(())
    }
}

fn invalid(at: &str, what: &str) -> ArmError {
    ArmError::bad(
        "InvalidRequestContent",
        format!("The request content was invalid: '{at}' {what}."),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_version_has_its_type_file() {
        for (version, schema) in VERSIONS {
            assert!(schema.types.contains_key(&schema.root), "{version}");
        }
    }

    #[test]
    fn the_version_must_be_given_and_known() {
        assert_eq!(
            check_version(None).unwrap_err().code,
            "MissingApiVersionParameter"
        );
        let error = check_version(Some("2019-01-01")).unwrap_err();
        assert_eq!(error.code, "InvalidApiVersionParameter");
        assert!(error.message.contains("2023-05-01"));
    }

    #[test]
    fn unknown_properties_enumerations_and_types_are_refused_by_name() {
        let group = |port: Value| {
            json!({
                "location": "westeurope",
                "properties": {
                    "osType": "Linux",
                    "containers": [{"name": "a", "properties": {
                        "image": "i", "ports": [port],
                        "resources": {"requests": {"cpu": 0.5, "memoryInGB": 1.5}},
                    }}],
                },
            })
        };
        let version = Some("2023-05-01");
        assert_eq!(
            check(&group(json!({"port": 443, "protocol": "UDP"})), version),
            Ok(())
        );
        for (port, named) in [
            (
                json!({"port": 443, "protocol": "SCTP"}),
                "ports[0].protocol",
            ),
            (json!({"port": 443, "hostPort": 1}), "ports[0].hostPort"),
            (json!({"port": "443"}), "ports[0].port"),
            (json!({"protocol": "UDP"}), "ports[0].port"),
        ] {
            let error = check(&group(port), version).unwrap_err();
            assert!(error.message.contains(named), "{error}");
        }
    }
}
