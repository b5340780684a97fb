//! Settings, from the environment.
//!
//! All variables are read here and nowhere else, through a function, so that tests never touch
//! the process's own environment. Every problem is found in one go: whoever corrects a function
//! app's settings should not have to restart it once for each.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv4Net;
use popup_gateway_core::{EgressPolicy, Shard};
use popup_model::{DEFAULT_PORT, Region, TunnelNetworks};

use crate::vpn::{Host, Options};

mod azure;
mod group;

pub use azure::{AzureSettings, CredentialSettings, StorageAccess, StorageSettings};
pub use group::{AzureFiles, GatewayIdentity, GroupSettings, LogAnalytics};

/// The longest wait that still leaves time to answer: Azure ends an HTTP call after 230 s.
const MAX_START_WAIT_S: u64 = 225;

/// What the handler is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port on 127.0.0.1; 0 for any that is free, which the log then names.
    pub port: u16,
    /// Whether the Functions host started this process.
    pub under_functions: bool,
    /// Whether requests come from Azure's front end rather than from this machine.
    pub hosted: bool,
    /// How to log.
    pub log: LogSettings,
    /// What the control plane needs.
    pub vpn: Options,
    /// Where gateways run.
    pub backend: BackendSettings,
}

/// Where gateways run, and what is needed there.
#[derive(Debug, Clone)]
pub enum BackendSettings {
    /// On this machine.
    Local(LocalSettings),
    /// In Azure.
    Azure(Box<AzureSettings>),
}

/// How to log. Known even when the rest of the settings is wrong.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// One JSON object per line.
    pub json: bool,
}

/// What the local backend needs.
#[derive(Debug, Clone)]
pub struct LocalSettings {
    /// Where the documents are.
    pub state_dir: PathBuf,
    /// The host in `Endpoint`; the machine's outward address when absent.
    pub host: Option<Host>,
    /// The gateway's program; beside this one when absent.
    pub gateway: Option<PathBuf>,
    /// Variables for the gateway, each checked and with its value.
    pub passed_on: Vec<(&'static str, String)>,
}

/// Settings that cannot work, with the cure for each.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .problems.join("; "))]
pub struct SettingsError {
    /// One sentence each.
    pub problems: Vec<String>,
    /// The port to answer on nevertheless.
    pub port: u16,
    /// Whether the Functions host started this process: then it must not exit.
    pub under_functions: bool,
    /// As in [`Settings`].
    pub hosted: bool,
    /// As in [`Settings`].
    pub log: LogSettings,
}

/// Reads one variable; empty counts as unset.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

struct Reader<'a> {
    lookup: Lookup<'a>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    }

    fn parse<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error| self.problem(name, error)).ok()
    }

    fn problem(&mut self, name: &str, cure: impl fmt::Display) {
        self.problems.push(format!("{name}: {cure}"));
    }

    fn port(&mut self, name: &str, default: u16) -> u16 {
        match self.text(name).map(|text| text.parse::<u16>()) {
            None => default,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => {
                self.problem(name, "must be a port number from 1 to 65535");
                default
            }
        }
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(name)?);
        // U+FFFD stands for what was no UTF-8.
        if path.is_absolute() && !path.display().to_string().contains('\u{FFFD}') {
            return Some(path);
        }
        self.problem(name, "must be an absolute path, in UTF-8");
        None
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.text(name)?.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => {
                self.problem(name, "must be true or false");
                None
            }
        }
    }
}

impl Settings {
    /// Reads and checks everything.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut reader = Reader {
            lookup,
            problems: Vec::new(),
        };
        // FUNCTIONS_CUSTOMHANDLER_PORT proves nothing: people set it to choose the port. The
        // worker id is set by the Functions host alone, and the runtime's name in its settings.
        let under_functions = reader.text("FUNCTIONS_WORKER_RUNTIME").is_some()
            || reader.text("FUNCTIONS_CUSTOMHANDLER_WORKER_ID").is_some();
        // The Core Tools on a developer's machine check no function keys and can be reached from
        // any web page there. So only where Azure runs the host may a request have another Host
        // than this machine's. Dedicated plans set WEBSITE_INSTANCE_ID; Flex Consumption has
        // LEGION_SERVICE_HOST (azure-functions-host, EnvironmentExtensions.cs).
        let hosted = under_functions
            && ["WEBSITE_INSTANCE_ID", "LEGION_SERVICE_HOST"]
                .iter()
                .any(|name| reader.text(name).is_some())
            && reader.text("AZURE_FUNCTIONS_ENVIRONMENT").as_deref() != Some("Development");
        let port = match reader.text("FUNCTIONS_CUSTOMHANDLER_PORT").as_deref() {
            Some("0") => 0,
            _ => reader.port("FUNCTIONS_CUSTOMHANDLER_PORT", 7071),
        };
        let log = log_settings(&mut reader, under_functions);
        let azure = is_azure(&mut reader);
        let vpn = options(&mut reader, azure);
        let backend = match azure {
            true => AzureSettings::read(&mut reader)
                .map(|azure| BackendSettings::Azure(Box::new(azure))),
            false => local_settings(&mut reader).map(BackendSettings::Local),
        };
        check_combinations(&mut reader, vpn.as_ref(), backend.as_ref(), hosted);
        match (vpn, backend) {
            (Some(vpn), Some(backend)) if reader.problems.is_empty() => Ok(Self {
                port,
                under_functions,
                hosted,
                log,
                vpn,
                backend,
            }),
            _ => Err(SettingsError {
                problems: reader.problems,
                port,
                under_functions,
                hosted,
                log,
            }),
        }
    }
}

