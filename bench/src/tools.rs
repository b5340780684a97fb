//! The programs that are measured, and those that help.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    directories: Vec<PathBuf>,
}

impl Tools {
    /// Programs are looked for in `directories`, the first that has one wins.
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// The program's path. Never looked for in `PATH`: what is measured is what was pinned.
    pub(crate) fn path(&self, program: &str) -> Result<String> {
        let mut candidates = self
            .directories
            .iter()
            .map(|directory| directory.join(program));
        let found = candidates.find(|path| path.is_file());
        let found = found.with_context(|| {
            format!("{program} is missing: `scripts/bench.sh` builds or fetches it")
        })?;
        // In a box another directory is the current one.
        Ok(found.canonicalize()?.display().to_string())
    }

    /// Copies the program to where an unprivileged user can walk.
    pub(crate) fn copy_to(&self, program: &str, directory: &Path) -> Result<PathBuf> {
        let copy = directory.join(program);
        fs::copy(self.path(program)?, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }

    /// What the program says of its version, one line.
    pub(crate) fn version(&self, program: &str) -> String {
        let Ok(path) = self.path(program) else {
            return "missing".to_owned();
        };
        // Written by the script for what does not know its version.
        if let Ok(version) = fs::read_to_string(format!("{path}.version")) {
            return version.trim().to_owned();
        }
        let output = Command::new(path).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.ok()
            .and_then(|text| text.lines().next().map(str::to_owned))
            .unwrap_or_else(|| "unknown".to_owned())
    }
}
