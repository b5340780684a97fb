//! `host.json` and the `function.json` files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::route::Route;
use super::schedule::Schedule;

/// A function app's package.
#[derive(Debug, Clone)]
pub struct Package {
    /// The handler's program.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// How long it may take to start.
    pub initialization_timeout: Duration,
    /// The functions.
    pub functions: Vec<Function>,
}

/// One function.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its directory's name.
    pub name: String,
    /// What invokes it.
    pub trigger: Trigger,
}

/// What invokes a function.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// A request that is proxied.
    Http {
        /// The path.
        route: Route,
        /// Upper case; any when empty.
        methods: Vec<String>,
        /// Who may call it.
        level: AuthLevel,
    },
    /// The clock.
    Timer {
        /// The name of the binding.
        binding: String,
        /// When.
        schedule: Schedule,
    },
}

/// Who may call a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthLevel {
    /// Everybody.
    Anonymous,
    /// Who has a key.
    Function,
    /// Who has the master key.
    Admin,
}

/// A package that the host would not load.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct PackageError {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: String,
}

impl Package {
    /// Reads a package.
    pub fn read(directory: &Path) -> Result<Self, PackageError> {
        let file = directory.join("host.json");
        let wrong = |problem: &str| PackageError {
            file: file.clone(),
            problem: problem.to_owned(),
        };
        let host = read_json(&file)?;
        if host["version"] != "2.0" {
            return Err(wrong("version must be \"2.0\""));
        }
        let handler = &host["customHandler"];
        if handler["enableProxyingHttpRequest"] != true {
            return Err(wrong("only enableProxyingHttpRequest is simulated"));
        }
        if handler["http"].is_object() {
            return Err(wrong(
                "customHandler.http cannot be mixed with function.json files",
            ));
        }
        let description = &handler["description"];
        let executable = description["defaultExecutablePath"].as_str();
        let executable = executable.ok_or_else(|| wrong("there is no defaultExecutablePath"))?;
        let arguments = description["arguments"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let prefix = host["extensions"]["http"]["routePrefix"]
            .as_str()
            .unwrap_or("api");
        let timeout = handler["initializationTimeout"]
            .as_str()
            .and_then(time_span);
        let working = description["workingDirectory"].as_str().unwrap_or_default();
        Ok(Self {
            executable: directory.join(executable),
            arguments: arguments
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            directory: directory.join(working),
            initialization_timeout: timeout.unwrap_or(Duration::from_secs(30)),
            functions: functions(directory, prefix)?,
        })
    }

    /// The function of this name, whatever the case.
    pub fn function(&self, name: &str) -> Option<&Function> {
        let mut functions = self.functions.iter();
        functions.find(|function| function.name.eq_ignore_ascii_case(name))
    }

    /// Functions with a timer.
    pub fn timers(&self) -> impl Iterator<Item = &Function> {
        let is_timer = |function: &&Function| matches!(function.trigger, Trigger::Timer { .. });
        self.functions.iter().filter(is_timer)
    }
}

fn read_json(file: &Path) -> Result<Value, PackageError> {
    let wrong = |problem: String| PackageError {
        file: file.to_owned(),
        problem,
    };
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}

fn functions(directory: &Path, prefix: &str) -> Result<Vec<Function>, PackageError> {
    let entries = std::fs::read_dir(directory).map_err(|error| PackageError {
        file: directory.to_owned(),
        problem: error.to_string(),
    })?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path().join("function.json"))
        .filter(|file| file.exists())
        .collect();
    files.sort();
    files.iter().map(|file| function(file, prefix)).collect()
}

fn function(file: &Path, prefix: &str) -> Result<Function, PackageError> {
    let wrong = |problem: &str| PackageError {
        file: file.to_owned(),
        problem: problem.to_owned(),
    };
    let name = file
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let name = name
        .filter(|name| is_name(name))
        .ok_or_else(|| wrong("the name is not legal"))?;
    let config = read_json(file)?;
    let bindings = config["bindings"].as_array().cloned().unwrap_or_default();
    let is = |binding: &Value, kind: &str| {
        binding["type"]
            .as_str()
            .is_some_and(|own| own.eq_ignore_ascii_case(kind))
    };
    let trigger = match bindings.as_slice() {
        [trigger] if is(trigger, "timerTrigger") => {
            let schedule = trigger["schedule"].as_str().and_then(Schedule::parse);
            Trigger::Timer {
                binding: trigger["name"].as_str().unwrap_or_default().to_owned(),
                schedule: schedule.ok_or_else(|| wrong("the schedule is not understood"))?,
            }
        }
        // Only a trigger with one output is proxied; everything else would get an envelope.
        [trigger, out] if is(trigger, "httpTrigger") && is(out, "http") => {
            let methods = trigger["methods"].as_array().cloned().unwrap_or_default();
            let level = serde_json::from_value(trigger["authLevel"].clone());
            Trigger::Http {
                route: Route::new(prefix, trigger["route"].as_str().unwrap_or(name)),
                methods: methods
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_ascii_uppercase)
                    .collect(),
                level: level.unwrap_or(AuthLevel::Function),
            }
        }
        _ => return Err(wrong("these bindings are not simulated")),
    };
    Ok(Function {
        name: name.to_owned(),
        trigger,
    })
}

/// The host's rule for names: `^[a-z][a-z0-9_\-]{0,127}$`, whatever the case, and not `host`.
fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(legal)
        && !name.eq_ignore_ascii_case("host")
}

/// `hh:mm:ss`.
fn time_span(text: &str) -> Option<Duration> {
    let mut seconds = 0;
    for part in text.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_own_package_is_loaded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let package = Package::read(&root).unwrap();
        let names: Vec<&str> = package.functions.iter().map(|f| f.name.as_str()).collect();
        for name in [
            "start-vpn",
            "stop-vpn",
            "vpn-status",
            "vpn-peers",
            "expire-vpn",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(package.executable.ends_with("popup-vpn"));
        assert_eq!(package.timers().count(), 1);
    }

    #[test]
    fn a_package_that_the_host_would_not_load_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let host = r#"{"version": "2.0", "customHandler": {"enableProxyingHttpRequest": true,
            "description": {"defaultExecutablePath": "x"}, "http": {}}}"#;
        std::fs::write(directory.path().join("host.json"), host).unwrap();
        let error = Package::read(directory.path()).unwrap_err();
        assert!(error.to_string().contains("cannot be mixed"), "{error}");
    }
}
