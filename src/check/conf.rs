//! A client's `.conf`, read as strictly as the strictest app reads it.
//!
//! Invariant: no error and no `Debug` output repeats a value from the file, because any line of it
//! may hold a key.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use popup_model::{DEFAULT_MTU, KeyError, PresharedKey, PrivateKey, PublicKey};

/// Smallest MTU that IPv4 hosts must handle (RFC 791, section 3.1).
const SMALLEST_MTU: u16 = 576;

/// What a client's file says, as far as a check needs it.
#[derive(Debug)]
pub(super) struct Conf {
    /// Absent when the peer's private key never left its device.
    pub(super) private_key: Option<PrivateKey>,
    /// The first IPv4 address.
    pub(super) address: Ipv4Net,
    /// Name servers; search domains are left out.
    pub(super) dns: Vec<IpAddr>,
    /// The tunnel's MTU.
    pub(super) mtu: u16,
    /// The gateway's key.
    pub(super) public_key: PublicKey,
    /// The key that both sides mix in.
    pub(super) preshared_key: Option<PresharedKey>,
    /// What goes through the tunnel.
    pub(super) allowed_ips: Vec<IpNet>,
    /// Where the gateway is.
    pub(super) endpoint: Endpoint,
}

impl Conf {
    /// Whether a client with this file would send packets for `address` through the tunnel.
    pub(super) fn routes(&self, address: Ipv4Addr) -> bool {
        self.allowed_ips
            .iter()
            .any(|net| net.contains(&IpAddr::V4(address)))
    }

    /// The gateway's tunnel address: the first one of the address's network. Files give a peer its
    /// address as a /32, so the network is taken to be a /24 then, which it is by default.
    pub(super) fn gateway(&self) -> Option<Ipv4Addr> {
        let prefix = if self.address.prefix_len() > 30 {
            24
        } else {
            self.address.prefix_len()
        };
        let network = Ipv4Net::new_assert(self.address.addr(), prefix).trunc();
        let gateway = Ipv4Addr::from_bits(network.addr().to_bits().wrapping_add(1));
        (gateway != self.address.addr() && self.routes(gateway)).then_some(gateway)
    }
}