/// What is right alone and wrong together.
fn check_combinations(
    reader: &mut Reader<'_>,
    vpn: Option<&Options>,
    backend: Option<&BackendSettings>,
    hosted: bool,
) {
    let Some(BackendSettings::Azure(azure)) = backend else {
        return;
    };
    if azure.group.files.is_some() && vpn.is_some_and(|vpn| vpn.regions.len() > 1) {
        let cure = "one region can have its key on a share: name one in REGIONS, or leave the \
                    key in Blob Storage";
        reader.problem("AZURE_FILES_SHARE", cure);
    }
    if hosted && matches!(azure.credential, CredentialSettings::DeveloperTools) {
        let cure = "is not there: assign an identity to the function app, and set \
                    AZURE_CLIENT_ID to its client id";
        reader.problem("IDENTITY_ENDPOINT", cure);
    }
}

fn log_settings(reader: &mut Reader<'_>, under_functions: bool) -> LogSettings {
    let json = match reader.text("LOG_FORMAT").as_deref() {
        None => under_functions,
        Some("json") => true,
        Some("text") => false,
        Some(_) => {
            reader.problem("LOG_FORMAT", "must be text or json");
            under_functions
        }
    };
    let mut filter = reader.text("RUST_LOG").unwrap_or_else(|| "info".to_owned());
    if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
        reader.problem(
            "RUST_LOG",
            "must be a filter such as info or popup_vpn=debug,info",
        );
        "info".clone_into(&mut filter);
    }
    LogSettings { filter, json }
}

fn is_azure(reader: &mut Reader<'_>) -> bool {
    match reader.text("VPN_BACKEND").as_deref() {
        None => reader.text("SUBSCRIPTION_ID").is_some(),
        Some("azure") => true,
        Some("local") => false,
        Some(_) => {
            reader.problem("VPN_BACKEND", "must be local or azure");
            false
        }
    }
}

fn options(reader: &mut Reader<'_>, azure: bool) -> Option<Options> {
    let network = reader
        .parse::<Ipv4Net>("SERVER_NETWORK")
        .unwrap_or_else(|| Ipv4Net::new_assert([10, 8, 0, 0].into(), 24));
    if let Err(error) = TunnelNetworks::with_random_ula(network) {
        reader.problem("SERVER_NETWORK", error);
    }
    let default = if azure { "" } else { "local" };
    let regions = reader.text("REGIONS").unwrap_or_else(|| default.to_owned());
    let regions: Result<Vec<Region>, _> = list(&regions).map(str::parse).collect();
    let mut seen = HashSet::new();
    let regions = regions.map(|mut regions| {
        regions.retain(|region: &Region| seen.insert(region.clone()));
        regions
    });
    let regions = match regions {
        Ok(regions) if azure && regions.iter().any(|region| region.as_str().contains('-')) => {
            let cure = "must be Azure's names of regions, such as northeurope";
            reader.problem("REGIONS", cure);
            None
        }
        Ok(regions) if !regions.is_empty() => Some(regions),
        Ok(_) => {
            reader.problem(
                "REGIONS",
                "must name at least one region, such as northeurope",
            );
            None
        }
        Err(error) => {
            reader.problem("REGIONS", error);
            None
        }
    };
    let ports = match azure {
        true => azure::ports(reader),
        false => vec![reader.port("VPN_PORT", DEFAULT_PORT)],
    };
    let start_wait = reader.parse("START_WAIT_SECONDS").unwrap_or(200);
    if !(1..=MAX_START_WAIT_S).contains(&start_wait) {
        reader.problem(
            "START_WAIT_SECONDS",
            format_args!("must be from 1 to {MAX_START_WAIT_S}"),
        );
    }
    Some(Options {
        regions: regions?,
        network: network.trunc(),
        ports,
        start_wait: Duration::from_secs(start_wait),
        stop_wait: Duration::from_secs(if azure { 90 } else { 20 }),
        apply_wait: Duration::from_secs(10),
        poll: Duration::from_millis(if azure { 2000 } else { 100 }),
        operation_time: Duration::from_secs(if azure { 120 } else { 30 }),
    })
}

