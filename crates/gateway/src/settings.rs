//! Settings from the environment.

mod mode;
mod storage;

use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use popup_gateway_core::{EgressPolicy, Shard};
use popup_model::{LeaseId, Region};

pub(crate) use mode::{KernelSettings, Mode, ProbeTarget};
pub(crate) use storage::{BlobAccess, BlobSettings, StorageSettings};

/// What the gateway is told when it is started.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) region: Region,
    pub(crate) storage: StorageSettings,
    pub(crate) lease_id: LeaseId,
    pub(crate) lease_expires_at: Timestamp,
    pub(crate) interface: String,
    pub(crate) policy: EgressPolicy,
    pub(crate) peer_to_peer: bool,
    /// Where to put the UAPI socket; none when unset.
    pub(crate) uapi_dir: Option<PathBuf>,
    /// How packets are to leave.
    pub(crate) mode: Mode,
    /// What `raw` mode is tested against; the account of the documents when it is not said.
    pub(crate) probe_target: Option<ProbeTarget>,
    /// Packet loops: as many as processors, unless it is said.
    pub(crate) threads: usize,
}

/// Everything that is wrong with the environment.
#[derive(Debug, thiserror::Error)]
#[error("the environment cannot be used: {}", .0.join("; "))]
pub(crate) struct SettingsError(Vec<String>);

impl Settings {
    pub(crate) fn from_environment(
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut problems = Vec::new();
        let mut reader = Reader {
            environment,
            problems: &mut problems,
        };
        let region = reader.parsed::<Region>("REGION", Some("local"));
        let storage = reader.storage();
        let lease_id = reader.parsed::<LeaseId>("LEASE_ID", None);
        let lease_expires_at = reader.parsed::<Timestamp>("LEASE_EXPIRES_AT", None);
        let interface = reader.interface();
        let policy = reader.policy();
        let peer_to_peer = reader.parsed::<bool>("PEER_TO_PEER", Some("false"));
        let mode = reader.mode();
        let probe_target = reader.probe_target(storage.as_ref());
        let threads = reader.threads();
        let uapi_dir = (reader.environment)("WG_UAPI_DIR")
            .filter(|text| !text.is_empty())
            .map(PathBuf::from);
        match (
            region,
            storage,
            lease_id,
            lease_expires_at,
            interface,
            policy,
            peer_to_peer,
            mode,
            threads,
        ) {
            (
                Some(region),
                Some(storage),
                Some(lease_id),
                Some(lease_expires_at),
                Some(interface),
                Some(policy),
                Some(peer_to_peer),
                Some(mode),
                Some(threads),
            ) if problems.is_empty() => Ok(Self {
                region,
                storage,
                lease_id,
                lease_expires_at,
                interface,
                policy,
                peer_to_peer,
                uapi_dir,
                mode,
                probe_target,
                threads,
            }),
            _ => Err(SettingsError(problems)),
        }
    }
}

impl Settings {
    /// The directory that the gateway reads and writes, if there is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match &self.storage {
            StorageSettings::Directory(directory) => Some(directory),
            StorageSettings::Blob(blob) => blob.key_dir.as_deref(),
        }
    }
}

struct Reader<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn required(&mut self, name: &str) -> Option<String> {
        let value = (self.environment)(name).filter(|text| !text.is_empty());
        if value.is_none() {
            self.problems.push(format!("{name} is not set"));
        }
        value
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
        default: Option<&str>,
    ) -> Option<T> {
        let text = match default {
            Some(default) => (self.environment)(name)
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| default.to_owned()),
            None => self.required(name)?,
        };
        text.parse()
            .map_err(|error| self.problems.push(format!("{name}: {error}")))
            .ok()
    }

    /// A container's share of the processors counts, where it has one.
    fn threads(&mut self) -> Option<usize> {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match (self.environment)("GATEWAY_THREADS").as_deref() {
            None | Some("" | "auto") => Some(all.min(Shard::MAX)),
            Some(text) => text
                .parse()
                .ok()
                .filter(|threads| (1..=Shard::MAX).contains(threads)),
        };
        if threads.is_none() {
            let most = Shard::MAX;
            self.problems
                .push(format!("GATEWAY_THREADS: auto, or 1 to {most}"));
        }
        threads
    }

    /// The interface's name becomes a file name; Linux allows 15 characters.
    fn interface(&mut self) -> Option<String> {
        let name = (self.environment)("SERVER_INTERFACE").unwrap_or_else(|| "wg0".to_owned());
        if name.parse::<popup_model::PeerName>().is_ok() {
            return Some(name);
        }
        self.problems
            .push("SERVER_INTERFACE: 1 to 15 of the characters a-z A-Z 0-9 _ = + . -".to_owned());
        None
    }

    fn policy(&mut self) -> Option<EgressPolicy> {
        let text = (self.environment)("EGRESS_ALLOW").unwrap_or_default();
        let networks: Result<Vec<Ipv4Net>, _> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect();
        let policy = networks
            .map_err(|_| {
                "EGRESS_ALLOW: a comma-separated list of IPv4 networks such as 10.1.0.0/16"
                    .to_owned()
            })
            .and_then(|networks| EgressPolicy::new(networks).map_err(|error| error.to_string()));
        policy.map_err(|problem| self.problems.push(problem)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changes: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let lease = "0123456789abcdef0123456789abcdef";
        let base = [
            ("VPN_STATE_DIR", "/s"),
            ("LEASE_ID", lease),
            ("LEASE_EXPIRES_AT", "2026-01-02T03:04:05Z"),
        ];
        let lookup = |name: &str| {
            let all = changes.iter().chain(&base);
            all.clone()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Settings::from_environment(&lookup)
    }

    #[test]
    fn defaults_are_enough_beside_the_lease() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.region.as_str(), "local");
        assert_eq!(settings.interface, "wg0");
        assert!(!settings.peer_to_peer && settings.uapi_dir.is_none());
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let error = settings(&[
            ("LEASE_ID", "x"),
            ("EGRESS_ALLOW", "169.254.0.0/16"),
            ("GATEWAY_MODE", "fast"),
        ]);
        let text = error.unwrap_err().to_string();
        for name in ["LEASE_ID", "EGRESS_ALLOW", "GATEWAY_MODE"] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn there_are_as_many_loops_as_processors_unless_it_is_said() {
        assert!(settings(&[]).unwrap().threads >= 1);
        assert_eq!(settings(&[("GATEWAY_THREADS", "3")]).unwrap().threads, 3);
        for wrong in ["0", "17", "many"] {
            assert!(settings(&[("GATEWAY_THREADS", wrong)]).is_err());
        }
    }

    #[test]
    fn an_interface_name_cannot_be_a_path() {
        assert!(settings(&[("SERVER_INTERFACE", "../x")]).is_err());
    }
}