/// `host:port`, the host a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// UDP port.
    pub(super) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = Problem::Value("Endpoint", "host:port, an IPv6 address in brackets");
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(wrong);
        };
        let Some(port) = port.parse().ok().filter(|port| *port != 0) else {
            return Err(wrong);
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let valid = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                (1..=253).contains(&host.len())
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        if !valid {
            return Err(wrong);
        }
        Ok(Self {
            host: bracketed.unwrap_or(host).to_owned(),
            port,
        })
    }
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfError {
    /// One line is not right.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        problem: Problem,
    },
    /// Something every file has is not there.
    #[error("the file has no {0} line, so it is not a client's configuration")]
    Missing(&'static str),
    /// Only IPv6 addresses.
    #[error("the file has no IPv4 address in its Address line; the check works over IPv4")]
    NoIpv4Address,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// Neither a section, nor `Key = value`, nor a comment.
    #[error("neither [Interface], [Peer], `Key = value` nor a # comment")]
    Malformed,
    /// A key the apps do not know.
    #[error("unknown key {0} in [{1}]; the WireGuard apps refuse the whole file because of it")]
    UnknownKey(String, &'static str),
    /// A key before the first section.
    #[error("a key before the first [section]")]
    NoSection,
    /// A second section of the same name.
    #[error("a second [{0}]; the check follows one")]
    SecondSection(&'static str),
    /// A key twice.
    #[error("{0} for the second time")]
    Twice(&'static str),
    /// Nothing after the `=`.
    #[error("{0} has no value; the WireGuard apps refuse the whole file because of it")]
    Empty(String),
    /// A value of the wrong form.
    #[error("{0} must be {1}")]
    Value(&'static str, &'static str),
    /// A value that is no key.
    #[error("{0}: {1}")]
    Key(&'static str, KeyError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Interface,
    Peer,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Interface => "Interface",
            Self::Peer => "Peer",
        }
    }
}

#[derive(Default)]
struct Draft {
    private_key: Option<PrivateKey>,
    addresses: Vec<IpNet>,
    dns: Vec<IpAddr>,
    mtu: Option<u16>,
    public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    allowed_ips: Vec<IpNet>,
    endpoint: Option<Endpoint>,
}

impl FromStr for Conf {
    type Err = ConfError;

    fn from_str(text: &str) -> Result<Self, ConfError> {
        let mut draft = Draft::default();
        let mut section = None;
        let mut sections_seen = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let outcome = match line.to_ascii_lowercase().as_str() {
                "[interface]" => enter(Section::Interface, &mut sections_seen).map(Some),
                "[peer]" => enter(Section::Peer, &mut sections_seen).map(Some),
                _ => draft.take(section, line).map(|()| section),
            };
            section = outcome.map_err(|problem| ConfError::Line {
                line: index + 1,
                problem,
            })?;
        }
        draft.finish()
    }
}

fn enter(section: Section, seen: &mut Vec<Section>) -> Result<Section, Problem> {
    if seen.contains(&section) {
        return Err(Problem::SecondSection(section.name()));
    }
    seen.push(section);
    Ok(section)
}

impl Draft {
    fn take(&mut self, section: Option<Section>, line: &str) -> Result<(), Problem> {
        let (key, value) = line.split_once('=').ok_or(Problem::Malformed)?;
        let (key, value) = (key.trim(), value.trim());
        // A WireGuard key that lost its name is 43 such characters before its `=`: not to be shown.
        if key.is_empty() || key.len() > 32 || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Problem::Malformed);
        }
        let section = section.ok_or(Problem::NoSection)?;
        if value.is_empty() {
            return Err(Problem::Empty(key.to_owned()));
        }
        match (section, key.to_ascii_lowercase().as_str()) {
            (Section::Interface, "privatekey") => once(
                &mut self.private_key,
                "PrivateKey",
                secret("PrivateKey", value)?,
            ),
            (Section::Interface, "address") => {
                self.addresses.extend(list(value, "Address", parse_net)?);
                Ok(())
            }
            (Section::Interface, "dns") => {
                // Anything else in this line is a search domain.
                self.dns.extend(
                    value
                        .split(',')
                        .filter_map(|text| text.trim().parse::<IpAddr>().ok()),
                );
                Ok(())
            }
            (Section::Interface, "mtu") => {
                let mtu = value.parse().ok().filter(|mtu| *mtu >= SMALLEST_MTU);
                once(
                    &mut self.mtu,
                    "MTU",
                    mtu.ok_or(Problem::Value("MTU", "a number from 576 to 65535"))?,
                )
            }
            (
                Section::Interface,
                "listenport" | "excludedapplications" | "includedapplications",
            ) => Ok(()),
            (Section::Peer, "publickey") => once(
                &mut self.public_key,
                "PublicKey",
                secret("PublicKey", value)?,
            ),
            (Section::Peer, "presharedkey") => once(
                &mut self.preshared_key,
                "PresharedKey",
                secret("PresharedKey", value)?,
            ),
            (Section::Peer, "allowedips") => {
                self.allowed_ips
                    .extend(list(value, "AllowedIPs", parse_net)?);
                Ok(())
            }
            (Section::Peer, "endpoint") => once(&mut self.endpoint, "Endpoint", value.parse()?),
            (Section::Peer, "persistentkeepalive") => {
                let valid = value.eq_ignore_ascii_case("off") || value.parse::<u16>().is_ok();
                let wrong =
                    Problem::Value("PersistentKeepalive", "off, or seconds from 0 to 65535");
                if valid { Ok(()) } else { Err(wrong) }
            }
            (section, _) => Err(Problem::UnknownKey(key.to_owned(), section.name())),
        }
    }

    fn finish(self) -> Result<Conf, ConfError> {
        if self.addresses.is_empty() {
            return Err(ConfError::Missing("Address"));
        }
        let address = self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        });
        if self.allowed_ips.is_empty() {
            return Err(ConfError::Missing("AllowedIPs"));
        }
        Ok(Conf {
            private_key: self.private_key,
            address: address.ok_or(ConfError::NoIpv4Address)?,
            dns: self.dns,
            mtu: self.mtu.unwrap_or(DEFAULT_MTU),
            public_key: self.public_key.ok_or(ConfError::Missing("PublicKey"))?,
            preshared_key: self.preshared_key,
            allowed_ips: self.allowed_ips,
            endpoint: self.endpoint.ok_or(ConfError::Missing("Endpoint"))?,
        })
    }
}

fn once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), Problem> {
    if slot.is_some() {
        return Err(Problem::Twice(key));
    }
    *slot = Some(value);
    Ok(())
}

fn secret<T: FromStr<Err = KeyError>>(key: &'static str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|error| Problem::Key(key, error))
}

fn list<T>(
    value: &str,
    key: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<Vec<T>, Problem> {
    let wrong = Problem::Value(key, "addresses with prefix lengths, separated by commas");
    value
        .split(',')
        .map(|text| parse(text.trim()))
        .collect::<Option<_>>()
        .ok_or(wrong)
}

fn parse_net(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
#[path = "conf/tests.rs"]
mod tests;
