//! A server beyond the internet's router, on a link that is narrower than all others.

use super::services::Services;
use super::{Internet, Namespace};

/// The server, which has every service of the internet.
#[derive(Debug)]
pub struct Far {
    _namespace: Namespace,
    _services: Services,
}

impl Far {
    /// Its address.
    pub const ADDRESS: &'static str = "192.0.2.10";
    /// The link's MTU.
    pub const MTU: u16 = 1300;

    /// Puts it behind the router. It tells nobody how narrow its link is, so that only the
    /// router's word can.
    pub fn behind(internet: &Internet) -> Self {
        let (address, mtu) = (Self::ADDRESS, Self::MTU);
        let namespace = Namespace::new("ip link set lo up");
        let router = internet.namespace();
        router.connect("far", &namespace, "router");
        router.shell(&format!(
            "ip address add 192.0.2.1/24 dev far && ip link set far mtu {mtu} up"
        ));
        namespace.shell(&format!(
            "ip address add {address}/24 dev router && ip link set router mtu {mtu} up
             ip route add default via 192.0.2.1 advmss 1460"
        ));
        let services = Services::start(&namespace, address, address, [address].into_iter());
        Self {
            _namespace: namespace,
            _services: services,
        }
    }
}
