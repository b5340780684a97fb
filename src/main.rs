//! `popup-vpn`: the handler, and `popup-vpn check`.

mod serve;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use popup_vpn::config::{LogSettings, Settings};
use tracing::{Level, error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

/// `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(argument) if argument == "check" => return popup_vpn::check::run(arguments),
        Some(_) => return usage("popup-vpn takes no arguments, or: popup-vpn check FILE.conf"),
        None => {}
    }
    let variable = |name: &str| std::env::var_os(name).map(|text| text.to_string_lossy().into());
    let settings = Settings::read(&variable);
    match &settings {
        Ok(settings) => start_logging(&settings.log),
        // Under Functions it is told on every route instead.
        Err(error) if error.under_functions => start_logging(&error.log),
        Err(error) => return usage(&error.to_string()),
    }
    match serve::run(settings) {
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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // What is on stderr is an error to the Functions host.
        .with_writer(
            std::io::stderr
                .with_max_level(Level::ERROR)
                .or_else(std::io::stdout),
        )
        .with_ansi(std::io::stdout().is_terminal());
    if log.json {
        builder.json().init();
    } else {
        builder.init();
    }
}
