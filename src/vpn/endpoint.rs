//! The host part of a client's `Endpoint`: a parsed address or DNS name, never a caller's text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where clients send their datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A DNS name, in the letters, digits and hyphens of RFC 1123, section 2.1.
    Name(String),
}

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address or a DNS name such as vpn.example.org, without port or scheme")]
pub struct HostError;

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        // All digits and dots is a mistyped address, which resolvers read in surprising ways.
        let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let valid = (1..=253).contains(&text.len()) && !numeric && text.split('.').all(label);
        if valid {
            Ok(Self::Name(text.to_ascii_lowercase()))
        } else {
            Err(HostError)
        }
    }
}

impl Host {
    /// `host:port`, with brackets where the host is an IPv6 address.
    pub fn with_port(&self, port: u16) -> String {
        match self {
            Self::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
            Self::Name(name) => format!("{name}:{port}"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        let endpoint = |text: &str| text.parse::<Host>().unwrap().with_port(51820);
        assert_eq!(endpoint("203.0.113.7"), "203.0.113.7:51820");
        assert_eq!(endpoint("2001:db8::1"), "[2001:db8::1]:51820");
        assert_eq!(endpoint("VPN.example.org"), "vpn.example.org:51820");
    }

    #[test]
    fn what_could_leave_its_line_is_refused() {
        let long = "a.".repeat(200);
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a\nPostUp=x",
            "a:1",
            "http://a",
            "[::1]",
            "1.2.3",
            "a/b",
            "é.org",
            "a%b",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<Host>(), Err(HostError), "{text:?}");
        }
    }
}
