//! What an Azure call has to say for itself, without anything secret.

use std::error::Error as _;

use azure_core::Error;
use azure_core::error::ErrorKind;

/// Status and code of an answer, or what kept it from coming. Bodies are left out: the ones of
/// refused requests may repeat what was signed.
pub fn describe(error: &Error) -> String {
    if let ErrorKind::HttpResponse {
        status, error_code, ..
    } = error.kind()
    {
        let status = u16::from(*status);
        return match error_code {
            Some(code) => format!("HTTP {status} {}", printable(code)),
            None => format!("HTTP {status}"),
        };
    }
    if *error.kind() == ErrorKind::Credential {
        let status = deepest(error).and_then(Error::http_status).map(u16::from);
        return match status {
            Some(status) => format!("no token: HTTP {status}"),
            None => format!("no token: {}", innermost(error)),
        };
    }
    format!("{}: {}", error.kind(), innermost(error))
}

/// Whether the same call may work in a moment. A token that did not come has its own reason.
pub(super) fn is_passing(error: &Error) -> bool {
    let reason = match error.kind() {
        ErrorKind::Credential => deepest(error).unwrap_or(error),
        _ => error,
    };
    match reason.http_status().map(u16::from) {
        Some(status) => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        None => matches!(reason.kind(), ErrorKind::Io | ErrorKind::Connection),
    }
}

/// The last Azure error in the chain.
fn deepest(error: &Error) -> Option<&Error> {
    let mut found = None;
    let mut cause = error.source();
    while let Some(next) = cause {
        found = next.downcast_ref::<Error>().or(found);
        cause = next.source();
    }
    found
}

fn innermost(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = next.to_string();
        cause = next.source();
    }
    printable(&text)
}

fn printable(text: &str) -> String {
    text.chars().take(200).filter(|c| !c.is_control()).collect()
}
