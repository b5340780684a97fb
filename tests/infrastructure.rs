//! What is written twice, because two programs or two languages need it, must be written the same.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use popup_gateway_core::{DropReason, EgressPolicy};

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
        .filter(|key| !key.is_empty())
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

/// Every variable that the handler reads. Names of variables are all that is in capitals there.
fn settings_of_the_handler() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut files = vec![path("src/config.rs")];
    let beside = fs::read_dir(path("src/config")).unwrap();
    files.extend(beside.map(|entry| entry.unwrap().path()));
    files.retain(|file| file.is_file() && !file.ends_with("tests.rs"));
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        names.extend(source.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    let capital = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    names.retain(|name| name.len() > 2 && name.bytes().all(capital));
    assert!(names.len() > 40, "{names:?}");
    names
}

/// Variables that say where the handler runs. Nobody sets them for it.
const OF_THE_PLATFORM: [&str; 8] = [
    "AZURE_FUNCTIONS_ENVIRONMENT",
    "FUNCTIONS_CUSTOMHANDLER_WORKER_ID",
    "FUNCTIONS_WORKER_RUNTIME",
    "HOME",
    "IDENTITY_ENDPOINT",
    "LEGION_SERVICE_HOST",
    "PATH",
    "WEBSITE_INSTANCE_ID",
];
/// Variables of the local backend.
const LOCAL: [&str; 6] = [
    "FUNCTIONS_CUSTOMHANDLER_PORT",
    "POPUP_GATEWAY",
    "VPN_ENDPOINT_HOST",
    "VPN_STATE_DIR",
    "WG_UAPI_DIR",
    "XDG_STATE_HOME",
];
/// Variables for a handler that the template does not deploy.
const WITHOUT_TEMPLATE: [&str; 6] = [
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "STORAGE_API_VERSION",
    "TLS_CA_FILE",
    "VPN_DNS_SERVER",
    "VPN_PORT",
];

/// Every app setting of the template, whatever object it is in.
fn settings_of_the_template() -> BTreeSet<String> {
    let template = read("infra/main.bicep");
    let function_app = read("infra/modules/handler.bicep");
    let objects = [
        between(&template, "settings: {", "\n    }"),
        between(&function_app, "var gatewayLogSettings", "\n\n"),
        between(&function_app, "var secretSettings", "\n\n"),
        between(&function_app, "var platformSettings", "\n\n"),
    ];
    let mut names: BTreeSet<String> = objects
        .iter()
        .flat_map(|object| keys(object))
        .map(str::to_owned)
        .collect();
    // The host's own.
    names.retain(|name| {
        !name.starts_with("AzureWebJobsStorage") && !name.starts_with("APPLICATIONINSIGHTS")
    });
    assert!(names.len() > 30, "{names:?}");
    names
}

#[test]
fn the_template_sets_what_the_handler_reads_and_nothing_else() {
    let mut read_by_it = settings_of_the_handler();
    for name in OF_THE_PLATFORM
        .iter()
        .chain(&LOCAL)
        .chain(&WITHOUT_TEMPLATE)
    {
        assert!(read_by_it.remove(*name), "nobody reads {name} any more");
    }
    let set = settings_of_the_template();
    let forgotten: Vec<_> = read_by_it.difference(&set).collect();
    assert!(forgotten.is_empty(), "not in infra/: {forgotten:?}");
    let unread: Vec<_> = set.difference(&read_by_it).collect();
    assert!(unread.is_empty(), "set, and nobody reads them: {unread:?}");
}

#[test]
fn every_setting_is_in_the_documentation() {
    let operations = read("docs/OPERATIONS.md");
    let settings = between(&operations, "\n## Settings\n", "\n## ");
    let of_azure = settings_of_the_template();
    let by_hand = WITHOUT_TEMPLATE.iter().map(|name| (*name).to_owned());
    for name in of_azure.into_iter().chain(by_hand) {
        assert!(
            settings.contains(&format!("`{name}`")),
            "OPERATIONS.md does not tell of {name}"
        );
    }
    let readme = read("README.md");
    let local = between(&readme, "\n## Settings of the local handler\n", "\n## ");
    for name in LOCAL {
        // For whoever builds or tests this program, and the usual place of the state.
        if matches!(name, "POPUP_GATEWAY" | "XDG_STATE_HOME") {
            continue;
        }
        assert!(local.contains(&format!("`{name}`")), "README.md: {name}");
    }
}

#[test]
fn the_documentation_tells_of_every_error_code_and_every_reason_to_drop() {
    let source = read("src/error.rs");
    let codes = between(&source, "pub fn code(", "\n    }\n");
    let codes: BTreeSet<&str> = codes.split('"').skip(1).step_by(2).collect();
    assert!(codes.len() > 30, "{codes:?}");
    let operations = read("docs/OPERATIONS.md");
    let table = between(&operations, "| `code` | HTTP |", "\n\n");
    let told: BTreeSet<&str> = table
        .lines()
        .skip(2)
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(told, codes);
    let drops = between(&operations, "| reason | meaning |", "\n\n");
    let told: BTreeSet<&str> = drops
        .lines()
        .skip(2)
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let reasons: BTreeSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(told, reasons);
}

/// The parameters of a Bicep file, and which of them have a default.
fn parameters(bicep: &str) -> BTreeMap<&str, bool> {
    bicep
        .lines()
        .filter_map(|line| line.strip_prefix("param "))
        .map(|line| {
            let name = line.split(' ').next().unwrap();
            (name, line.contains(" = "))
        })
        .collect()
}

