//! What a user with `CAP_NET_ADMIN` would pick: a TUN device and the kernel's NAT.

use std::fmt::Write as _;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context as _, Result};
use popup_model::{PrivateKey, PublicKey};

use super::{Peer, Started};
use crate::lab::{Lab, Namespace, PORT, SERVER, eventually};
use crate::tools::Tools;

/// The program behind the device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Program {
    WireguardGo,
    Boringtun,
}

pub(super) fn start(lab: &Lab, tools: &Tools, peers: &[Peer], program: Program) -> Result<Started> {
    let key = PrivateKey::generate();
    let name = match program {
        Program::WireguardGo => "wireguard-go",
        Program::Boringtun => "boringtun-cli",
    };
    let log = File::create(lab.directory().join("server.log"))?;
    let mut command = lab
        .server
        .command(&lab.plan.cores.server, &tools.path(name)?);
    match program {
        Program::WireguardGo => command.args(["-f", "wg0"]),
        Program::Boringtun => command.args(["--foreground", "--disable-drop-privileges", "wg0"]),
    };
    let process = command
        .env("LOG_LEVEL", "error")
        .env("WG_PROCESS_FOREGROUND", "1")
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let public_key = key.public_key();
    let mut configuration = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n",
        *key.to_base64()
    );
    for peer in peers {
        let public = peer.key.public_key();
        write!(
            configuration,
            "[Peer]\nPublicKey = {public}\nAllowedIPs = {}/32\n",
            peer.address
        )?;
    }
    configure(&lab.server, &configuration, "10.8.0.1/24")?;
    translate(lab)?;
    Ok(Started {
        process: Some(process),
        program: Some(name),
        public_key: Some(public_key),
    })
}

/// The kernel's part: forwarding and NAT.
pub(super) fn translate(lab: &Lab) -> Result<()> {
    lab.server
        .shell(&format!(
            "echo 1 >/proc/sys/net/ipv4/ip_forward
             iptables -t nat -A POSTROUTING -o {} -j MASQUERADE",
            lab.outside
        ))
        .map(drop)
}

/// Gives the device `wg0` in `namespace` its keys, peers and address.
fn configure(namespace: &Namespace, configuration: &str, address: &str) -> Result<()> {
    eventually(Duration::from_secs(5), "there is a device wg0", || {
        namespace.shell("test -S /run/wireguard/wg0.sock").ok()
    })?;
    namespace
        .shell(&format!(
            "umask 077
             cat >/run/wireguard/wg0.conf <<'END'
{configuration}
END
             wg setconf wg0 /run/wireguard/wg0.conf
             ip address add {address} dev wg0
             ip link set wg0 mtu 1420 up"
        ))
        .map(drop)
}

/// The client of every VPN: wireguard-go with a TUN device, the same for all.
#[derive(Debug)]
pub(crate) struct Client {
    process: std::process::Child,
}

impl Client {
    /// Starts it as `peer` of the server with `server_key`, and sends the internet through it.
    pub(crate) fn start(
        lab: &Lab,
        tools: &Tools,
        peer: &Peer,
        server_key: PublicKey,
    ) -> Result<Self> {
        let log = File::create(lab.directory().join("client.log"))?;
        let process = lab
            .client
            .command(&lab.plan.cores.client, &tools.path("wireguard-go")?)
            .args(["-f", "wg0"])
            .env("LOG_LEVEL", "error")
            .env("WG_PROCESS_FOREGROUND", "1")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("wireguard-go does not start")?;
        let configuration = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {server_key}\n\
             AllowedIPs = 0.0.0.0/0\nEndpoint = {SERVER}:{PORT}\nPersistentKeepalive = 25\n",
            *peer.key.to_base64()
        );
        configure(&lab.client, &configuration, &format!("{}/32", peer.address))?;
        lab.client.shell("ip route add 203.0.113.0/24 dev wg0")?;
        Ok(Self { process })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
