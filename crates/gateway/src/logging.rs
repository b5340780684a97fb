//! Logs on stdout. Never keys, and no destination above TRACE.

use tracing_subscriber::EnvFilter;

/// The WireGuard library calls the end of every idle session an error.
const DEFAULT_FILTER: &str = "info,boringtun=off";

/// Starts logging as `RUST_LOG` and `LOG_FORMAT` (`text` or `json`) say.
pub(crate) fn start(environment: &dyn Fn(&str) -> Option<String>) {
    let filter = environment("RUST_LOG")
        .and_then(|text| EnvFilter::try_new(format!("boringtun=off,{text}")).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
    let started = match environment("LOG_FORMAT").as_deref() {
        Some("json") => builder.json().try_init(),
        _ => builder.with_ansi(false).try_init(),
    };
    drop(started); // Fails only when logging has been started before.
}
