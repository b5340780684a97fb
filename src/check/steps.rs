//! The check itself: one step after the other, as far as they go.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use popup_gateway_core::BoringInterface;
use popup_gateway_core::session::Interface as _;
use popup_model::PrivateKey;
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::conf::Conf;
use super::diagnosis::{Failure, Probe, advice};
use super::link::Link;
use super::netstack::Netstack;
use super::report::Report;
use super::stream::TunnelStream;
use super::target::{Host, Target};
use super::tunnel::{Handshake, Tunnel};
use super::{dns, fetch, outside, pings};

/// Bytes from which on a rate says something about the path and not about its delay.
const MEASURABLE_BYTES: usize = 64 * 1024;

/// What is tried.
#[derive(Debug)]
pub(super) struct Plan {
    /// The configuration.
    pub(super) conf: Conf,
    /// This client's key.
    pub(super) private_key: PrivateKey,
    /// What is fetched.
    pub(super) target: Target,
    /// Patience with each step.
    pub(super) patience: Duration,
}

/// Why there is no next step.
#[derive(Debug)]
enum Stop {
    Failed(Failure),
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the check. `true` if all steps passed; an error if the output cannot be written.
pub(super) async fn run(plan: &Plan, report: &mut Report<'_>) -> io::Result<bool> {
    let mut probe = None;
    match steps(plan, report, &mut probe).await {
        Ok(()) => {
            report.note("All steps passed.")?;
            Ok(true)
        }
        Err(Stop::Failed(failure)) => {
            report.note(&format!("\n{}", advice(&failure, probe)))?;
            Ok(false)
        }
        Err(Stop::Output(error)) => Err(error),
    }
}

async fn steps(
    plan: &Plan,
    report: &mut Report<'_>,
    probe: &mut Option<Probe>,
) -> Result<(), Stop> {
    let (socket, endpoint) = step(
        report,
        "resolve",
        outside::open(&plan.conf.endpoint, plan.patience),
        |(_, endpoint)| format!("{} is {endpoint}", plan.conf.endpoint),
    )
    .await?;
    let link = Link::new(tunnel(plan, endpoint), socket);
    let work = async {
        let outcome = through_tunnel(plan, &link, endpoint, report).await;
        if let (Err(Stop::Failed(failure)), Some(gateway)) = (&outcome, plan.conf.gateway())
            && failure.is_silence_in_the_tunnel()
        {
            *probe = Some(pings::probe(&link, gateway, plan.conf.mtu, plan.patience).await);
        }
        outcome
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        never = link.drive() => match never {},
    };
    // The gateway is told of connections that were cut off.
    link.drain().await;
    outcome
}

async fn step<T>(
    report: &mut Report<'_>,
    name: &str,
    work: impl Future<Output = Result<T, Failure>>,
    detail: impl FnOnce(&T) -> String,
) -> Result<T, Stop> {
    let started_at = Instant::now();
    let result = work.await;
    let took = started_at.elapsed();
    match result {
        Ok(value) => {
            report.passed(name, took, &detail(&value))?;
            Ok(value)
        }
        Err(failure) => {
            report.failed(name, took, &failure)?;
            Err(Stop::Failed(failure))
        }
    }
}

fn tunnel(plan: &Plan, endpoint: SocketAddr) -> Tunnel<popup_gateway_core::BoringSession> {
    let (conf, now) = (&plan.conf, Instant::now());
    let index = rand::rng().random_range(0..1 << 24);
    let interface = BoringInterface::new(&plan.private_key);
    let session = interface.session(conf.public_key, conf.preshared_key.as_ref(), index);
    let netstack = Netstack::new(conf.address.addr(), conf.mtu, now);
    Tunnel::new(
        session,
        endpoint.ip(),
        conf.allowed_ips.clone(),
        netstack,
        now,
    )
}

async fn through_tunnel(
    plan: &Plan,
    link: &Link,
    endpoint: SocketAddr,
    report: &mut Report<'_>,
) -> Result<(), Stop> {
    step(
        report,
        "handshake",
        handshake(link, endpoint, plan.patience),
        |()| format!("with {endpoint}"),
    )
    .await?;
    if let Some(gateway) = plan.conf.gateway() {
        let started_at = Instant::now();
        let [answered] = pings::pings(link, gateway, [(1, pings::SMALL)], plan.patience).await;
        let took = started_at.elapsed();
        if answered {
            report.passed("ping", took, &format!("{gateway} answers"))?;
        } else {
            report.inconclusive(
                "ping",
                took,
                &format!("no answer from {gateway}; going on without"),
            )?;
        }
    }
    let target = &plan.target;
    let to = SocketAddrV4::new(address(plan, link, report).await?, target.port);
    let stream = step(report, "connect", connect(link, to, plan.patience), |_| {
        format!("TCP to {to}")
    })
    .await?;
    let fetched = if target.tls {
        let host = target.host.to_string();
        let encrypted = fetch::encrypt(stream, &host, fetch::web_roots(), plan.patience);
        let stream = step(report, "tls", encrypted, |_| {
            format!("{host} proved its name")
        })
        .await?;
        get(plan, stream, report).await?
    } else {
        get(plan, stream, report).await?
    };
    if let Some(address) = fetched.exit_address() {
        report.note(&format!("The internet sees you as {address}."))?;
    }
    Ok(())
}

async fn handshake(link: &Link, endpoint: SocketAddr, patience: Duration) -> Result<(), Failure> {
    link.with(|tunnel| tunnel.start(Instant::now()));
    let outcome = link.until(|tunnel| match tunnel.handshake() {
        Handshake::Silent => None,
        Handshake::Complete => Some(Ok(())),
        Handshake::Refused => Some(Err(Failure::Refused(endpoint))),
        Handshake::Rejected => Some(Err(Failure::Rejected(endpoint))),
    });
    timeout(patience, outcome)
        .await
        .unwrap_or(Err(Failure::Silent(endpoint, patience)))
}

/// The target's address: as given, or asked of the file's name servers as its client would.
async fn address(plan: &Plan, link: &Link, report: &mut Report<'_>) -> Result<Ipv4Addr, Stop> {
    let (conf, target) = (&plan.conf, &plan.target);
    let addresses = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let servers: Vec<Ipv4Addr> = conf
                .dns
                .iter()
                .filter_map(|server| match server {
                    std::net::IpAddr::V4(server) => conf.routes(*server).then_some(*server),
                    std::net::IpAddr::V6(_) => None,
                })
                .collect();
            let work = async {
                if servers.is_empty() {
                    return outside::resolve(name, target.port, plan.patience).await;
                }
                let (addresses, server) = dns::resolve(link, &servers, name, plan.patience).await?;
                Ok((addresses, format!("{server}, through the tunnel")))
            };
            step(report, "dns", work, |(found, by)| {
                format!("{name} is {} (asked {by})", found[0])
            })
            .await?
            .0
        }
    };
    let routed = addresses
        .iter()
        .copied()
        .find(|address| conf.routes(*address));
    match routed {
        Some(address) => Ok(address),
        None => {
            let failure = Failure::NotRouted(addresses[0]);
            report.failed("connect", Duration::ZERO, &failure)?;
            Err(Stop::Failed(failure))
        }
    }
}

