//! What is to be fetched through the tunnel.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hyper::Uri;

/// Small, near everywhere, and it tells the address from which it was asked.
pub(super) const DEFAULT_URL: &str = "https://www.cloudflare.com/cdn-cgi/trace";

/// An `http` or `https` URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The server.
    pub(super) host: Host,
    /// Its port.
    pub(super) port: u16,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
    /// What the `Host` header says.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

/// A server's name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// To be asked of the name server.
    Name(String),
    /// As it is.
    Address(Ipv4Addr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Why a text is not a URL that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    /// Not an absolute http or https URL.
    #[error("--url must be like http://host/path or https://host/path, without a user name")]
    Malformed,
    /// The tunnel's traffic is IPv4.
    #[error("--url names an IPv6 address; the check works over IPv4")]
    Ipv6,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::Malformed)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(TargetError::Malformed),
        };
        let authority = uri.authority().ok_or(TargetError::Malformed)?;
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(TargetError::Malformed);
        }
        if host.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
            return Err(TargetError::Ipv6);
        }
        let host = host
            .parse()
            .map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_taken_apart() {
        let target: Target = "https://example.net/a?b=c".parse().unwrap();
        assert_eq!(target.host, Host::Name("example.net".into()));
        assert_eq!(
            (target.port, target.tls, target.path.as_str()),
            (443, true, "/a?b=c")
        );
        let target: Target = "http://203.0.113.1:8080".parse().unwrap();
        assert_eq!(target.host, Host::Address(Ipv4Addr::new(203, 0, 113, 1)));
        assert_eq!(
            (target.port, target.tls, target.path.as_str()),
            (8080, false, "/")
        );
        assert_eq!(target.authority, "203.0.113.1:8080");
        assert!(DEFAULT_URL.parse::<Target>().is_ok());
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        for bad in [
            "",
            "/",
            "example.net",
            "ftp://example.net/",
            "http://",
            "http://me@example.net/",
            "http://a b/",
        ] {
            assert_eq!(
                bad.parse::<Target>(),
                Err(TargetError::Malformed),
                "{bad:?}"
            );
        }
        assert_eq!(
            "http://[2001:db8::1]/".parse::<Target>(),
            Err(TargetError::Ipv6)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(https?://)?.{0,60}") {
            let _ = text.parse::<Target>();
        }
    }
}
