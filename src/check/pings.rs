//! Pings of the gateway's tunnel address, for the delay and to tell one failure from another.

use std::net::Ipv4Addr;
use std::time::Duration;

use popup_model::MIN_MTU;
use tokio::time::sleep;

use super::diagnosis::Probe;
use super::link::Link;
use super::tunnel::Handshake;

/// Length of a small ping's packet, as `ping` makes it.
pub(super) const SMALL: u16 = 84;

/// Patience with pings; twice sent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What pings of several sizes show.
pub(super) async fn probe(link: &Link, gateway: Ipv4Addr, mtu: u16, patience: Duration) -> Probe {
    let sizes = [(2, SMALL), (3, mtu.min(MIN_MTU)), (4, mtu)];
    let [small, minimum, full] = pings(link, gateway, sizes, patience).await;
    link.with(|tunnel| Probe {
        mtu,
        small,
        minimum,
        full,
        heard: tunnel.heard(),
        refused: tunnel.handshake() == Handshake::Refused,
    })
}

/// Which of these pings, given by sequence number and packet length, come back. Each is sent
/// twice, for one packet lost says nothing.
pub(super) async fn pings<const N: usize>(
    link: &Link,
    gateway: Ipv4Addr,
    pings: [(u16, u16); N],
    patience: Duration,
) -> [bool; N] {
    let half = patience.min(PATIENCE) / 2;
    for _ in 0..2 {
        link.with(|tunnel| {
            for (sequence, length) in pings {
                tunnel.netstack().ping(gateway, sequence, length);
            }
        });
        let all = link.until(|tunnel| {
            pings
                .iter()
                .all(|(sequence, _)| tunnel.netstack().ping_answered(*sequence))
                .then_some(())
        });
        tokio::select! {
            () = all => break,
            () = sleep(half) => {}
        }
    }
    pings.map(|(sequence, _)| link.with(|tunnel| tunnel.netstack().ping_answered(sequence)))
}
