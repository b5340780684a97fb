//! How packets are to leave.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Reader, StorageSettings};

/// How packets are to leave.
#[derive(Debug)]
pub(crate) enum Mode {
    /// The best way that works: `raw`, else `socket`. Whether the kernel's is better is the
    /// entrypoint's business: it tries, and then asks for it by name.
    Auto,
    /// As frames; by sockets where that does not work.
    Raw,
    /// By the system's sockets.
    Socket,
    /// By the kernel.
    Kernel(KernelSettings),
}

/// How the kernel's data path is set up and torn down.
#[derive(Debug)]
pub(crate) struct KernelSettings {
    /// `kernel-path.sh`.
    pub(crate) script: PathBuf,
    /// Where the key and the interface's configuration are while it is up.
    pub(crate) run_dir: PathBuf,
}

/// A host and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeTarget {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for ProbeTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && !host.contains(['[', ']', ' ', '/']))
            .and_then(|(host, port)| {
                Some(Self {
                    host: host.to_owned(),
                    port: port.parse().ok().filter(|port| *port != 0)?,
                })
            })
            .ok_or("a host name or IPv4 address with a port, such as storage.example.com:443")
    }
}

impl Reader<'_> {
    pub(super) fn mode(&mut self) -> Option<Mode> {
        let problem = match (self.environment)("GATEWAY_MODE").as_deref() {
            None | Some("" | "auto") => return Some(Mode::Auto),
            Some("raw") => return Some(Mode::Raw),
            Some("socket") => return Some(Mode::Socket),
            Some("kernel") => match (self.environment)("KERNEL_PATH") {
                Some(script) if script.starts_with('/') => {
                    let run_dir = (self.environment)("RUN_DIR")
                        .unwrap_or_else(|| "/run/popup-gateway".to_owned());
                    return Some(Mode::Kernel(KernelSettings {
                        script: script.into(),
                        run_dir: run_dir.into(),
                    }));
                }
                _ => "GATEWAY_MODE: kernel needs KERNEL_PATH, which the image's entrypoint sets",
            },
            Some(_) => "GATEWAY_MODE: auto, kernel, raw or socket",
        };
        self.problems.push(problem.to_owned());
        None
    }

    /// What `raw` mode is tested against: what is said, else the account of the documents.
    pub(super) fn probe_target(
        &mut self,
        storage: Option<&StorageSettings>,
    ) -> Option<ProbeTarget> {
        if (self.environment)("RAW_PROBE_TARGET").is_some_and(|text| !text.is_empty()) {
            return self.parsed("RAW_PROBE_TARGET", None);
        }
        let Some(StorageSettings::Blob(blob)) = storage else {
            return None;
        };
        let url = blob.url.url();
        Some(ProbeTarget {
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, SettingsError};
    use super::*;

    fn settings(changes: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let lease = "0123456789abcdef0123456789abcdef";
        let base = [
            ("LEASE_ID", lease),
            ("LEASE_EXPIRES_AT", "2026-01-02T03:04:05Z"),
        ];
        let lookup = |name: &str| {
            let mut all = changes.iter().chain(&base);
            all.find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Settings::from_environment(&lookup)
    }

    const DIRECTORY: (&str, &str) = ("VPN_STATE_DIR", "/s");

    #[test]
    fn the_mode_is_found_out_unless_it_is_said() {
        let mode = |text| settings(&[DIRECTORY, ("GATEWAY_MODE", text)]).map(|found| found.mode);
        assert!(matches!(settings(&[DIRECTORY]).unwrap().mode, Mode::Auto));
        assert!(matches!(mode("").unwrap(), Mode::Auto));
        assert!(matches!(mode("raw").unwrap(), Mode::Raw));
        assert!(matches!(mode("socket").unwrap(), Mode::Socket));
        let wrong = mode("RAW").unwrap_err().to_string();
        assert!(wrong.contains("auto, kernel, raw or socket"), "{wrong}");
    }

    #[test]
    fn kernel_mode_is_asked_for_by_name_and_needs_its_script() {
        let kernel = ("GATEWAY_MODE", "kernel");
        assert!(settings(&[DIRECTORY, kernel]).is_err());
        let script = ("KERNEL_PATH", "/usr/local/bin/kernel-path.sh");
        let Mode::Kernel(found) = settings(&[DIRECTORY, kernel, script]).unwrap().mode else {
            panic!("not kernel mode");
        };
        assert_eq!(found.run_dir, PathBuf::from("/run/popup-gateway"));
        let auto = settings(&[DIRECTORY, script]).unwrap().mode;
        assert!(matches!(auto, Mode::Auto));
    }

    #[test]
    fn raw_mode_is_tested_against_the_documents_account_unless_something_is_said() {
        let account = [
            (
                "STORAGE_ACCOUNT_URL",
                "https://popup.blob.core.windows.net/",
            ),
            ("AZURE_CLIENT_ID", "me"),
        ];
        let target = |more: &[(&str, &str)]| {
            let found = settings(&[more, &account[..]].concat());
            found.map(|settings| settings.probe_target)
        };
        let of = |host: &str, port| {
            let host = host.to_owned();
            Some(ProbeTarget { host, port })
        };
        let default = target(&[]).unwrap();
        assert_eq!(default, of("popup.blob.core.windows.net", 443));
        let said = ("RAW_PROBE_TARGET", "192.0.2.1:8443");
        assert_eq!(target(&[said]).unwrap(), of("192.0.2.1", 8443));
        assert_eq!(settings(&[DIRECTORY]).unwrap().probe_target, None);
        for wrong in ["example.com", ":443", "x:0", "[::1]:443", "https://x:443"] {
            let error = target(&[("RAW_PROBE_TARGET", wrong)]).unwrap_err();
            assert!(error.to_string().contains("RAW_PROBE_TARGET"), "{wrong}");
        }
    }
}
