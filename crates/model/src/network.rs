//! The tunnel's address space, and which address a new peer gets.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};

/// Why a network cannot be the tunnel's, or has no address to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Too small for a server and one client, or larger than a peer count could ever use.
    #[error("the tunnel network {0} must have a prefix length of 16 to 30")]
    Ipv4Prefix(Ipv4Net),
    /// Not inside the private ranges of RFC 1918 or the shared range of RFC 6598.
    #[error(
        "the tunnel network {0} must lie in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10"
    )]
    Ipv4NotPrivate(Ipv4Net),
    /// Not a unique local /64.
    #[error("the tunnel network {0} must be a /64 in fd00::/8 (RFC 4193)")]
    Ipv6(Ipv6Net),
    /// Every address is taken.
    #[error(
        "the tunnel network {0} has no free address; delete a peer, or choose a larger SERVER_NETWORK"
    )]
    Exhausted(Ipv4Net),
}

/// The networks inside the tunnel: IPv4 for traffic, and a unique local IPv6 one so that every
/// peer has an address of both families from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct TunnelNetworks {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
}

impl TryFrom<Raw> for TunnelNetworks {
    type Error = NetworkError;

    fn try_from(raw: Raw) -> Result<Self, NetworkError> {
        Self::new(raw.ipv4, raw.ipv6)
    }
}

impl From<TunnelNetworks> for Raw {
    fn from(networks: TunnelNetworks) -> Self {
        Self {
            ipv4: networks.ipv4,
            ipv6: networks.ipv6,
        }
    }
}

impl TunnelNetworks {
    /// Checks both networks and drops host bits (`10.8.0.1/24` becomes `10.8.0.0/24`).
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Result<Self, NetworkError> {
        let (ipv4, ipv6) = (ipv4.trunc(), ipv6.trunc());
        if !(16..=30).contains(&ipv4.prefix_len()) {
            return Err(NetworkError::Ipv4Prefix(ipv4));
        }
        let shared = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
        if !ipv4.addr().is_private() && !shared.contains(&ipv4) {
            return Err(NetworkError::Ipv4NotPrivate(ipv4));
        }
        if ipv6.prefix_len() != 64 || ipv6.addr().octets()[0] != 0xfd {
            return Err(NetworkError::Ipv6(ipv6));
        }
        Ok(Self { ipv4, ipv6 })
    }

    /// Pairs `ipv4` with a random unique local /64 (RFC 4193, section 3.2).
    pub fn with_random_ula(ipv4: Ipv4Net) -> Result<Self, NetworkError> {
        let mut octets = [0; 16];
        rand::rngs::OsRng
            .try_fill_bytes(&mut octets[1..6])
            .expect("the operating system's random source works");
        octets[0] = 0xfd;
        Self::new(ipv4, Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
    }

    /// The IPv4 network.
    pub fn ipv4(&self) -> Ipv4Net {
        self.ipv4
    }

    /// The IPv6 network.
    pub fn ipv6(&self) -> Ipv6Net {
        self.ipv6
    }

    /// The gateway's own addresses: the first of each network.
    pub fn gateway(&self) -> [IpAddr; 2] {
        self.addresses(1)
    }

    /// The lowest free pair of addresses, given the `allowed_ips` already assigned. Host number
    /// `n` of the IPv4 network goes with host number `n` of the IPv6 network.
    pub fn lowest_free<'a>(
        &self,
        assigned: impl IntoIterator<Item = &'a IpNet>,
    ) -> Result<[IpNet; 2], NetworkError> {
        let taken: HashSet<IpAddr> = assigned.into_iter().map(IpNet::addr).collect();
        let broadcast = (1_u32 << (32 - self.ipv4.prefix_len())) - 1;
        (2..broadcast)
            .map(|host| self.addresses(host))
            .find(|pair| pair.iter().all(|address| !taken.contains(address)))
            .map(|pair| pair.map(IpNet::from))
            .ok_or(NetworkError::Exhausted(self.ipv4))
    }

    fn addresses(&self, host: u32) -> [IpAddr; 2] {
        let ipv4 = Ipv4Addr::from_bits(self.ipv4.addr().to_bits() + host);
        let ipv6 = Ipv6Addr::from_bits(self.ipv6.addr().to_bits() + u128::from(host));
        [ipv4.into(), ipv6.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(ipv4: &str) -> Result<TunnelNetworks, NetworkError> {
        TunnelNetworks::with_random_ula(ipv4.parse().unwrap())
    }

    #[test]
    fn gateway_is_first_and_first_peer_is_second() {
        let networks = networks("10.8.0.0/24").unwrap();
        assert_eq!(networks.gateway()[0], "10.8.0.1".parse::<IpAddr>().unwrap());
        let [ipv4, ipv6] = networks.lowest_free([]).unwrap();
        assert_eq!(ipv4, "10.8.0.2/32".parse::<IpNet>().unwrap());
        assert!(networks.ipv6().contains(&match ipv6.addr() {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) => unreachable!("the second address is IPv6"),
        }));
        assert_eq!(ipv6.prefix_len(), 128);
    }

    #[test]
    fn unsuitable_networks_are_refused() {
        assert!(matches!(
            networks("8.8.8.0/24"),
            Err(NetworkError::Ipv4NotPrivate(_))
        ));
        assert!(matches!(
            networks("10.0.0.0/31"),
            Err(NetworkError::Ipv4Prefix(_))
        ));
        assert!(matches!(
            networks("10.0.0.0/8"),
            Err(NetworkError::Ipv4Prefix(_))
        ));
        let ipv4 = "10.8.0.0/24".parse().unwrap();
        assert!(matches!(
            TunnelNetworks::new(ipv4, "2001:db8::/64".parse().unwrap()),
            Err(NetworkError::Ipv6(_))
        ));
    }

    proptest! {
        #[test]
        fn every_address_is_given_once_and_then_the_network_is_exhausted(prefix in 26u8..=30) {
            let networks = networks(&format!("10.9.0.0/{prefix}")).unwrap();
            let mut assigned: Vec<IpNet> = Vec::new();
            let usable = (1usize << (32 - prefix)) - 3;
            for _ in 0..usable {
                let pair = networks.lowest_free(&assigned).unwrap();
                prop_assert!(pair.iter().all(|net| !assigned.contains(net)));
                prop_assert!(!networks.gateway().contains(&pair[0].addr()));
                assigned.extend(pair);
            }
            prop_assert!(matches!(networks.lowest_free(&assigned), Err(NetworkError::Exhausted(_))));
        }

        #[test]
        fn a_freed_address_is_the_next_one_given(freed in 0usize..20) {
            let networks = networks("10.9.0.0/24").unwrap();
            let mut assigned: Vec<[IpNet; 2]> = Vec::new();
            for _ in 0..20 {
                let flat: Vec<IpNet> = assigned.iter().flatten().copied().collect();
                assigned.push(networks.lowest_free(&flat).unwrap());
            }
            let back = assigned.remove(freed);
            let flat: Vec<IpNet> = assigned.iter().flatten().copied().collect();
            prop_assert_eq!(networks.lowest_free(&flat).unwrap(), back);
        }
    }
}
