//! `popup-vpn`: the handler, and `popup-vpn check`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|argument| argument == "check") {
        return popup_vpn::check::run(arguments);
    }
    ExitCode::SUCCESS
}