async fn connect(
    link: &Link,
    to: SocketAddrV4,
    patience: Duration,
) -> Result<TunnelStream, Failure> {
    let handle = link.with(|tunnel| tunnel.netstack().connect(to));
    let stream = TunnelStream::new(link.clone(), handle);
    let outcome = async {
        tokio::select! {
            biased;
            connected = stream.connected() => {
                if connected { Ok(()) } else { Err(Failure::ConnectRefused(to)) }
            }
            unreachable = link.until(|tunnel| tunnel.netstack().unreachable(*to.ip())) => {
                let failure = if unreachable.prohibited { Failure::Prohibited } else { Failure::Unreachable };
                Err(failure(*to.ip()))
            }
        }
    };
    timeout(patience, outcome)
        .await
        .unwrap_or(Err(Failure::ConnectSilent(to)))?;
    Ok(stream)
}

async fn get(
    plan: &Plan,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    report: &mut Report<'_>,
) -> Result<fetch::Fetched, Stop> {
    step(
        report,
        "fetch",
        fetch::fetch(stream, &plan.target, plan.patience),
        |fetched| {
            let mut text = format!("HTTP {}, {} bytes", fetched.status.as_u16(), fetched.bytes);
            if fetched.bytes >= MEASURABLE_BYTES {
                let rate =
                    fetched.bytes as f64 * 8.0 / 1e6 / fetched.body_took.as_secs_f64().max(1e-6);
                text += &format!(", {rate:.1} Mbit/s");
            }
            text
        },
    )
    .await
}
