//! From bytes to types.
//!
//! Invariant: what leaves this module has been parsed; an error message holds a caller's text
//! only as a shortened, printable field name.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Query, Request};
use axum::http::HeaderName;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderValue, Uri};
use http_body_util::LengthLimitError;
use ipnet::IpNet;
use popup_model::{MAX_MTU, MIN_MTU, PeerName, Region};
use serde_json::{Map, Value};

use super::MAX_BODY_BYTES;
use crate::error::Error;
use crate::vpn::{ClientWish, PeerRequest, PeerWish, StartRequest};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// As many as resolvers use (glibc stops at three) and then some.
const MAX_DNS: usize = 8;
/// Enough for any split tunnel that a person writes.
const MAX_ALLOWED_IPS: usize = 64;
/// A week.
const MAX_MINUTES: u64 = 7 * 24 * 60;

/// Reads the body: a JSON object, or nothing, which is an empty one.
pub(super) async fn body(request: Request) -> Result<Fields, Error> {
    let (parts, body) = request.into_parts();
    let too_large = Error::BodyTooLarge {
        limit: MAX_BODY_BYTES,
    };
    let announced = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large);
    }
    let bytes = match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            let too_much = error.into_inner().is::<LengthLimitError>();
            return Err(if too_much {
                too_large
            } else {
                Error::BodyIncomplete
            });
        }
        Err(_) => return Err(Error::BodyIncomplete),
    };
    if bytes.is_empty() {
        return Ok(Fields::default());
    }
    if !parts.headers.get(CONTENT_TYPE).is_some_and(is_json) {
        return Err(Error::UnsupportedMediaType);
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(Fields { map, within: "" }),
        Ok(_) => Err(Error::InvalidJson(
            "the body must be a JSON object".to_owned(),
        )),
        // serde_json names the place and what it expected, never what it found.
        Err(error) => Err(Error::InvalidJson(format!("the body is not JSON: {error}"))),
    }
}

