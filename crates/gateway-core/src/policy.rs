//! Where clients may go.
//!
//! Invariant: what [`EgressPolicy::NEVER`] lists, and the host's own addresses, cannot be opened
//! by any setting. A client of the VPN must not become the gateway.

use std::net::Ipv4Addr;

use foldhash::HashSet;
use ipnet::Ipv4Net;

const fn net(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Which destinations are open to clients.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    own: HashSet<Ipv4Addr>,
    allowed: Vec<Ipv4Net>,
}

/// Why a destination is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The platform, the host itself, or nowhere. No setting opens it.
    Never,
    /// A private or special range; `EGRESS_ALLOW` can open it.
    ByDefault,
    /// Many receivers at once.
    Multicast,
}

/// A network that `EGRESS_ALLOW` may not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "EGRESS_ALLOW cannot open {requested}: it overlaps {closed}, which no client may ever reach \
     (instance metadata, the platform, loopback)"
)]
pub struct NeverAllowed {
    /// What was asked for.
    pub requested: Ipv4Net,
    /// What it touches.
    pub closed: Ipv4Net,
}

impl EgressPolicy {
    /// Never open: "this host" (RFC 1122; connecting to it means loopback on Linux), loopback,
    /// link-local with instance metadata (RFC 3927), and Azure's platform address.
    pub const NEVER: [Ipv4Net; 4] = [
        net(0, 0, 0, 0, 8),
        net(127, 0, 0, 0, 8),
        net(169, 254, 0, 0, 16),
        net(168, 63, 129, 16, 32),
    ];

    /// Closed unless allowed: private (RFC 1918), shared (RFC 6598), IETF protocol assignments
    /// (RFC 6890), and reserved (RFC 1112) addresses.
    pub const BY_DEFAULT: [Ipv4Net; 6] = [
        net(10, 0, 0, 0, 8),
        net(172, 16, 0, 0, 12),
        net(192, 168, 0, 0, 16),
        net(100, 64, 0, 0, 10),
        net(192, 0, 0, 0, 24),
        net(240, 0, 0, 0, 4),
    ];

    /// A policy that opens `allowed` beyond the default.
    pub fn new(allowed: Vec<Ipv4Net>) -> Result<Self, NeverAllowed> {
        for requested in &allowed {
            if requested.prefix_len() == 0 {
                continue; // "Everything" still means everything that may be opened.
            }
            let overlapping =
                |closed: &&Ipv4Net| closed.contains(requested) || requested.contains(*closed);
            if let Some(closed) = Self::NEVER.iter().find(overlapping) {
                return Err(NeverAllowed {
                    requested: *requested,
                    closed: *closed,
                });
            }
        }
        Ok(Self {
            own: HashSet::default(),
            allowed,
        })
    }

    /// Says which addresses are the host's own, now.
    pub fn set_own_addresses(&mut self, own: impl IntoIterator<Item = Ipv4Addr>) {
        self.own = own.into_iter().collect();
    }

    /// Whether a client may send to `destination`.
    pub fn check(&self, destination: Ipv4Addr) -> Result<(), Refusal> {
        if destination.is_multicast() || destination.is_broadcast() {
            return Err(Refusal::Multicast);
        }
        if self.own.contains(&destination)
            || Self::NEVER
                .iter()
                .any(|closed| closed.contains(&destination))
        {
            return Err(Refusal::Never);
        }
        let closed = Self::BY_DEFAULT
            .iter()
            .any(|closed| closed.contains(&destination));
        if closed && !self.allowed.iter().any(|open| open.contains(&destination)) {
            return Err(Refusal::ByDefault);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(policy: &EgressPolicy, text: &str) -> Result<(), Refusal> {
        policy.check(text.parse().unwrap())
    }

    #[test]
    fn the_internet_is_open_and_every_special_range_is_closed() {
        let policy = EgressPolicy::default();
        for open in [
            "1.1.1.1",
            "203.0.113.10",
            "198.51.100.1",
            "172.32.0.1",
            "192.0.1.1",
            "100.128.0.1",
        ] {
            assert_eq!(check(&policy, open), Ok(()), "{open}");
        }
        for closed in [
            "10.1.2.3",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.8",
            "240.0.0.1",
        ] {
            assert_eq!(check(&policy, closed), Err(Refusal::ByDefault), "{closed}");
        }
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "168.63.129.16",
        ] {
            assert_eq!(check(&policy, never), Err(Refusal::Never), "{never}");
        }
        for many in ["224.0.0.1", "239.255.255.250", "255.255.255.255"] {
            assert_eq!(check(&policy, many), Err(Refusal::Multicast), "{many}");
        }
    }

    #[test]
    fn own_addresses_stay_closed_even_inside_an_allowed_network() {
        let mut policy = EgressPolicy::new(vec!["10.0.0.0/8".parse().unwrap()]).unwrap();
        policy.set_own_addresses(["10.0.0.4".parse().unwrap(), "198.51.100.1".parse().unwrap()]);
        assert_eq!(check(&policy, "10.0.0.5"), Ok(()));
        assert_eq!(check(&policy, "10.0.0.4"), Err(Refusal::Never));
        assert_eq!(check(&policy, "198.51.100.1"), Err(Refusal::Never));
    }

    #[test]
    fn the_platform_cannot_be_named_in_the_exceptions() {
        for text in [
            "169.254.0.0/16",
            "169.254.169.254/32",
            "127.0.0.0/8",
            "0.0.0.0/8",
            "168.63.0.0/16",
            "126.0.0.0/7",
        ] {
            assert!(
                EgressPolicy::new(vec![text.parse().unwrap()]).is_err(),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_exception_opens_what_is_never_open(address in any::<u32>(), prefix in 0u8..=32, probe in any::<u32>()) {
            let allowed = Ipv4Net::new(Ipv4Addr::from(address), prefix).unwrap().trunc();
            if let Ok(policy) = EgressPolicy::new(vec![allowed]) {
                let never = Ipv4Addr::from(probe);
                if EgressPolicy::NEVER.iter().any(|closed| closed.contains(&never)) {
                    prop_assert_eq!(policy.check(never), Err(Refusal::Never));
                }
            }
        }
    }
}
