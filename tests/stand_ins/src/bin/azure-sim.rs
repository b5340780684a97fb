//! `azure-sim`: Container Instances, identities and DNS on this machine.
//!
//! ```text
//! azure-sim --directory DIR [--listen IP] [--scale FACTOR] [--runner fake|process|podman]
//!           [--program PATH] [--image IMAGE] [--seccomp PROFILE] [--capabilities default|none]
//!           [--bridge NAME=IP/PREFIX] [--name NAME=IP]… [--azurite TOOLS] [--location]
//! ```
//!
//! It writes `ca.pem` and, once everything listens, `ready.json` into DIR: the addresses, and the
//! handler's settings that belong to them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;
use popup_stand_ins::arm::{Delays, Identity, LongRunning, Roles, Settings};
use popup_stand_ins::azurite::{API_VERSION, Azurite};
use popup_stand_ins::cloud::Cloud;
use popup_stand_ins::dns::Resolver;
use popup_stand_ins::proxy::Proxy;
use popup_stand_ins::runner::{
    Capabilities, FakeRunner, NetworkOptions, PodmanOptions, PodmanRunner, ProcessOptions,
    ProcessRunner, Runner,
};
use popup_stand_ins::server::{App, Server, StorageFront};
use popup_stand_ins::tls::Authority;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const SUBSCRIPTION: &str = "00000000-0000-4000-8000-000000000000";
const RESOURCE_GROUP: &str = "popup";

struct Arguments {
    directory: PathBuf,
    listen: IpAddr,
    scale: f64,
    runner: Kind,
    program: String,
    image: Option<String>,
    seccomp: Option<PathBuf>,
    capabilities: Capabilities,
    bridge: (String, Ipv4Addr, u8),
    names: HashMap<String, Ipv4Addr>,
    azurite: Option<PathBuf>,
    long_running: LongRunning,
}

/// What runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fake,
    Process,
    Podman,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let directory = &arguments.directory;
    let gateway = Identity::of(&format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/popup-gateway"
    ));
    let settings = Settings {
        delays: Delays::recorded().scaled(arguments.scale),
        long_running: arguments.long_running,
        resource_groups: vec![RESOURCE_GROUP.to_owned()],
        identities: vec![gateway.clone()],
        ..Settings::default()
    };
    let (cloud, driver) = Cloud::start(settings, runner(&arguments).await?);
    let authority = Authority::new()?;
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, &authority.pem)
        .with_context(|| format!("cannot write {}", ca.display()))?;
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let certificate = authority.issue(&["localhost"], &[loopback, arguments.listen])?;
    let mut app = App::default();
    app.roles = Roles::of_the_template(
        &format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"),
        &app.identity.principal_id,
        &gateway.principal_id,
        &gateway.resource_id,
    );
    let listen = async || TcpListener::bind((arguments.listen, 0)).await;
    let arm = Server::start(listen().await?, &cloud, app.clone(), Some(&certificate))?;
    let plain = Server::start(listen().await?, &cloud, app.clone(), None)?;
    let dns_port = match arguments.runner {
        Kind::Fake => 0,
        Kind::Process | Kind::Podman => 53,
    };
    let dns = SocketAddr::new(arguments.listen, dns_port);
    let dns = Resolver::start(dns, cloud.names.clone(), arguments.names.clone()).await?;
    let mut handler = json!({
        "SUBSCRIPTION_ID": SUBSCRIPTION,
        "RESOURCE_GROUP": RESOURCE_GROUP,
        "ARM_ENDPOINT": format!("https://{}/", arm.address),
        "TLS_CA_FILE": ca,
        "VPN_DNS_SERVER": dns.address.to_string(),
        "IDENTITY_ENDPOINT": format!("http://{}/msi/token", plain.address),
        "IDENTITY_HEADER": app.header,
        "AZURE_CLIENT_ID": app.identity.client_id,
        "GATEWAY_IDENTITY_ID": gateway.resource_id,
        "GATEWAY_IDENTITY_CLIENT_ID": gateway.client_id,
        "REGIONS": "westeurope",
    });
    if let Some(image) = &arguments.image {
        handler["CONTAINER_IMAGE"] = image.as_str().into();
    }
    let mut storage = None;
    if let Some(tools) = &arguments.azurite {
        let listen = SocketAddr::new(arguments.listen, 0);
        let azurite = Azurite::start(tools, listen, Some((&certificate, &authority.pem))).await?;
        for container in ["control", "status", "keys"] {
            azurite.create_container(container).await?;
        }
        let front = TcpListener::bind(listen).await?;
        let (service, ca) = (azurite.address, &authority.pem);
        let front =
            StorageFront::start(front, &cloud, service, ca, &certificate, app.roles.clone())?;
        let weather = cloud.storage_weather.clone();
        let proxy = Proxy::under(listen, front.address, weather).await?;
        handler["STORAGE_ACCOUNT_URL"] = azurite.url_at(proxy.address).into();
        handler["STORAGE_API_VERSION"] = API_VERSION.into();
        storage = Some((azurite, front, proxy));
    }
    let ready = json!({
        "arm": arm.address,
        "plain": plain.address,
        "dns": dns.address,
        "azurite": storage.as_ref().map(|(azurite, ..)| azurite.address),
        "settings": handler,
    });
    // Whoever waits for the file must not read half of it.
    let (half, file) = (
        directory.join("ready.json.new"),
        directory.join("ready.json"),
    );
    std::fs::write(&half, ready.to_string())?;
    std::fs::rename(&half, &file)?;
    tracing::info!(arm = %arm.address, ready = %file.display(), "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    driver.end().await;
    drop(storage);
    Ok(())
}