#[test]
fn azd_gives_every_parameter_of_the_template_and_no_other() {
    let template = read("infra/main.bicep");
    let parameters = parameters(&template);
    assert!(parameters.len() > 20, "{parameters:?}");
    let given: serde_json::Value =
        serde_json::from_str(&read("infra/main.parameters.json")).unwrap();
    let given = given["parameters"].as_object().unwrap();
    let operations = read("docs/OPERATIONS.md");
    for name in parameters.keys() {
        assert!(given.contains_key(*name), "azd cannot set {name}");
        // Once where it is declared, and at least once more.
        assert!(
            template.matches(name).count() > 1,
            "{name} is not used by the template"
        );
    }
    for (name, value) in given {
        assert!(
            parameters.contains_key(name.as_str()),
            "no parameter {name}"
        );
        let variable = value["value"].as_str().unwrap();
        let variable = between(variable, "${", "}");
        let variable = variable.split('=').next().unwrap();
        if !matches!(variable, "AZURE_ENV_NAME" | "AZURE_LOCATION") {
            assert!(
                operations.contains(&format!("`{variable}`")),
                "OPERATIONS.md does not tell of azd's {variable}"
            );
        }
    }
}

#[test]
fn every_module_is_given_all_its_parameters_and_no_other() {
    let template = read("infra/main.bicep");
    let mut modules = 0;
    for module in template.split("\nmodule ").skip(1) {
        let file = between(module, "'", "'");
        let given: BTreeSet<&str> = between(module, "\n  params: {\n", "\n  }\n")
            .lines()
            .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
            .filter_map(|line| line.trim().split_once(':'))
            .map(|(name, _)| name)
            .collect();
        let source = read(&format!("infra/{file}"));
        let wanted: BTreeSet<&str> = parameters(&source).into_keys().collect();
        assert_eq!(given, wanted, "{file}");
        modules += 1;
    }
    assert!(modules > 6);
}

#[test]
fn secrets_are_given_to_deployments_as_secrets() {
    let template = read("infra/main.bicep");
    let readable = between(&template, "settings: {", "\n    }");
    for file in ["infra/main.bicep", "infra/modules/handler.bicep"] {
        let source = read(file);
        for name in ["azureFilesKey", "storageConnectionString"] {
            assert!(
                source.contains(&format!("@secure()\nparam {name} string")),
                "{file}: {name}"
            );
            assert!(
                !readable.contains(&format!(": {name}\n")),
                "{name} would be readable in the deployment's history"
            );
        }
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
    // What src/azure/arm/client.rs asks for, and what a group with an identity takes. The
    // simulation of Container Instances holds the handler to these (arm/roles.rs there).
    let needed = [
        "Microsoft.ContainerInstance/containerGroups/read",
        "Microsoft.ContainerInstance/containerGroups/write",
        "Microsoft.ContainerInstance/containerGroups/delete",
        "Microsoft.ContainerInstance/containerGroups/start/action",
        "Microsoft.ContainerInstance/containerGroups/restart/action",
        "Microsoft.ContainerInstance/containerGroups/containers/logs/read",
        "Microsoft.ContainerInstance/locations/operations/read",
        "Microsoft.ManagedIdentity/userAssignedIdentities/read",
        "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
    ];
    assert_eq!(actions, needed);
}

#[test]
fn the_image_is_built_from_every_member_of_the_workspace() {
    let workspace = read("Cargo.toml");
    let ignore = read(".dockerignore");
    assert!(
        ignore.lines().any(|line| line == "*"),
        "else nothing is left out"
    );
    let members: Vec<&str> = between(&workspace, "\nmembers = [", "]")
        .split(',')
        .map(|member| member.trim().trim_matches('"'))
        .map(|member| member.split('/').next().unwrap())
        .collect();
    assert!(members.len() > 3, "{members:?}");
    // The root package has its sources in src and its benchmarks in benches.
    let root = ["src", "benches", "Cargo.toml", "Cargo.lock"];
    for directory in members.into_iter().filter(|name| *name != ".").chain(root) {
        assert!(
            ignore.lines().any(|line| line == format!("!{directory}")),
            "cargo cannot read the workspace without {directory}, and .dockerignore leaves it out"
        );
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
fn what_is_pushed_and_signed_is_what_was_scanned() {
    let workflow = read(".github/workflows/image.yml");
    assert_eq!(workflow.matches("docker/build-push-action@").count(), 1);
    let (build, push) = workflow.split_once("\n  push:\n    name:").unwrap();
    assert!(build.contains("outputs: type=oci,dest=image.tar\n"));
    assert!(build.contains("skopeo copy oci-archive:image.tar docker-daemon:popup-gateway:scan\n"));
    assert!(build.contains("image: popup-gateway:scan\n"));
    assert!(build.contains("sbom: true\n"));
    assert!(!push.contains("build-push") && !push.contains("docker build"));
    assert!(push.contains("--preserve-digests oci-archive:image.tar"));
    let scanned = "needs.build.outputs.digest }}";
    assert!(push.contains(&format!("DIGEST: ${{{{ {scanned}")));
    assert!(push.contains(&format!("subject-digest: ${{{{ {scanned}")));
    assert!(push.contains("cosign sign --yes \"$PUSHED@$DIGEST\""));
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
