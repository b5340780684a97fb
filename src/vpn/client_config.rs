//! A peer's `.conf`, as the official apps, `wg-quick` and `wg` read it.
//!
//! Only the keys that the Android parser knows, and never a key without a value: it rejects the
//! whole file otherwise. Everything printed is a parsed type.

use std::fmt::{Display, Write as _};

use ipnet::IpNet;
use popup_model::{Peer, PrivateKey};
use zeroize::Zeroizing;

/// Keeps NAT bindings alive; the figure that WireGuard's own documentation gives.
const KEEPALIVE_S: u16 = 25;

/// Stands for the interface's public key while that is not known: the field of the same name of
/// `GET /api/vpn-status` goes here.
pub const SERVER_BLANK: &str = "{serverPublicKey}";
/// Stands for the endpoint in the same way.
pub const ENDPOINT_BLANK: &str = "{endpoint}";

/// Writes the configuration. Without a private key the caller adds its own.
pub fn render(
    peer: &Peer,
    private_key: Option<&PrivateKey>,
    server: impl Display,
    endpoint: &str,
) -> Zeroizing<String> {
    // Reserved once, so that no copy of a key is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str("[Interface]\n");
    if let Some(key) = private_key {
        line(&mut text, "PrivateKey", key.to_base64().as_str());
    }
    line(&mut text, "Address", list(tunnel_addresses(peer)));
    if !peer.client.dns.is_empty() {
        line(&mut text, "DNS", list(&peer.client.dns));
    }
    line(&mut text, "MTU", peer.client.mtu);
    text.push_str("\n[Peer]\n");
    line(&mut text, "PublicKey", server);
    if let Some(key) = &peer.preshared_key {
        line(&mut text, "PresharedKey", key.to_base64().as_str());
    }
    line(&mut text, "AllowedIPs", list(&peer.client.allowed_ips));
    line(&mut text, "Endpoint", endpoint);
    line(&mut text, "PersistentKeepalive", KEEPALIVE_S);
    text
}

/// The IPv6 address only where IPv6 goes into the tunnel: `wg-quick` fails on it where a machine
/// has IPv6 switched off, and then `allowedIps` of IPv4 alone is the way out.
fn tunnel_addresses(peer: &Peer) -> impl Iterator<Item = &IpNet> {
    let ipv6 = peer
        .client
        .allowed_ips
        .iter()
        .any(|net| matches!(net, IpNet::V6(_)));
    peer.allowed_ips
        .iter()
        .filter(move |net| ipv6 || matches!(net, IpNet::V4(_)))
}

fn line(text: &mut String, key: &str, value: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use popup_model::ClientSettings;
    use popup_model::document::Extra;

    use super::*;

    const SERVER: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PRESHARED: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

    fn peer() -> Peer {
        Peer {
            name: "phone".parse().unwrap(),
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
                .parse()
                .unwrap(),
            preshared_key: Some(PRESHARED.parse().unwrap()),
            allowed_ips: [
                "10.8.0.2/32".parse().unwrap(),
                "fd00:1:2::2/128".parse().unwrap(),
            ],
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            expires_at: None,
            quota_bytes: None,
            owner: None,
            client: ClientSettings::default(),
            extra: Extra::new(),
        }
    }

    fn rendered(peer: &Peer, private_key: Option<&str>) -> String {
        let private_key: Option<PrivateKey> = private_key.map(|key| key.parse().unwrap());
        let server: popup_model::PublicKey = SERVER.parse().unwrap();
        render(peer, private_key.as_ref(), server, "203.0.113.7:51820").to_string()
    }

    #[test]
    fn the_whole_file_is_as_every_client_expects_it() {
        let expected = "\
[Interface]
PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
Address = 10.8.0.2/32, fd00:1:2::2/128
DNS = 1.1.1.1, 8.8.8.8
MTU = 1420

[Peer]
PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
PresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.7:51820
PersistentKeepalive = 25
";
        assert_eq!(rendered(&peer(), Some(PRIVATE)), expected);
    }

    #[test]
    fn a_key_without_a_value_is_left_out_with_its_line() {
        let mut peer = peer();
        peer.preshared_key = None;
        peer.client.dns.clear();
        peer.client.allowed_ips = vec!["198.51.100.0/24".parse().unwrap()];
        peer.client.mtu = 1280;
        let expected = "\
[Interface]
Address = 10.8.0.2/32
MTU = 1280

[Peer]
PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
AllowedIPs = 198.51.100.0/24
Endpoint = 203.0.113.7:51820
PersistentKeepalive = 25
";
        assert_eq!(rendered(&peer, None), expected);
    }

    #[test]
    fn what_is_not_known_yet_is_a_blank() {
        let text = render(&peer(), None, SERVER_BLANK, ENDPOINT_BLANK);
        assert!(text.contains("\nPublicKey = {serverPublicKey}\n"));
        assert!(text.contains("\nEndpoint = {endpoint}\n"));
    }
}
