//! `functions-host-double --package DIR [--listen ADDRESS] [--setting NAME=VALUE]…
//! [--settings-from FILE] [--key KEY] [--timers] [--scale FACTOR] [--ready-file FILE]`

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;
use popup_stand_ins::functions_host::{FunctionsHost, Options};
use tokio::signal::unix::{SignalKind, signal};

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
    let (options, ready_file) = arguments()?;
    let host = FunctionsHost::start(options).await?;
    let url = format!("http://{}", host.address);
    tracing::info!(url, "listening");
    if let Some(file) = ready_file {
        std::fs::write(&file, url).with_context(|| format!("cannot write {file}"))?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = host.shut_down() => bail!("the handler failed too often"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn arguments() -> anyhow::Result<(Options, Option<String>)> {
    let mut options = Options::new(".");
    let mut ready_file = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("package") => options.package = std::path::absolute(parser.value()?)?,
            Long("listen") => options.listen = parser.value()?.parse()?,
            Long("key") => options.keys.host = parser.value()?.string()?,
            Long("timers") => options.timers = true,
            Long("scale") => options.scale = parser.value()?.parse()?,
            Long("ready-file") => ready_file = Some(parser.value()?.string()?),
            Long("setting") => {
                let text = parser.value()?.string()?;
                let (name, value) = text.split_once('=').context("--setting wants NAME=VALUE")?;
                options.settings.push((name.to_owned(), value.to_owned()));
            }
            Long("settings-from") => settings_from(&parser.value()?.string()?, &mut options)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok((options, ready_file))
}

/// Takes the handler's settings from the `ready.json` of `azure-sim`.
fn settings_from(file: &str, options: &mut Options) -> anyhow::Result<()> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
    let ready: serde_json::Value = serde_json::from_slice(&text)?;
    let settings = ready["settings"]
        .as_object()
        .context("there are no settings")?;
    for (name, value) in settings {
        let value = value.as_str().unwrap_or_default();
        options.settings.push((name.clone(), value.to_owned()));
    }
    Ok(())
}
