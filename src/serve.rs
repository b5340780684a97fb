//! The handler's life: listen, keep the plan, and end in good order.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use popup_model::StopReason;
use popup_store::{DirectoryStore, DocumentStore};
use popup_vpn::config::{AzureSettings, BackendSettings, LocalSettings, Settings, SettingsError};
use popup_vpn::http::{self, Boundary};
use popup_vpn::local::LocalBackend;
use popup_vpn::vpn::{Backend, Service, SystemClock};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info};

/// How often the plan is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long requests may go on after a signal.
const DRAIN: Duration = Duration::from_secs(5);
/// 128 + SIGINT: what shells say of a program that was interrupted.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs until a signal.
#[tokio::main]
pub(crate) async fn run(settings: Result<Settings, SettingsError>) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            error!("{error}");
            let routes = http::misconfigured(error.to_string(), boundary(error.hosted));
            return listen(bind(error.port).await?, routes, stop).await;
        }
    };
    match &settings.backend {
        BackendSettings::Local(local) => serve_local(&settings, local, stop).await,
        BackendSettings::Azure(azure) => serve_azure(&settings, azure, stop).await,
    }
}

/// Gateways are children of this process, whose tick keeps them as they should be.
async fn serve_local(
    settings: &Settings,
    local: &LocalSettings,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let state_dir = &local.state_dir;
    let store = DirectoryStore::open(state_dir)
        .with_context(|| format!("cannot use the state directory {}", state_dir.display()))?;
    let listener = bind(settings.port).await?;
    let backend = Arc::new(LocalBackend::new(local.clone(), &settings.log));
    let service = service(settings, Arc::new(store), backend.clone());
    tokio::spawn(tell_those_who_wait(Arc::clone(&service), stop.clone()));
    let ticker = tokio::spawn(tick(Arc::clone(&service), stop.clone()));
    let routes = http::router(Arc::clone(&service), boundary(settings.hosted));
    listen(listener, routes, stop).await?;
    ticker.await.context("the tick ended early")?;
    for region in backend.answers_for() {
        let stopped = service
            .stop(Some(&region), StopReason::HandlerStopped)
            .await;
        if let Err(error) = stopped {
            error!(%region, error = error.internal(), "the gateway may go on until its lease ends");
        }
    }
    Ok(())
}

/// Gateways live on without this process; the timer function keeps them as they should be.
async fn serve_azure(
    settings: &Settings,
    azure: &AzureSettings,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let routes = match popup_vpn::azure::open(azure) {
        Ok((store, backend)) => {
            let service = service(settings, Arc::new(store), Arc::new(backend));
            tokio::spawn(tell_those_who_wait(Arc::clone(&service), stop.clone()));
            http::router(service, boundary(settings.hosted))
        }
        Err(error) if settings.under_functions => {
            error!("{error}");
            http::misconfigured(error.to_string(), boundary(settings.hosted))
        }
        Err(error) => return Err(error.into()),
    };
    listen(bind(settings.port).await?, routes, stop).await
}

fn service(
    settings: &Settings,
    store: Arc<dyn DocumentStore>,
    backend: Arc<dyn Backend>,
) -> Arc<Service> {
    Arc::new(Service::new(
        store,
        backend,
        Arc::new(SystemClock),
        settings.vpn.clone(),
    ))
}

fn boundary(hosted: bool) -> Boundary {
    if hosted {
        Boundary::Hosted
    } else {
        Boundary::Local
    }
}

/// The Functions host connects to this very address, and nobody else should.
async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}; set another port with FUNCTIONS_CUSTOMHANDLER_PORT"))?;
    info!(address = %listener.local_addr()?, "listening");
    Ok(listener)
}

async fn listen(
    listener: TcpListener,
    routes: Router,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut signalled = stop.clone();
    let begin_drain = async move { stopped(&mut stop).await };
    let server = axum::serve(listener, routes).with_graceful_shutdown(begin_drain);
    let drained = async {
        stopped(&mut signalled).await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        served = async { server.await } => served.context("the server ended"),
        () = drained => Ok(()),
    }
}

async fn tell_those_who_wait(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    stopped(&mut stop).await;
    service.begin_shutdown();
}

/// Keeps every region as it should be, until the handler ends.
async fn tick(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => drop(service.tick().await),
            () = stopped(&mut stop) => return,
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Becomes true at SIGTERM or SIGINT. A second one ends the process at once, as people expect.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for already in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if already {
                std::process::exit(EXIT_INTERRUPTED);
            }
            info!("ending");
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}
