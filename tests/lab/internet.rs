//! The box that plays the internet: services, a resolver, and addresses that must stay out of reach.

use std::time::Duration;

use super::Namespace;
use super::services::{Arrival, Services};

/// Addresses of every class that VPN clients must not reach. The internet answers on all of them,
/// so that a hole in the policy shows as an answer and not as silence.
pub const FORBIDDEN: [&str; 11] = [
    "169.254.169.254",
    "168.63.129.16",
    "10.77.0.1",
    "172.16.5.5",
    "172.31.255.1",
    "192.168.5.5",
    "100.64.5.5",
    "100.127.0.1",
    "192.0.0.8",
    "240.0.0.1",
    "10.8.1.1",
];

/// The internet.
#[derive(Debug)]
pub struct Internet {
    pub(super) namespace: Namespace,
    services: Services,
}

impl Internet {
    /// The name that the resolver knows.
    pub const NAME: &'static str = "www.internet.test";
    /// Where [`Self::NAME`] points: HTTP on 80, TCP and UDP echo on 7, the digest service on 9,
    /// the talker on 19; every other TCP port refuses.
    pub const ADDRESS: &'static str = "203.0.113.10";
    /// The resolver.
    pub const DNS: &'static str = "203.0.113.53";
    /// Packets to it vanish.
    pub const BLACK_HOLE: &'static str = "203.0.113.200";
    /// A router answers for it that there is no such host.
    pub const UNREACHABLE: &'static str = "203.0.113.210";

    pub(super) fn new() -> Self {
        let (address, dns) = (Self::ADDRESS, Self::DNS);
        let mut setup = format!(
            "ip link set lo up
             ip address add {address}/32 dev lo
             ip address add {dns}/32 dev lo
             ip route add blackhole {}/32
             ip route add unreachable {}/32
             echo 1 >/proc/sys/net/ipv4/ip_forward\n",
            Self::BLACK_HOLE,
            Self::UNREACHABLE,
        );
        for forbidden in FORBIDDEN {
            setup += &format!("ip address add {forbidden}/32 dev lo\n");
        }
        let namespace = Namespace::new(&setup);
        let addresses = FORBIDDEN.into_iter().chain([address, dns]);
        let services = Services::start(&namespace, address, dns, addresses);
        Self {
            namespace,
            services,
        }
    }

    /// The box itself.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What has reached the services so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.services.arrivals()
    }

    /// Bytes that the HTTP service has handed to its system for sending.
    pub fn sent_bytes(&self) -> u64 {
        self.services.sent_bytes()
    }

    /// What the talker on port 19 has heard from its callers, once they have hung up.
    pub fn heard(&self) -> Vec<String> {
        self.services.heard()
    }

    /// Waits until the HTTP service can send no more, and says how much it has sent.
    pub fn sent_bytes_when_stuck(&self) -> u64 {
        let mut last = (self.sent_bytes(), std::time::Instant::now());
        super::eventually(Duration::from_secs(30), "the sender is held back", || {
            let now = self.sent_bytes();
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            (now > 0 && last.1.elapsed() > Duration::from_millis(700)).then_some(now)
        })
    }
}
