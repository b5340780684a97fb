//! The network of a sandbox: its public address on the bridge that plays Azure's network, and the
//! metadata service at 169.254.169.254.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::RunnerError;
use super::namespace::{Namespace, shell};
use crate::arm::Sandbox;
use crate::cloud::Cloud;
use crate::server::metadata_service;

/// What sandboxes are joined to.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// The bridge, and its address with the prefix length.
    pub bridge: (String, Ipv4Addr, u8),
    /// The resolver of containers.
    pub resolver: Option<IpAddr>,
}

impl NetworkOptions {
    /// Makes the bridge, unless it is there.
    pub(super) async fn make_bridge(&self) -> Result<(), RunnerError> {
        let (bridge, address, prefix) = &self.bridge;
        shell(&format!(
            "ip link show {bridge} >/dev/null 2>&1 || {{
               ip link add {bridge} type bridge
               ip address add {address}/{prefix} dev {bridge}
             }}
             ip link set {bridge} up"
        ))
        .await
    }

    /// What containers find in `/etc/resolv.conf`.
    pub(super) fn resolv_conf(&self) -> String {
        self.resolver
            .map_or(String::new(), |ip| format!("nameserver {ip}\n"))
    }
}

/// A sandbox's namespaces, with its network in them.
pub(super) struct SandboxNetwork {
    pub(super) namespace: Namespace,
    metadata: JoinHandle<()>,
}

impl SandboxNetwork {
    /// Makes it. The metadata service asks `cloud` whether it may answer.
    pub(super) async fn open(
        options: &NetworkOptions,
        sandbox: &Sandbox,
        cloud: &Arc<Cloud>,
    ) -> Result<Self, RunnerError> {
        let (bridge, gateway, prefix) = &options.bridge;
        let namespace = Namespace::new(&options.resolv_conf()).await?;
        let port = format!("sandbox{}", sandbox.id.0);
        namespace.join(bridge, &port).await?;
        if let Some(ip) = sandbox.ip {
            let script = format!(
                "ip address add {ip}/{prefix} dev eth0
                 ip link set eth0 up
                 ip route add default via {gateway}"
            );
            namespace.shell(&script).await?;
        }
        let failed = |error| RunnerError::new("the metadata service", error);
        let listener = namespace
            .enter(|| std::net::TcpListener::bind((Ipv4Addr::new(169, 254, 169, 254), 80)))
            .map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let (identities, cloud) = (sandbox.identities.clone(), Arc::clone(cloud));
        let metadata =
            tokio::spawn(async move { metadata_service(listener, &identities, &cloud).await });
        Ok(Self {
            namespace,
            metadata,
        })
    }

    /// Ends whatever is still inside, and takes it away.
    pub(super) async fn close(self) {
        self.metadata.abort();
        self.namespace.close().await;
    }
}
