//! From what was seen to what to do: a pure function.
//!
//! Invariant: advice says only what the evidence shows; where two causes look the same from here
//! (a firewall and a wrong key are both silence), it names both and how to tell them apart.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use popup_model::MIN_MTU;

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The endpoint's name has no address.
    #[error("{0} does not resolve")]
    Resolve(String),
    /// This machine has no way to the endpoint.
    #[error("no way to {0} from this machine: {1}")]
    NoRoute(SocketAddr, std::io::ErrorKind),
    /// ICMP port unreachable.
    #[error("nothing listens on UDP port {}", .0.port())]
    Refused(SocketAddr),
    /// Nothing came back.
    #[error("no answer from {0} within {seconds} s", seconds = .1.as_secs_f32())]
    Silent(SocketAddr, Duration),
    /// A handshake response that does not open.
    #[error("{0} answered, but not with this client's keys")]
    Rejected(SocketAddr),
    /// No name server answered.
    #[error("no answer from the name server")]
    NameServerSilent,
    /// A name server answered with an error.
    #[error("the name server failed: {0}")]
    NameServer(String),
    /// The name does not exist, or has no IPv4 address.
    #[error("{0} not found")]
    NameNotFound(String),
    /// A client with this file would not use the tunnel for it.
    #[error("{0} is not in the file's AllowedIPs")]
    NotRouted(Ipv4Addr),
    /// No answer to the SYN.
    #[error("no answer from {0}")]
    ConnectSilent(SocketAddrV4),
    /// Answered with RST.
    #[error("{0} refuses the connection")]
    ConnectRefused(SocketAddrV4),
    /// An ICMP unreachable from the tunnel.
    #[error("{0} is unreachable from the gateway")]
    Unreachable(Ipv4Addr),
    /// An ICMP administratively prohibited from the tunnel.
    #[error("the gateway forbids {0}")]
    Prohibited(Ipv4Addr),
    /// The other side is not who it should be, or speaks no TLS.
    #[error("{0}")]
    Tls(String),
    /// Nothing came for a while.
    #[error("nothing more came after {0} bytes")]
    Stalled(usize),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Http(String),
    /// An HTTP status from 400 on.
    #[error("HTTP status {0}")]
    Status(u16),
}

impl Failure {
    /// Whether something was waited for in vain after the handshake; pings tell more then.
    pub(super) fn is_silence_in_the_tunnel(&self) -> bool {
        matches!(
            self,
            Self::NameServerSilent | Self::ConnectSilent(_) | Self::Stalled(_)
        )
    }
}

/// What pings to the gateway showed after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    /// The tunnel's MTU according to the file.
    pub(super) mtu: u16,
    /// Small packets come back.
    pub(super) small: bool,
    /// Packets of [`MIN_MTU`] bytes come back.
    pub(super) minimum: bool,
    /// Packets as large as the file allows come back.
    pub(super) full: bool,
    /// Something, whatever it was, has come through the tunnel before.
    pub(super) heard: bool,
    /// The gateway's port has been closed in the meantime.
    pub(super) refused: bool,
}

/// What to do about a failure. `probe` is there if the failure
/// [`Failure::is_silence_in_the_tunnel`] and the gateway's tunnel address is known.
pub(super) fn advice(failure: &Failure, probe: Option<Probe>) -> String {
    if let Some(advice) = probe.and_then(advice_from_pings) {
        return advice;
    }
    match failure {
        Failure::Resolve(_) => "The endpoint's name has no address. Is the VPN started? A name just \
            created takes a minute to appear, and a machine that asked too early remembers for some \
            minutes that there was none. Does this machine have internet at all?"
            .into(),
        Failure::NoRoute(..) => "This machine cannot send to the endpoint. Is it online? An IPv6 \
            endpoint needs IPv6 here."
            .into(),
        Failure::Refused(_) => "The host is there, but nothing listens on this port. The VPN is \
            stopped (start it, and try again), or the Endpoint's port is not the VPN's, or the name \
            still resolves to an address that belongs to somebody else now: compare it with the \
            publicIp that the start returned. No key is at fault: nothing has looked at one."
            .into(),
        Failure::Silent(endpoint, _) => format!(
            "WireGuard answers nobody it does not know, so this is one of:\n\
             - UDP port {} is blocked, by this network (common in hotels and offices) or by a \
             firewall before the gateway: try another network, such as a phone's;\n\
             - the VPN is stopped, or the name does not resolve to its new address yet ({} now);\n\
             - a key does not fit: the file's PublicKey is not the gateway's, or this peer was \
             removed or given new keys: fetch a new configuration.",
            endpoint.port(),
            endpoint.ip(),
        ),
        Failure::Rejected(_) => "The gateway knows this peer and answered, but the answer does not \
            open. The PresharedKey is not the gateway's, or was left out on one side: fetch a new \
            configuration."
            .into(),
        Failure::NameServerSilent => "The handshake works, but no name server of the file answered \
            through the tunnel. Try the check with --url and an IP address. If that passes, put \
            another server in the DNS line."
            .into(),
        Failure::NameServer(_) => "The tunnel works, but the file's name server cannot answer. Put \
            another server in the DNS line."
            .into(),
        Failure::NameNotFound(_) => "The tunnel works, but this name has no IPv4 address. Is the URL \
            right?"
            .into(),
        Failure::NotRouted(_) => "A client with this file would not send this through the tunnel. \
            Choose a --url inside AllowedIPs, or widen AllowedIPs (0.0.0.0/0 is everything)."
            .into(),
        Failure::ConnectSilent(_) => "The tunnel works, but this server did not answer. Try another \
            --url: if that passes, the server is down or does not serve the gateway's region."
            .into(),
        Failure::ConnectRefused(_) => "The tunnel works. The server is there and nothing listens on \
            its port: is the URL right?"
            .into(),
        Failure::Unreachable(_) => "The tunnel works, but the gateway has no way to this address. \
            Try another --url."
            .into(),
        Failure::Prohibited(_) => "The tunnel works. The gateway's egress policy refuses this \
            address: private ranges and the cloud's own addresses are closed to clients. Choose a \
            public --url."
            .into(),
        Failure::Tls(_) => "The connection is there, but the server did not prove to be the one in \
            the URL. Is this machine's clock right? Is the URL? If both are, somebody between the \
            gateway and the server answers in its place."
            .into(),
        Failure::Stalled(_) => format!(
            "Data stopped coming. If small pages work and large ones do not, packets are too large \
             for the path: put MTU = {MIN_MTU} under [Interface]. Else try again, or another --url."
        ),
        Failure::Http(_) => "The tunnel works, but the server broke off or does not speak HTTP: is \
            the URL right?"
            .into(),
        Failure::Status(_) => "The tunnel works. The server answered with an error of its own: try \
            another --url."
            .into(),
    }
}

