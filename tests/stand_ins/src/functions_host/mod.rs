//! A double of the Azure Functions host, as far as custom handlers can tell.
//!
//! It reads the package (`host.json` and the `function.json` files), starts the handler, waits for
//! it, proxies HTTP functions, delivers timers, and restarts the handler or gives up by the host's
//! rules. Sources: Azure/azure-functions-host (`DefaultHttpWorkerService`,
//! `HttpFunctionInvocationDispatcher`, `HttpWorkerProcess`, `ScriptInvocationContextExtensions`)
//! and Azure-Docs "Azure Functions custom handlers".

mod front;
mod package;
mod route;
mod schedule;
mod timer;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use package::{AuthLevel, Function, Package, PackageError, Trigger};
pub use route::Route;
pub use schedule::Schedule;

/// How the host is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory with `host.json`.
    pub package: PathBuf,
    /// The app settings; the handler gets them as environment variables.
    pub settings: Vec<(String, String)>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Its keys.
    pub keys: Keys,
    /// Its own limits (230 s for a request, 30 s for a start, 30 min for errors) are multiplied by
    /// this.
    pub scale: f64,
    /// Whether timers fire by their schedules; `POST /admin/functions/{name}` always works.
    pub timers: bool,
}

/// Keys of a function app.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Good for every function of level `function`.
    pub host: String,
    /// Good for everything.
    pub master: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            host: "host-key".to_owned(),
            master: "master-key".to_owned(),
        }
    }
}

impl Options {
    /// For this package, on any free port of the loopback interface.
    pub fn new(package: impl Into<PathBuf>) -> Self {
        Self {
            package: package.into(),
            settings: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keys: Keys::default(),
            scale: 1.0,
            timers: false,
        }
    }

    /// With an app setting.
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }
}

/// The host could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The package is wrong.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// It cannot listen.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

/// A line that the handler has written, as the host logs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Written to stderr, which the host logs as an error.
    pub error: bool,
    /// The line.
    pub text: String,
}

/// A function that the host has invoked by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Which.
    pub function: String,
    /// Whether the handler answered 2xx.
    pub succeeded: bool,
    /// The status and the answer, or why there is none.
    pub outcome: String,
}

/// How the handler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It has been started and does not answer yet.
    Starting,
    /// It answers at this port.
    Ready(u16),
    /// It has failed too often: the host has given up.
    ShutDown,
}

/// What the parts of the host share.
#[derive(Debug)]
pub(crate) struct Shared {
    options: Options,
    package: Package,
    state: watch::Sender<State>,
    log: Mutex<Vec<LogLine>>,
    invocations: Mutex<Vec<Invocation>>,
}

impl Shared {
    fn scaled(&self, limit: Duration) -> Duration {
        limit.mul_f64(self.options.scale.max(0.0))
    }

    fn log(&self, error: bool, text: String) {
        if error {
            tracing::error!(target: "handler", "{text}");
        } else {
            tracing::info!(target: "handler", "{text}");
        }
        lock(&self.log).push(LogLine { error, text });
    }

    /// The handler's port, once it is ready.
    async fn port(&self) -> Option<u16> {
        let mut state = self.state.subscribe();
        let settled = state
            .wait_for(|state| *state != State::Starting)
            .await
            .ok()?;
        match *settled {
            State::Ready(port) => Some(port),
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running host; the handler ends with it.
#[derive(Debug)]
pub struct FunctionsHost {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl FunctionsHost {
    /// Starts the host. It listens at once; requests wait for the handler.
    pub async fn start(options: Options) -> Result<Self, HostError> {
        let package = Package::read(&options.package)?;
        let failed = |error| HostError::Listen(options.listen, error);
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            options,
            package,
            state: watch::Sender::new(State::Starting),
            log: Mutex::default(),
            invocations: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(worker::supervise(Arc::clone(&shared)));
        tasks.spawn(front::serve(Arc::clone(&shared), listener));
        if shared.options.timers {
            for function in shared.package.timers() {
                tasks.spawn(timer::keep(Arc::clone(&shared), function.clone()));
            }
        }
        Ok(Self {
            address,
            shared,
            _tasks: tasks,
        })
    }

    /// How the handler is.
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Waits until the handler is ready; false when the host has given up.
    pub async fn ready(&self) -> bool {
        self.shared.port().await.is_some()
    }

    /// Waits until the host has given up.
    pub async fn shut_down(&self) {
        let mut state = self.shared.state.subscribe();
        let _ = state.wait_for(|state| *state == State::ShutDown).await;
    }

    /// What the handler has written.
    pub fn log(&self) -> Vec<LogLine> {
        lock(&self.shared.log).clone()
    }

    /// Fires a timer now.
    pub async fn fire(&self, function: &str) -> Option<Invocation> {
        let function = self.shared.package.function(function)?;
        Some(timer::fire(&self.shared, function, false).await)
    }
}
