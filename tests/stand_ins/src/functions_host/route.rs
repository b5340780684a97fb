//! Routes of HTTP functions.

/// A route with its prefix: literal parts, `{name}`, `{name?}` and a final `{*rest}`. Constraints
/// (`{id:int}`) are read as plain parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    One,
    Optional,
    Rest,
}

impl Route {
    /// The route `template` below `prefix`.
    pub fn new(prefix: &str, template: &str) -> Self {
        let parts = [prefix, template]
            .into_iter()
            .flat_map(|text| text.split('/'));
        let part = |text: &str| match text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
        {
            Some(name) if name.starts_with('*') => Part::Rest,
            Some(name) if name.ends_with('?') => Part::Optional,
            Some(_) => Part::One,
            None => Part::Literal(text.to_owned()),
        };
        Self(parts.filter(|text| !text.is_empty()).map(part).collect())
    }

    /// Whether a path is this route's. Case does not matter.
    pub fn matches(&self, path: &str) -> bool {
        let mut segments = path
            .trim_matches('/')
            .split('/')
            .filter(|part| !part.is_empty());
        for part in &self.0 {
            match (part, segments.next()) {
                (Part::Rest, _) => return true,
                (Part::Literal(own), Some(segment)) if own.eq_ignore_ascii_case(segment) => {}
                (Part::One | Part::Optional, Some(_)) | (Part::Optional, None) => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_takes_any_number_of_parts_and_none() {
        let route = Route::new("api", "vpn-peers/{*rest}");
        for path in [
            "/api/vpn-peers",
            "/api/vpn-peers/",
            "/api/VPN-Peers/a",
            "/api/vpn-peers/a/b",
        ] {
            assert!(route.matches(path), "{path}");
        }
        for path in ["/vpn-peers", "/api/vpn-peer", "/api"] {
            assert!(!route.matches(path), "{path}");
        }
    }

    #[test]
    fn parameters_are_one_part() {
        let route = Route::new("", "a/{id}/{more?}");
        assert!(route.matches("/a/1") && route.matches("/a/1/2"));
        assert!(!route.matches("/a") && !route.matches("/a/1/2/3"));
    }
}
