//! The command line of `popup-vpn check`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use super::target::{DEFAULT_URL, Target};

/// Patience with each step: three handshakes, which WireGuard sends 5 s apart.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(15);

/// What `--help` prints.
pub(super) const HELP: &str = "\
Tries a WireGuard client configuration, without root and without a network interface.

Usage: popup-vpn check [OPTIONS] FILE.conf

  FILE.conf                 the configuration to try; - reads it from standard input

Options:
  --url URL                 what to fetch through the tunnel
                            (default https://www.cloudflare.com/cdn-cgi/trace, which
                            tells the address from which the internet sees you)
  --private-key-file FILE   the private key, for a configuration that has none because
                            the key never left its device
  --timeout SECONDS         patience with each step (default 15)
  --help                    this text

It resolves the endpoint, makes a handshake, pings the gateway, asks the file's DNS
server and fetches the URL, all in user space, and prints how long each step took.
Where one fails it says what to try. Keys are never printed.

A WireGuard key belongs to one client at a time: trying the configuration of a client
that is connected takes over its session while the check runs, and until that client
sends again.

Exit code: 0 all steps passed; 1 a step failed; 64 the command line or the file is not
right, and nothing was tried.
";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// Print the help.
    Help,
    /// Try a configuration.
    Check(Arguments),
}

/// What to try, and how.
#[derive(Debug, PartialEq)]
pub(super) struct Arguments {
    /// Where the configuration is.
    pub(super) file: Source,
    /// Where the private key is, if not in the configuration.
    pub(super) private_key_file: Option<PathBuf>,
    /// What to fetch.
    pub(super) target: Target,
    /// Patience with each step.
    pub(super) patience: Duration,
}

/// Where a configuration comes from.
#[derive(Debug, PartialEq)]
pub(super) enum Source {
    /// Standard input.
    Input,
    /// A file.
    File(PathBuf),
}

/// Parses the arguments after `check`.
pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments.collect::<Vec<_>>());
    let (mut file, mut private_key_file, mut patience) = (None, None, DEFAULT_PATIENCE);
    let mut url = DEFAULT_URL.to_owned();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("url") => url = parser.value()?.string()?,
            Long("private-key-file") => private_key_file = Some(PathBuf::from(parser.value()?)),
            Long("timeout") => patience = parser.value()?.parse_with(parse_patience)?,
            Value(value) if file.is_none() => {
                file = Some(if value == "-" {
                    Source::Input
                } else {
                    Source::File(value.into())
                });
            }
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Command::Check(Arguments {
        file: file.ok_or("no configuration given; try: popup-vpn check popup.conf")?,
        private_key_file,
        target: url
            .parse()
            .map_err(|error| lexopt::Error::Custom(Box::new(error)))?,
        patience,
    }))
}

fn parse_patience(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if (0.1..=600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("the patience is 0.1 to 600 seconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arguments: &[&str]) -> Result<Command, lexopt::Error> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn a_file_is_enough() {
        let Ok(Command::Check(arguments)) = command(&["a.conf"]) else {
            panic!("not a check")
        };
        assert_eq!(arguments.file, Source::File("a.conf".into()));
        assert_eq!(arguments.target, DEFAULT_URL.parse().unwrap());
        assert_eq!(arguments.patience, DEFAULT_PATIENCE);
    }

    #[test]
    fn options_are_understood_in_any_order() {
        let line = [
            "--timeout",
            "0.5",
            "-",
            "--url=http://203.0.113.1/",
            "--private-key-file",
            "key",
        ];
        let Ok(Command::Check(arguments)) = command(&line) else {
            panic!("not a check")
        };
        assert_eq!(arguments.file, Source::Input);
        assert_eq!(arguments.patience, Duration::from_millis(500));
        assert_eq!(arguments.private_key_file, Some("key".into()));
        assert_eq!(command(&["--help"]).unwrap(), Command::Help);
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for line in [
            &[][..],
            &["a", "b"],
            &["a", "--no-such-option"],
            &["a", "--url"],
            &["a", "--url", "nonsense"],
            &["a", "--timeout", "0"],
            &["a", "--timeout", "nan"],
        ] {
            assert!(command(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn help_warns_of_the_takeover() {
        assert!(HELP.contains("takes over its session") && HELP.contains(DEFAULT_URL));
    }
}
