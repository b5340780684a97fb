//! The handler's process.
//!
//! Theory of operation: start it, ask `/` every 25 ms until anything answers, and wait for its
//! end. An end that nobody asked for, or a start that takes too long, is an error; the third within
//! 30 minutes shuts the host down, as `HttpFunctionInvocationDispatcher` does.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::{Shared, State, timer};
use crate::client::call;

/// Between two looks at a handler that is starting.
const PROBE: Duration = Duration::from_millis(25);
/// So many errors…
const ERRORS: usize = 3;
/// …within this time are too many.
const WINDOW: Duration = Duration::from_secs(30 * 60);

pub(super) async fn supervise(shared: Arc<Shared>) {
    let mut errors: VecDeque<Instant> = VecDeque::new();
    loop {
        shared.state.send_replace(State::Starting);
        let reason = run(&shared).await;
        tracing::error!("the handler: {reason}");
        shared.log(true, format!("host: {reason}"));
        let now = Instant::now();
        errors.push_back(now);
        errors.retain(|error| now.duration_since(*error) < shared.scaled(WINDOW));
        if errors.len() >= ERRORS {
            shared.log(
                true,
                "host: Exceeded HTTP worker error threshold; shutting down".to_owned(),
            );
            shared.state.send_replace(State::ShutDown);
            return;
        }
    }
}

/// Runs the handler once and says how it ended.
async fn run(shared: &Arc<Shared>) -> String {
    let (mut child, port) = match spawn(shared).await {
        Ok(started) => started,
        Err(error) => return format!("cannot be started: {error}"),
    };
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(log(Arc::clone(shared), false, stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(log(Arc::clone(shared), true, stderr));
    }
    let limit = shared.scaled(shared.package.initialization_timeout);
    tokio::select! {
        status = child.wait() => return ended(status),
        ready = tokio::time::timeout(limit, answers(port)) => if ready.is_err() {
            let _ = child.kill().await;
            return format!("did not answer on port {port} within {limit:?}");
        }
    }
    shared.state.send_replace(State::Ready(port));
    ended(child.wait().await)
}

fn ended(status: std::io::Result<std::process::ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended: {status}"),
        Err(error) => format!("was lost: {error}"),
    }
}

async fn spawn(shared: &Shared) -> std::io::Result<(Child, u16)> {
    // Free now; the real host does the same.
    let port = TcpListener::bind(("127.0.0.1", 0))
        .await?
        .local_addr()?
        .port();
    let package = &shared.package;
    let id = timer::invocation_id();
    let port_text = port.to_string();
    let mut command = Command::new(&package.executable);
    command
        .args(&package.arguments)
        .current_dir(&package.directory)
        .env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .env("FUNCTIONS_WORKER_RUNTIME", "custom")
        .env("WEBSITE_INSTANCE_ID", &id)
        .envs(
            shared
                .options
                .settings
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", &port_text)
        .env("FUNCTIONS_HTTPWORKER_PORT", &port_text)
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", &id)
        .env("FUNCTIONS_HTTPWORKER_ID", &id)
        .env("FUNCTIONS_APP_ROOT_PATH", &shared.options.package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Ok((command.spawn()?, port))
}

/// Any status is an answer; only a socket error is none.
async fn answers(port: u16) {
    while call(([127, 0, 0, 1], port).into(), None, "GET", "/", &[], None)
        .await
        .is_err()
    {
        tokio::time::sleep(PROBE).await;
    }
}

async fn log(shared: Arc<Shared>, error: bool, stream: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        shared.log(error, line);
    }
}
