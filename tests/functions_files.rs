//! The files that tell the Functions host what there is, against the handler's own route table.
//!
//! Nothing else would notice a difference between the two before a deployment: the host answers
//! 404 itself for what no `function.json` names.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every function by its name: each directory with a `function.json`.
fn functions() -> BTreeMap<String, Value> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(_, path)| path.join("function.json").is_file())
        .map(|(name, path)| (name, read(&path.join("function.json"))))
        .collect()
}

fn trigger(function: &Value) -> &Value {
    let bindings = function["bindings"].as_array().unwrap();
    let mut triggers = bindings
        .iter()
        .filter(|binding| binding["type"].as_str().unwrap().ends_with("Trigger"));
    let trigger = triggers.next().expect("a function has a trigger");
    assert!(triggers.next().is_none(), "and only one");
    trigger
}

fn of_type<'a>(
    functions: &'a BTreeMap<String, Value>,
    kind: &'a str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    functions
        .iter()
        .map(|(name, function)| (name, trigger(function)))
        .filter(move |(_, trigger)| trigger["type"] == kind)
}

/// The handler's routes, `(path, methods)`, as its router is written.
fn handler_routes() -> BTreeMap<String, BTreeSet<String>> {
    let mut routes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let source = include_str!("../src/http/mod.rs");
    for call in source.split(".route(").skip(1) {
        let path = call.split('"').nth(1).expect("a route has a path");
        let rest = call.split_once(path).unwrap().1;
        let end = rest.find("\n").unwrap_or(rest.len());
        let methods = ["get", "post", "put", "delete", "patch"];
        let named = methods
            .into_iter()
            .filter(|method| rest[..end].contains(&format!("{method}(")));
        let known = routes.entry(path.to_owned()).or_default();
        known.extend(named.map(str::to_owned));
        assert!(!known.is_empty(), "no method is known for {path}");
    }
    assert!(routes.len() > 3, "the router is written in another way now");
    routes
}

/// Whether a function's route sends `path` to the handler.
fn covers(route: &str, path: &str) -> bool {
    match route.strip_suffix("/{*rest}") {
        Some(stem) => path == stem || path.starts_with(&format!("{stem}/")),
        None => route == path,
    }
}

fn methods(trigger: &Value) -> BTreeSet<String> {
    let methods = trigger["methods"]
        .as_array()
        .expect("methods are said, or all are open");
    methods
        .iter()
        .map(|method| method.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_host_starts_the_handler_and_passes_requests_through_unchanged() {
    let host = read(&root().join("host.json"));
    assert_eq!(host["version"], "2.0");
    let handler = &host["customHandler"];
    assert_eq!(handler["description"]["defaultExecutablePath"], "popup-vpn");
    assert_eq!(handler["enableProxyingHttpRequest"], true);
    // Neither a timer nor HTTP needs a bundle, and without one nothing is downloaded at a start.
    assert!(host.get("extensionBundle").is_none());
    // These make the host refuse function.json files.
    assert!(handler.get("http").is_none());
    assert_eq!(host["extensions"]["http"]["routePrefix"], "api");
}

#[test]
fn every_http_function_wants_a_key_and_says_its_methods_and_route() {
    for (name, trigger) in of_type(&functions(), "httpTrigger") {
        assert_eq!(trigger["authLevel"], "function", "{name}");
        assert_eq!(trigger["direction"], "in", "{name}");
        assert!(!methods(trigger).is_empty(), "{name}");
        let route = trigger["route"].as_str().unwrap();
        assert!(
            route == name || route == format!("{name}/{{*rest}}"),
            "{name}: {route}"
        );
    }
}

#[test]
fn http_functions_have_the_one_output_that_lets_the_host_proxy() {
    for (name, function) in functions() {
        let bindings = function["bindings"].as_array().unwrap();
        let others: Vec<&Value> = bindings
            .iter()
            .filter(|binding| *binding != trigger(&function))
            .collect();
        if trigger(&function)["type"] == "httpTrigger" {
            let output = json!({"type": "http", "direction": "out", "name": "res"});
            assert_eq!(others, [&output], "{name}");
        } else {
            assert!(others.is_empty(), "{name}");
        }
    }
}

#[test]
fn functions_and_handler_agree_on_every_route() {
    let functions = functions();
    let mut served: BTreeSet<(String, String)> = BTreeSet::new();
    let routes = handler_routes();
    for (path, methods_of_path) in &routes {
        let Some(path) = path.strip_prefix("/api/") else {
            continue;
        };
        for method in methods_of_path {
            let serves = |(_, trigger): &(&String, &Value)| {
                covers(trigger["route"].as_str().unwrap(), path)
                    && methods(trigger).contains(method)
            };
            let found: Vec<_> = of_type(&functions, "httpTrigger").filter(serves).collect();
            assert_eq!(
                found.len(),
                1,
                "{method} {path} has not one function but {found:?}"
            );
            served.insert((found[0].0.clone(), method.clone()));
        }
    }
    for (name, trigger) in of_type(&functions, "httpTrigger") {
        for method in methods(trigger) {
            assert!(
                served.contains(&(name.clone(), method.clone())),
                "the function {name} lets {method} through, and the handler has no such route"
            );
        }
    }
}

#[test]
fn the_timer_looks_every_five_minutes() {
    let functions = functions();
    let timers: Vec<_> = of_type(&functions, "timerTrigger").collect();
    let [(name, timer)] = timers.as_slice() else {
        panic!("one timer, not {timers:?}");
    };
    assert_eq!(*name, "expire-vpn");
    assert_eq!(timer["schedule"], "0 */5 * * * *");
    // The host calls a timer's function by its name.
    let posted = BTreeSet::from(["post".to_owned()]);
    assert_eq!(handler_routes().get("/expire-vpn"), Some(&posted));
    // A restart of the host must not be a reason to act.
    assert_eq!(timer["runOnStartup"], false);
}

#[test]
fn the_package_takes_every_function_and_nothing_else() {
    let ignore = fs::read_to_string(root().join(".funcignore")).unwrap();
    let taken: BTreeSet<&str> = ignore
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .filter(|line| !line.ends_with('/'))
        .collect();
    let mut expected: BTreeSet<String> = functions()
        .keys()
        .map(|name| format!("{name}/function.json"))
        .collect();
    expected.extend(["host.json".to_owned(), "popup-vpn".to_owned()]);
    assert_eq!(taken, expected.iter().map(String::as_str).collect());
    assert!(ignore.lines().any(|line| line == "*"));
}
