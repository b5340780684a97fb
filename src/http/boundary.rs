//! Who may call at all.
//!
//! On a person's machine any web page can send requests to this handler, directly or by a DNS
//! name that it points to 127.0.0.1. So outside Azure the Host must be a loopback name, and what
//! the browser says about the page (`Origin`, `Sec-Fetch-Site`) must name this handler itself.
//! No CORS header is ever sent. In Azure the Functions host has checked the key, and the Host is
//! the function app's.

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::call::AuthContext;
use super::respond::Failure;
use crate::error::Error;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// From programs on this machine.
    Local,
    /// From the Functions host in Azure, which has checked the function key.
    Hosted,
}

pub(super) async fn guard(
    State(boundary): State<Boundary>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = match boundary {
        Boundary::Hosted => AuthContext::FunctionKey,
        Boundary::Local => match check(&request) {
            Ok(()) => AuthContext::Local,
            Err(error) => return Failure::new("Error", error).into_response(),
        },
    };
    tracing::Span::current().record("auth", tracing::field::debug(context));
    request.extensions_mut().insert(context);
    next.run(request).await
}

fn check(request: &Request) -> Result<(), Error> {
    let headers = request.headers();
    let host = only(headers, &HOST)
        .filter(|host| is_loopback(host))
        .ok_or(Error::ForeignHost)?;
    // The absolute form of a request target overrides Host (RFC 9112, section 3.2.2).
    if request
        .uri()
        .authority()
        .is_some_and(|authority| authority.as_str() != host)
    {
        return Err(Error::ForeignHost);
    }
    if headers.contains_key(ORIGIN) {
        let own = only(headers, &ORIGIN)
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|origin| origin.eq_ignore_ascii_case(host));
        if !own {
            return Err(Error::ForeignOrigin);
        }
    }
    let foreign = |site: &str| {
        !site.eq_ignore_ascii_case("same-origin") && !site.eq_ignore_ascii_case("none")
    };
    if headers.contains_key(&SEC_FETCH_SITE) && only(headers, &SEC_FETCH_SITE).is_none_or(foreign) {
        return Err(Error::ForeignOrigin);
    }
    Ok(())
}

/// The header's text, if it is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() {
        None
    } else {
        first.to_str().ok()
    }
}

fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let loopback = ["127.0.0.1", "[::1]"].contains(&name) || name.eq_ignore_ascii_case("localhost");
    loopback && port_is_fine
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn refused(headers: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = Request::builder().uri("/api/vpn-status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(Body::empty()).unwrap())
            .err()
            .map(|error| error.code())
    }

    #[test]
    fn the_machines_own_names_are_accepted() {
        for host in [
            "localhost",
            "localhost:7071",
            "LOCALHOST:1",
            "127.0.0.1:7071",
            "[::1]",
            "[::1]:7071",
        ] {
            assert_eq!(refused(&[("host", host)]), None, "{host}");
        }
    }

    #[test]
    fn a_name_that_only_resolves_here_is_refused() {
        for host in [
            "evil.example",
            "evil.example:7071",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:x",
            "localhost:7071:7071",
            "",
            "user@localhost",
            "127.0.0.2",
            "[::1",
            "::1",
        ] {
            assert_eq!(refused(&[("host", host)]), Some("ForeignHost"), "{host}");
        }
        assert_eq!(refused(&[]), Some("ForeignHost"));
        assert_eq!(
            refused(&[("host", "localhost"), ("host", "evil.example")]),
            Some("ForeignHost")
        );
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let host = ("host", "localhost:7071");
        assert_eq!(refused(&[host, ("origin", "http://localhost:7071")]), None);
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "https://localhost:7071",
            "http://localhost",
            "http://127.0.0.1:7071",
        ] {
            assert_eq!(
                refused(&[host, ("origin", origin)]),
                Some("ForeignOrigin"),
                "{origin}"
            );
        }
    }

    #[test]
    fn what_the_browser_calls_another_site_is_refused() {
        let host = ("host", "localhost:7071");
        for site in ["none", "same-origin"] {
            assert_eq!(refused(&[host, ("sec-fetch-site", site)]), None, "{site}");
        }
        for site in ["cross-site", "same-site", "Cross-Site", "", "else"] {
            assert_eq!(
                refused(&[host, ("sec-fetch-site", site)]),
                Some("ForeignOrigin"),
                "{site}"
            );
        }
    }
}
