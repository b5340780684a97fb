//! `popup-vpn`: the handler, and `popup-vpn check`.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use popup_model::StopReason;
use popup_store::DirectoryStore;
use popup_vpn::config::{LogSettings, Settings, SettingsError};
use popup_vpn::http::{self, Boundary};
use popup_vpn::local::LocalBackend;
use popup_vpn::vpn::{Service, SystemClock};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// How often the plan is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long requests may go on after a signal.
const DRAIN: Duration = Duration::from_secs(5);
/// `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(argument) if argument == "check" => return popup_vpn::check::run(arguments),
        Some(_) => return usage("popup-vpn takes no arguments, or: popup-vpn check FILE.conf"),
        None => {}
    }
    let settings = Settings::read(&|name| std::env::var(name).ok());
    let (log, under_functions) = match &settings {
        Ok(settings) => (&settings.log, settings.under_functions),
        Err(error) => (&error.log, error.under_functions),
    };
    if let Err(error) = &settings
        && !under_functions
    {
        return usage(&error.to_string());
    }
    start_logging(log);
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn usage(text: &str) -> ExitCode {
    eprintln!("popup-vpn: {text}");
    ExitCode::from(EXIT_USAGE)
}

fn start_logging(log: &LogSettings) {
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    if log.json {
        builder.json().init()
    } else {
        builder.init()
    }
}

#[tokio::main]
async fn serve(settings: Result<Settings, SettingsError>) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let boundary = |hosted| {
        if hosted {
            Boundary::Hosted
        } else {
            Boundary::Local
        }
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            error!("{error}");
            let routes = http::misconfigured(error.to_string(), boundary(error.hosted));
            return listen(routes, error.port, stop).await;
        }
    };
    let state_dir = &settings.local.state_dir;
    let store = DirectoryStore::open(state_dir)
        .with_context(|| format!("cannot use the state directory {}", state_dir.display()))?;
    let backend = Arc::new(LocalBackend::new(settings.local.clone(), &settings.log));
    let clock = Arc::new(SystemClock);
    let service = Service::new(
        Arc::new(store),
        backend.clone(),
        clock,
        settings.vpn.clone(),
    );
    let service = Arc::new(service);
    let ticker = tokio::spawn(tick(Arc::clone(&service), stop.clone()));
    let routes = http::router(Arc::clone(&service), boundary(settings.hosted));
    let served = listen(routes, settings.port, stop).await;
    ticker.await.context("the tick ended early")?;
    for region in backend.answers_for() {
        if let Err(error) = service
            .stop(Some(&region), StopReason::HandlerStopped)
            .await
        {
            error!(%region, error = error.internal(), "the gateway may go on until its lease ends");
        }
    }
    served
}

/// Keeps every region as it should be, until the handler ends.
async fn tick(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => service.tick().await,
            () = stopped(&mut stop) => return service.begin_shutdown(),
        }
    }
}

async fn listen(routes: Router, port: u16, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    // The Functions host connects to this very address, and nobody else should.
    let address = (Ipv4Addr::LOCALHOST, port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}; is another one running?"))?;
    info!(address = %listener.local_addr()?, "listening");
    let mut signalled = stop.clone();
    let begin_drain = async move { stopped(&mut stop).await };
    let server = axum::serve(listener, routes).with_graceful_shutdown(begin_drain);
    let drained = async {
        stopped(&mut signalled).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = async { server.await } => served.context("the server ended"),
        () = drained => Ok(()),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Becomes true at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("ending");
        sender.send_replace(true);
        // A second signal ends the process at once, as everybody expects.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(receiver)
}
