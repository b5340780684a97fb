//! `popup-vpn check`: a WireGuard client in user space that tries a configuration and says what is
//! wrong with it.
//!
//! Invariant: keys go into the session and nowhere else; no line of output holds one.

mod arguments;
mod conf;
mod diagnosis;
mod dns;
mod fetch;
mod link;
mod netstack;
mod outside;
mod pings;
mod report;
mod steps;
mod stream;
mod target;
mod tunnel;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use popup_model::{KeyError, PrivateKey};
use zeroize::Zeroizing;

use arguments::{Arguments, Command, HELP, Source};
use conf::{Conf, ConfError};
use report::Report;
use steps::Plan;

/// Largest file read. A client's has some 400 bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

/// Why nothing was tried, or why its outcome could not be told.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The command line.
    #[error("{0}; see popup-vpn check --help")]
    Arguments(#[from] lexopt::Error),
    /// A file that cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// A file that no app would import.
    #[error("{0}: {1}")]
    Conf(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key is somewhere else.
    #[error(
        "{0} has no PrivateKey line: this peer's private key was made on its device and never left \
         it. Run the check there, with --private-key-file FILE"
    )]
    NoPrivateKey(PathBuf),
    /// A key file without a key in it.
    #[error("{0}: {1}")]
    PrivateKey(PathBuf, #[source] KeyError),
    /// This machine lets us not even begin.
    #[error("cannot start the check: {0}")]
    Runtime(#[source] io::Error),
    /// Nobody reads.
    #[error("cannot write the outcome: {0}")]
    Output(#[source] io::Error),
}

impl CheckError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Runtime(_) | Self::Output(_) => ExitCode::FAILURE,
            _ => ExitCode::from(EXIT_USAGE),
        }
    }
}

/// Runs the check on the process's own streams. `arguments` are those after `check`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run_with(arguments, &mut io::stdin(), &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Without standard error the exit code has to do.
            let _ = writeln!(io::stderr(), "popup-vpn check: {error}");
            error.exit_code()
        }
    }
}

/// Runs the check, reading a configuration named `-` from `input`. `true` if all steps passed.
pub fn run_with(
    arguments: impl Iterator<Item = OsString>,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<bool, CheckError> {
    let arguments = match arguments::parse(arguments)? {
        Command::Help => {
            return output
                .write_all(HELP.as_bytes())
                .map(|()| true)
                .map_err(CheckError::Output);
        }
        Command::Check(arguments) => arguments,
    };
    let plan = read(arguments, input)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CheckError::Runtime)?;
    let outcome = runtime.block_on(steps::run(&plan, &mut Report::new(output)));
    // A name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    outcome.map_err(CheckError::Output)
}

fn read(arguments: Arguments, input: &mut dyn Read) -> Result<Plan, CheckError> {
    let (text, name) = match arguments.file {
        Source::Input => (read_text(input), PathBuf::from("standard input")),
        Source::File(path) => (read_file(&path), path),
    };
    let text = text.map_err(|error| CheckError::Read(name.clone(), error))?;
    let mut conf: Conf = text
        .parse()
        .map_err(|error: ConfError| CheckError::Conf(name.clone(), error.into()))?;
    let private_key = match arguments.private_key_file {
        None => conf
            .private_key
            .take()
            .ok_or(CheckError::NoPrivateKey(name))?,
        Some(path) => {
            let text = read_file(&path).map_err(|error| CheckError::Read(path.clone(), error))?;
            text.trim()
                .parse::<PrivateKey>()
                .map_err(|error| CheckError::PrivateKey(path, error))?
        }
    };
    Ok(Plan {
        conf,
        private_key,
        target: arguments.target,
        patience: arguments.patience,
    })
}

fn read_file(path: &std::path::Path) -> io::Result<Zeroizing<String>> {
    read_text(&mut std::fs::File::open(path)?)
}

fn read_text(reader: &mut dyn Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    reader.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
