//! What is written twice, because two programs or two languages need it, must be written the same.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use popup_gateway_core::EgressPolicy;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The text of all files of a kind below a directory.
fn read_all(directory: &str, extension: &str) -> String {
    let entries = fs::read_dir(path(directory)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

/// What stands between the first `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text
        .split_once(from)
        .unwrap_or_else(|| panic!("no {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to:?}")).0
}

/// The names before a colon, one a line, in a Bicep object.
fn keys(object: &str) -> BTreeSet<&str> {
    object
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .map(|(key, _)| key)
        .filter(|key| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .collect()
}

#[test]
fn the_kernel_path_closes_what_the_gateway_closes() {
    let script = read("container/scripts/kernel-path.sh");
    let list = |name: &str| -> Vec<Ipv4Net> {
        let text = between(&script, &format!("\n{name}=("), ")");
        text.split(' ').map(|net| net.parse().unwrap()).collect()
    };
    assert_eq!(list("never"), EgressPolicy::NEVER);
    assert_eq!(list("by_default"), EgressPolicy::BY_DEFAULT);
    let many = ["224.0.0.0/4", "255.255.255.255/32"];
    assert_eq!(list("many"), many.map(|net| net.parse().unwrap()));
}

#[test]
fn every_setting_of_the_template_is_one_the_handler_reads() {
    let handler = format!(
        "{}\n{}",
        read("src/config.rs"),
        read_all("src/config", "rs")
    );
    let template = read("infra/main.bicep");
    let function_app = read("infra/modules/handler.bicep");
    let mut settings = keys(between(&template, "settings: {", "\n    }"));
    settings.extend(keys(between(
        &function_app,
        "var gatewayLogSettings",
        "\n\n",
    )));
    settings.extend(["AZURE_CLIENT_ID", "VPN_BACKEND"]);
    assert!(settings.len() > 14, "{settings:?}");
    for setting in settings {
        assert!(
            handler.contains(&format!("\"{setting}\"")),
            "{setting} is set, and nobody reads it"
        );
    }
}

#[test]
fn every_parameter_that_azd_gives_is_one_of_the_template() {
    let template = read("infra/main.bicep");
    let parameters: serde_json::Value =
        serde_json::from_str(&read("infra/main.parameters.json")).unwrap();
    for name in parameters["parameters"].as_object().unwrap().keys() {
        assert!(
            template.contains(&format!("\nparam {name} ")),
            "there is no parameter {name}"
        );
    }
}

#[test]
fn the_handler_cannot_reach_keys_nor_run_commands_in_containers() {
    let documents = read("infra/modules/documents.bicep");
    for assignment in documents.split("\nresource ").skip(2) {
        let scope = between(assignment, "scope: ", "\n");
        let to_handler = assignment.contains("principalId: handlerPrincipalId");
        let may_write = assignment.contains("roleDefinitionId: write");
        match scope.rsplit("::").next().unwrap() {
            "keys" => assert!(!to_handler, "{assignment}"),
            "status" => assert!(!(to_handler && may_write), "{assignment}"),
            "control" => assert_eq!(to_handler, may_write, "{assignment}"),
            other => panic!("a role on {other}: {assignment}"),
        }
    }
    assert!(documents.contains("allowSharedKeyAccess: false"));
    let roles = read("infra/modules/roles.bicep");
    let actions: Vec<&str> = roles
        .lines()
        .map(|line| line.trim().trim_matches('\''))
        .filter(|line| line.starts_with("Microsoft.") && !line.contains('@'))
        .collect();
    assert!(actions.len() > 8, "{actions:?}");
    for action in actions {
        let harmless =
            !action.contains('*') && !action.contains("exec") && !action.contains("attach");
        assert!(harmless, "{action}");
    }
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let dockerfile = read("container/Dockerfile");
    let toolchain = read("rust-toolchain.toml");
    let channel = between(&toolchain, "channel = \"", "\"");
    assert!(dockerfile.contains(&format!("library/rust:{channel}-alpine")));
    for digest in ["ALPINE_DIGEST", "RUST_DIGEST"] {
        let value = between(&dockerfile, &format!("ARG {digest}=@sha256:"), "\n");
        assert!(value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}

#[test]
fn every_action_is_pinned_to_a_commit() {
    let workflows = read_all(".github/workflows", "yml");
    let actions: Vec<&str> = workflows
        .lines()
        .filter_map(|line| line.split_once("uses: "))
        .map(|(_, action)| action)
        .collect();
    assert!(actions.len() > 5);
    for action in actions {
        let commit = between(action, "@", " #");
        assert!(
            commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()),
            "{action}"
        );
    }
}