fn advice_from_pings(probe: Probe) -> Option<String> {
    let Probe {
        mtu,
        small,
        minimum,
        full,
        heard,
        refused,
    } = probe;
    if refused {
        return Some("The gateway stopped during the check: its port is closed now. Start the VPN, and try again.".into());
    }
    match (small, minimum, full) {
        (true, true, false) => Some(format!(
            "Small packets pass the tunnel and packets of {mtu} bytes do not: the MTU is too large \
             for this path. Put MTU = {MIN_MTU} under [Interface] (now {mtu}), and try again."
        )),
        (true, false, _) => Some(format!(
            "Small packets pass the tunnel, but packets of {} bytes are lost: this network does \
             not carry datagrams as large as WireGuard needs. Try a smaller MTU under [Interface] \
             (now {mtu}), or another network.",
            mtu.min(MIN_MTU)
        )),
        // A gateway of another make may answer no pings at all.
        (false, _, _) if heard => None,
        (false, _, _) => Some(
            "The handshake works, but nothing comes back through the tunnel, not even a ping of the \
             gateway. Is the file's Address the one the gateway gave this peer? Is another device \
             connected with the same file? A client's key works in one place at a time."
                .into(),
        ),
        (true, true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> SocketAddr {
        "203.0.113.7:443".parse().unwrap()
    }

    fn server() -> SocketAddrV4 {
        "198.51.100.9:80".parse().unwrap()
    }

    const WELL: Probe = Probe {
        mtu: 1420,
        small: true,
        minimum: true,
        full: true,
        heard: true,
        refused: false,
    };

    #[test]
    fn every_failure_has_its_advice() {
        let address = *server().ip();
        let table = [
            (
                Failure::Resolve("vpn.example.net".into()),
                "Is the VPN started?",
            ),
            (
                Failure::NoRoute(endpoint(), std::io::ErrorKind::NetworkUnreachable),
                "Is it online?",
            ),
            (Failure::Refused(endpoint()), "nothing listens on this port"),
            (
                Failure::Silent(endpoint(), Duration::from_secs(15)),
                "UDP port 443 is blocked",
            ),
            (Failure::Rejected(endpoint()), "PresharedKey"),
            (Failure::NameServerSilent, "DNS line"),
            (Failure::NameServer("SERVFAIL".into()), "DNS line"),
            (
                Failure::NameNotFound("no.example.net".into()),
                "Is the URL right?",
            ),
            (Failure::NotRouted(address), "AllowedIPs"),
            (Failure::ConnectSilent(server()), "another --url"),
            (
                Failure::ConnectRefused(server()),
                "nothing listens on its port",
            ),
            (Failure::Unreachable(address), "no way to this address"),
            (Failure::Prohibited(address), "egress policy"),
            (Failure::Tls("invalid certificate".into()), "clock"),
            (Failure::Stalled(9), "MTU = 1280"),
            (Failure::Http("closed".into()), "does not speak HTTP"),
            (Failure::Status(500), "error of its own"),
        ];
        for (failure, words) in table {
            let text = advice(&failure, None);
            assert!(text.contains(words), "{failure:?}: {text}");
            assert!(!text.contains("  "), "{failure:?}: {text}");
            if failure.is_silence_in_the_tunnel() {
                assert_eq!(
                    advice(&failure, Some(WELL)),
                    text,
                    "good pings change nothing"
                );
            }
        }
    }

    #[test]
    fn silence_names_both_the_firewall_and_the_key() {
        let text = advice(&Failure::Silent(endpoint(), Duration::from_secs(15)), None);
        assert!(
            text.contains("blocked")
                && text.contains("PublicKey")
                && text.contains("203.0.113.7 now")
        );
    }

    #[test]
    fn pings_tell_the_mtu_from_a_dead_tunnel() {
        let stalled = Failure::Stalled(1000);
        let table = [
            (
                Probe {
                    full: false,
                    ..WELL
                },
                "Put MTU = 1280 under [Interface] (now 1420)",
            ),
            (
                Probe {
                    full: false,
                    minimum: false,
                    ..WELL
                },
                "packets of 1280 bytes are lost",
            ),
            (
                Probe {
                    full: false,
                    minimum: false,
                    small: false,
                    heard: false,
                    ..WELL
                },
                "not even a ping",
            ),
            (
                Probe {
                    full: false,
                    minimum: false,
                    small: false,
                    ..WELL
                },
                "Data stopped coming",
            ),
            (
                Probe {
                    refused: true,
                    ..WELL
                },
                "stopped during the check",
            ),
        ];
        for (probe, words) in table {
            let text = advice(&stalled, Some(probe));
            assert!(text.contains(words), "{probe:?}: {text}");
        }
    }
}
