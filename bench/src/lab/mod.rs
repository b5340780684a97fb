//! Three machines and two cables.
//!
//! ```text
//!  [client] 198.51.100.2 ─(relay)─ 198.51.100.1 [server] 203.0.113.1 ── 203.0.113.10-25 [internet]
//! ```
//!
//! The relay is there only for rows with a delay. The server's cores run the server and its
//! cards' threads, and nothing else of the bench.

pub(crate) mod cable;
pub(crate) mod cores;
mod namespace;
mod relay;

use std::net::Ipv4Addr;
use std::path::Path as FilePath;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

pub(crate) use cable::Path;
pub(crate) use cores::Cores;
pub(crate) use namespace::Namespace;
pub(crate) use relay::Impairment;

use cable::End;

/// The server's address on the client's side.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The server's WireGuard port.
pub(crate) const PORT: u16 = 51820;

/// The internet's addresses: enough of them for more flows than one has ports.
pub(crate) const ENDPOINTS: u8 = 16;

/// The internet's address number `index`.
pub(crate) fn endpoint(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 10 + (index % usize::from(ENDPOINTS)) as u8)
}

/// How a lab is built.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) cores: Cores,
    pub(crate) path: Path,
    /// What both ends of a TCP connection use, by name.
    pub(crate) congestion: String,
}

/// What the server's TCP uses towards the internet, should it have one: `wanted`, where a namespace
/// may have it (ip-sysctl, `tcp_allowed_congestion_control`), or else reno, which all may have.
pub(crate) fn server_congestion(wanted: &str) -> &str {
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let allowed = std::fs::read_to_string(ALLOWED).unwrap_or_default();
    if allowed.split_whitespace().any(|name| name == wanted) {
        wanted
    } else {
        "reno"
    }
}

/// The lab.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) plan: Plan,
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) internet: Namespace,
    /// The threads that receive for the server.
    pub(crate) server_nics: Vec<u32>,
    /// The threads that receive for the client and the internet.
    pub(crate) neighbour_nics: Vec<u32>,
    /// The server's device towards the internet.
    pub(crate) outside: String,
    relay: Option<relay::Relay>,
    directory: TempDir,
}

impl Lab {
    /// A lab; with an impairment, between the client and the server.
    pub(crate) fn new(plan: &Plan, impairment: Option<Impairment>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(&format!("{DIRECTORY}{}-", std::process::id()))
            .tempdir()?;
        make_public(directory.path())?;
        let (client, internet) = (Namespace::new("")?, Namespace::new("")?);
        // Of a system whose own is bbr, a relaying server would pay for timers.
        let server = Namespace::new(&format!(
            "echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
             echo {} >/proc/sys/net/ipv4/tcp_congestion_control",
            server_congestion(&plan.congestion)
        ))?;
        // The threads of the cards are named after them, for the whole machine to see.
        let name = |end: &str| format!("pb{:x}{end}", std::process::id());
        let (of_client, inside) = (name("c"), name("s"));
        let (outside, of_internet) = (name("o"), name("i"));

        let relay = match impairment {
            None => {
                client.connect(&of_client, &server, &inside)?;
                None
            }
            Some(impairment) => {
                let wire = Namespace::new("")?;
                client.connect(&of_client, &wire, "left")?;
                server.connect(&inside, &wire, "right")?;
                for device in ["left", "right"] {
                    cable::plug_into_relay(&wire, device, &plan.cores.client)?;
                }
                Some(relay::Relay::start(wire, impairment)?)
            }
        };
        server.connect(&outside, &internet, &of_internet)?;

        let plugs = [
            (&server, &inside, End::Server, &plan.cores.server),
            (&server, &outside, End::Server, &plan.cores.server),
            (&client, &of_client, End::Neighbour, &plan.cores.client),
            (
                &internet,
                &of_internet,
                End::Neighbour,
                &plan.cores.internet,
            ),
        ];
        let (mut server_nics, mut neighbour_nics) = (Vec::new(), Vec::new());
        for (namespace, device, end, cores) in plugs {
            let relayed = relay.is_some() && (*device == inside || *device == of_client);
            let kind = if relayed { End::ToRelay } else { end };
            let thread = cable::plug_in(namespace, device, plan.path, kind, cores)?;
            match end {
                End::Server => server_nics.push(thread),
                _ => neighbour_nics.push(thread),
            }
        }
        client.shell(&format!("ip address add 198.51.100.2/24 dev {of_client}"))?;
        server.shell(&format!(
            "ip address add {SERVER}/24 dev {inside}
             ip address add 203.0.113.1/24 dev {outside}
             ip route add default via {}",
            endpoint(0)
        ))?;
        for index in 0..usize::from(ENDPOINTS) {
            let address = endpoint(index);
            internet.shell(&format!("ip address add {address}/24 dev {of_internet}"))?;
        }
        Ok(Self {
            plan: plan.clone(),
            client,
            server,
            internet,
            server_nics,
            neighbour_nics,
            outside,
            relay,
            directory,
        })
    }

    /// A directory that everybody can read.
    pub(crate) fn directory(&self) -> &FilePath {
        self.directory.path()
    }

    /// Whether there is a delay.
    pub(crate) fn has_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// Frames that the relay was too slow for.
    pub(crate) fn lost_by_relay(&self) -> u64 {
        self.relay.as_ref().map_or(0, relay::Relay::lost)
    }
}

/// The beginning of the names of the labs' directories; the bench's process number follows.
const DIRECTORY: &str = "popup-bench-";

/// Removes what benches that were killed have left. Their boxes are gone with them.
pub(crate) fn sweep() -> Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok())
            && !FilePath::new(&format!("/proc/{owner}")).exists()
        {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn make_public(directory: &FilePath) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(
        directory,
        std::fs::Permissions::from_mode(0o755),
    )?)
}

/// Asks again and again until there is an answer. `what` is for the error when patience ends.
pub(crate) fn eventually<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> Result<T> {
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        anyhow::ensure!(
            begun.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
