//! Names of images, in the grammar of the distribution project's `reference` package.

/// `[host[:port]/]path[:tag][@sha256:digest]`.
pub(super) fn is_reference(text: &str) -> bool {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let path = match name.split_once('/') {
        Some((host, path)) if is_registry(host) => path,
        _ => name,
    };
    name.len() <= 255
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// What comes before the first slash is a registry when it cannot be a part of a path.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host_like = host == "localhost" || host.contains('.') || port.is_some();
    host_like
        && super::is_host(host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_component(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<u8>| b.is_some_and(inner);
    ends(text.bytes().next())
        && ends(text.bytes().last())
        && text.bytes().all(|b| inner(b) || b"._-".contains(&b))
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b".-".contains(&b))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        hex.len() == 64 && hex.bytes().all(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_what_azure_would_refuse() {
        let digest = format!("ghcr.io/a/b@sha256:{}", "0".repeat(64));
        for good in [
            "alpine",
            "library/alpine:3.20",
            "ghcr.io/popup-vpn/popup-gateway:latest",
            "registry.azurecr.io:443/gateway:v1.0_x-2",
            "localhost/popup-gateway:offline",
            digest.as_str(),
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "alpine:",
            ":latest",
            "Alpine",
            "ghcr.io/Owner/name",
            "ghcr.io//name",
            "https://ghcr.io/owner/name",
            "ghcr.io/owner/name:-x",
            "ghcr.io/owner/name@sha256:12",
            "ghcr.io:0/name",
            "ghcr.io/name\n",
        ] {
            assert!(!is_reference(bad), "{bad:?}");
        }
    }
}