async fn runner(arguments: &Arguments) -> anyhow::Result<Arc<dyn Runner>> {
    let (capabilities, network) = (
        arguments.capabilities,
        NetworkOptions {
            bridge: arguments.bridge.clone(),
            resolver: Some(arguments.listen),
        },
    );
    Ok(match arguments.runner {
        Kind::Fake => Arc::new(FakeRunner::default()),
        Kind::Process => Arc::new(
            ProcessRunner::new(ProcessOptions {
                program: vec![arguments.program.clone()],
                capabilities,
                network,
            })
            .await?,
        ),
        Kind::Podman => Arc::new(
            PodmanRunner::new(PodmanOptions {
                capabilities,
                seccomp: arguments.seccomp.clone(),
                network,
            })
            .await?,
        ),
    })
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut arguments = Arguments {
        directory: PathBuf::from("."),
        listen: IpAddr::from(Ipv4Addr::LOCALHOST),
        scale: 1.0,
        runner: Kind::Fake,
        program: "popup-gateway".to_owned(),
        image: None,
        seccomp: None,
        capabilities: Capabilities::Default,
        bridge: ("azure".to_owned(), Ipv4Addr::new(203, 0, 113, 1), 24),
        names: HashMap::new(),
        azurite: None,
        long_running: LongRunning::AsyncOperation,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("directory") => arguments.directory = std::path::absolute(parser.value()?)?,
            Long("listen") => arguments.listen = parser.value()?.parse()?,
            Long("scale") => arguments.scale = parser.value()?.parse()?,
            Long("program") => arguments.program = parser.value()?.string()?,
            Long("image") => arguments.image = Some(parser.value()?.string()?),
            Long("seccomp") => arguments.seccomp = Some(std::path::absolute(parser.value()?)?),
            Long("azurite") => arguments.azurite = Some(std::path::absolute(parser.value()?)?),
            Long("location") => arguments.long_running = LongRunning::Location,
            Long("runner") => match parser.value()?.string()?.as_str() {
                "fake" => arguments.runner = Kind::Fake,
                "process" => arguments.runner = Kind::Process,
                "podman" => arguments.runner = Kind::Podman,
                other => bail!("--runner is fake, process or podman, not {other}"),
            },
            Long("capabilities") => match parser.value()?.string()?.as_str() {
                "default" => arguments.capabilities = Capabilities::Default,
                "none" => arguments.capabilities = Capabilities::None,
                other => bail!("--capabilities is default or none, not {other}"),
            },
            Long("bridge") => {
                let text = parser.value()?.string()?;
                let parts = text.split_once('=').and_then(|(name, network)| {
                    let (ip, prefix) = network.split_once('/')?;
                    Some((name.to_owned(), ip.parse().ok()?, prefix.parse().ok()?))
                });
                arguments.bridge = parts.context("--bridge wants NAME=IP/PREFIX")?;
            }
            Long("name") => {
                let text = parser.value()?.string()?;
                let (name, ip) = text.split_once('=').context("--name wants NAME=IP")?;
                arguments
                    .names
                    .insert(name.to_ascii_lowercase(), ip.parse()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(arguments)
}
