//! `popup-gateway`: a WireGuard exit that needs no privilege.
//!
//! Two threads: the packet loop (`io`), which runs each batch of input to completion, and the
//! control loop (`control`), which reads the documents, reports, and ends the process in time.

mod control;
mod io;
mod kernel_path;
mod logging;
mod privileges;
mod settings;
mod uapi;

use std::process::ExitCode;

use settings::Settings;

/// Exit code 0 means "do not start me again": the lease is over, somebody asked, another lease is
/// in force, or the configuration cannot work. Only a panic ends with another code.
fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    logging::start(&environment);
    let settings = match Settings::from_environment(&environment) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::SUCCESS;
        }
    };
    io::keep_memory_elastic();
    // Before the runtime, which may start threads.
    let prepared = match control::Prepared::new(&settings) {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::error!("privileges cannot be given up: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(control::run(settings, prepared));
    // A thread that hangs in the lookup of a name or in a directory cannot be ended, and must not
    // keep the process beyond its time.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