fn is_json(value: &HeaderValue) -> bool {
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The members of an object that have not been looked at yet.
#[derive(Debug, Default)]
pub(super) struct Fields {
    map: Map<String, Value>,
    within: &'static str,
}

impl Fields {
    /// A member; `null` is as good as absent.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// All members must have been taken by now.
    fn finish(self, known: &[&str]) -> Result<(), Error> {
        if self.map.is_empty() {
            return Ok(());
        }
        let within = self.within;
        let name = |key: &String| -> String {
            let short: String = key.chars().take(40).collect();
            format!("\"{within}{}\"", short.escape_default())
        };
        let fields: Vec<String> = self.map.keys().take(5).map(name).collect();
        Err(Error::UnknownField {
            fields: fields.join(", "),
            known: known.join(", "),
        })
    }
}

/// The body of a start.
pub(super) fn start(mut fields: Fields, config_required: bool) -> Result<StartRequest, Error> {
    let region = region(&mut fields)?;
    let peer = match fields.map.remove("peer") {
        None => PeerRequest::Unsaid,
        Some(Value::Null) => PeerRequest::Nobody,
        Some(Value::Object(map)) => PeerRequest::Wanted(peer(Fields {
            map,
            within: "peer.",
        })?),
        Some(_) => {
            return Err(Error::InvalidPeer(
                "peer must be an object, or null for none",
            ));
        }
    };
    let client = ClientWish {
        dns: fields.take("dns").map(dns).transpose()?,
        allowed_ips: fields.take("allowedIps").map(allowed_ips).transpose()?,
        mtu: fields.take("mtu").map(mtu).transpose()?,
    };
    let lifetime = fields
        .take("lifetimeMinutes")
        .map(|value| minutes(&value, 1).map_err(Error::InvalidLifetime))
        .transpose()?;
    let idle_timeout = fields
        .take("idleMinutes")
        .map(|value| minutes(&value, 0).map_err(Error::InvalidIdle))
        .transpose()?
        .map(|timeout| Some(timeout).filter(|timeout| !timeout.is_zero()));
    fields.finish(&[
        "region",
        "peer",
        "dns",
        "allowedIps",
        "mtu",
        "lifetimeMinutes",
        "idleMinutes",
    ])?;
    Ok(StartRequest {
        region,
        peer,
        client,
        lifetime,
        idle_timeout,
        config_required,
        respond_async: false,
    })
}

/// The body of a stop.
pub(super) fn stop(mut fields: Fields) -> Result<Option<Region>, Error> {
    let region = region(&mut fields)?;
    fields.finish(&["region"])?;
    Ok(region)
}

/// A peer's name from a path.
pub(super) fn peer_name(text: &str) -> Result<PeerName, Error> {
    text.parse()
        .map_err(|error| Error::InvalidPeerName(format!("{error}")))
}

/// `?region=`.
pub(super) fn region_in_query(uri: &Uri) -> Result<Option<Region>, Error> {
    let invalid = |error: popup_model::NameError| Error::InvalidRegion(error.to_string());
    query(uri, "region")
        .map(|text| text.parse().map_err(invalid))
        .transpose()
}

/// `Prefer: respond-async` (RFC 7240, section 4.1).
pub(super) fn wants_no_wait(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.any(|preference| {
        let name = preference.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("respond-async")
    })
}

/// `?format=conf`, or else whichever of the two kinds `Accept` names first.
pub(super) fn wants_conf(headers: &HeaderMap, uri: &Uri) -> Result<bool, Error> {
    match query(uri, "format").as_deref() {
        Some("conf") => return Ok(true),
        Some("json") => return Ok(false),
        Some(_) => return Err(Error::InvalidFormat),
        None => {}
    }
    let kinds = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut kinds = kinds.flat_map(|value| value.split(',')).map(|kind| {
        kind.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    let first = kinds.find(|kind| kind == "text/plain" || kind == "application/json");
    Ok(first.as_deref() == Some("text/plain"))
}

/// Other parameters are none of our business: `code` is the function key.
fn query(uri: &Uri, name: &str) -> Option<String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    pairs
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

fn region(fields: &mut Fields) -> Result<Option<Region>, Error> {
    fields
        .take("region")
        .map(|value| parsed(&value).map_err(Error::InvalidRegion))
        .transpose()
}

fn peer(mut fields: Fields) -> Result<PeerWish, Error> {
    let name = fields
        .take("name")
        .map(|value| parsed(&value).map_err(Error::InvalidPeerName))
        .transpose()?;
    let public_key = fields
        .take("publicKey")
        .map(|value| parsed(&value).map_err(Error::InvalidPublicKey))
        .transpose()?;
    let mut flag = |name, error| match fields.take(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(Error::InvalidPeer(error)),
    };
    let preshared_key = flag("presharedKey", "peer.presharedKey must be true or false")?;
    let replace = flag("replace", "peer.replace must be true or false")?.unwrap_or(false);
    fields.finish(&["name", "publicKey", "presharedKey", "replace"])?;
    if replace && name.is_none() {
        return Err(Error::InvalidPeer(
            "peer.replace needs peer.name: whose keys are replaced?",
        ));
    }
    Ok(PeerWish {
        name,
        public_key,
        preshared_key: preshared_key.unwrap_or(true),
        replace,
    })
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(value: &Value) -> Result<T, String> {
    let text = value
        .as_str()
        .ok_or_else(|| "must be a string".to_owned())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn dns(value: Value) -> Result<Vec<IpAddr>, Error> {
    let wrong = || {
        Error::InvalidDns(format!(
            "must be up to {MAX_DNS} IP addresses such as [\"1.1.1.1\"]"
        ))
    };
    let usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    distinct(value, MAX_DNS, |text| text.parse().ok().filter(usable)).ok_or_else(wrong)
}

fn allowed_ips(value: Value) -> Result<Vec<IpNet>, Error> {
    let network = |text: &str| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse::<IpNet>()
            .ok()
            .or_else(address)
            .map(|net| net.trunc())
    };
    let nets = distinct(value, MAX_ALLOWED_IPS, network).filter(|nets| !nets.is_empty());
    nets.ok_or_else(|| {
        let kind = "networks such as [\"0.0.0.0/0\", \"::/0\"]";
        Error::InvalidAllowedIps(format!("must be 1 to {MAX_ALLOWED_IPS} {kind}"))
    })
}

/// A list, or a text with commas as it stands in a `.conf`, without repetitions.
fn distinct<T: PartialEq>(
    value: Value,
    limit: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let texts: Vec<&str> = match &value {
        Value::String(text) => text.split(',').map(|text| text.trim_matches(' ')).collect(),
        Value::Array(items) => items.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    if texts.len() > limit {
        return None;
    }
    let mut found = Vec::new();
    for text in texts {
        let item = parse(text)?;
        if !found.contains(&item) {
            found.push(item);
        }
    }
    Some(found)
}

fn mtu(value: Value) -> Result<u16, Error> {
    value
        .as_u64()
        .and_then(|mtu| u16::try_from(mtu).ok())
        .filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu))
        .ok_or_else(|| Error::InvalidMtu(format!("must be a number from {MIN_MTU} to {MAX_MTU}")))
}

fn minutes(value: &Value, least: u64) -> Result<Duration, String> {
    let never = if least == 0 { " (0 for never)" } else { "" };
    value
        .as_u64()
        .filter(|minutes| (least..=MAX_MINUTES).contains(minutes))
        .map(|minutes| Duration::from_secs(minutes * 60))
        .ok_or_else(|| format!("must be a number from {least} to {MAX_MINUTES}{never}"))
}

#[cfg(test)]
mod tests;