fn local_settings(reader: &mut Reader<'_>) -> Option<LocalSettings> {
    let host = reader.parse("VPN_ENDPOINT_HOST");
    let gateway = reader.path("POPUP_GATEWAY");
    let passed_on = passed_on(reader);
    let state_dir = reader.path("VPN_STATE_DIR").or_else(|| {
        let state_home = reader.text("XDG_STATE_HOME").map(PathBuf::from);
        let home = reader
            .text("HOME")
            .map(|home| PathBuf::from(home).join(".local/state"));
        let base = state_home.filter(|path| path.is_absolute()).or(home)?;
        Some(base.join("popup-vpn"))
    });
    if state_dir.is_none() {
        reader.problem("VPN_STATE_DIR", "must name a directory, as HOME is not set");
    }
    Some(LocalSettings {
        state_dir: state_dir?,
        host,
        gateway,
        passed_on,
    })
}

/// What the gateway reads itself; checked here, so that a mistake shows before anything starts.
fn passed_on(reader: &mut Reader<'_>) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    let interface = reader
        .text("SERVER_INTERFACE")
        .unwrap_or_else(|| "wg0".to_owned());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    let dots = interface.bytes().all(|b| b == b'.');
    if interface.len() > 15 || dots || !interface.bytes().all(plain) {
        let cure = "must be 1 to 15 of the characters a-z A-Z 0-9 _ = + . -, as wg0";
        reader.problem("SERVER_INTERFACE", cure);
    }
    variables.push(("SERVER_INTERFACE", interface));
    if let Some(text) = reader.text("EGRESS_ALLOW") {
        match egress_allowed(&text) {
            Ok(nets) => variables.push(("EGRESS_ALLOW", nets)),
            Err(problem) => reader.problem("EGRESS_ALLOW", problem),
        }
    }
    if let Some(allowed) = reader.boolean("PEER_TO_PEER") {
        variables.push(("PEER_TO_PEER", allowed.to_string()));
    }
    if let Some(path) = reader.path("WG_UAPI_DIR") {
        variables.push(("WG_UAPI_DIR", path.display().to_string()));
    }
    let mut pass_on =
        |name: &'static str, valid: fn(&str) -> bool, cure: &str| match reader.text(name) {
            Some(text) if valid(&text) => variables.push((name, text)),
            Some(_) => reader.problem(name, cure),
            None => {}
        };
    pass_on(
        "GATEWAY_MODE",
        |text| matches!(text, "auto" | "raw" | "socket" | "kernel"),
        "must be auto, raw, socket or kernel",
    );
    pass_on(
        "GATEWAY_THREADS",
        |text| text == "auto" || text.parse().is_ok_and(|n| (1..=Shard::MAX).contains(&n)),
        "must be auto, or the number of processors to use, from 1 to 16",
    );
    pass_on(
        "RAW_PROBE_TARGET",
        is_probe_target,
        "must be a name or IPv4 address with a port, such as storage.example.com:443",
    );
    if let Some(text) = reader.text("PATH") {
        variables.push(("PATH", text));
    }
    variables
}

fn is_probe_target(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let ipv6 = host.contains(':');
        !ipv6 && host.parse::<Host>().is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// The networks as the gateway reads them, if it takes all of them.
fn egress_allowed(text: &str) -> Result<String, String> {
    let network = |text: &str| {
        let address = || text.parse::<Ipv4Addr>().map(Ipv4Net::from);
        text.parse::<Ipv4Net>().or_else(|_| address())
    };
    let nets: Result<Vec<Ipv4Net>, _> = list(text).map(network).collect();
    let nets = nets.map_err(
        |_| "must be IPv4 networks such as 192.168.1.0/24,10.1.2.3; nothing else has a way out",
    )?;
    let nets: Vec<Ipv4Net> = nets.iter().map(Ipv4Net::trunc).collect();
    EgressPolicy::new(nets.clone()).map_err(|error| error.to_string())?;
    let nets: Vec<String> = nets.iter().map(Ipv4Net::to_string).collect();
    Ok(nets.join(","))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' '])
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests;
