//! Bearer tokens: well formed, unsigned.
//!
//! Azurite with `--oauth basic` reads the claims and ignores the signature; so does the simulated
//! Resource Manager.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How long a token lives; what Entra gives managed identities.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The tenant of everything.
pub const TENANT: &str = "72f988bf-0000-4000-8000-2d7cd011db47";

/// A token for `audience` that belongs to this application and principal.
pub fn mint(audience: &str, client_id: &str, principal_id: &str, now: Timestamp) -> String {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({"typ": "JWT", "alg": "none"}));
    let claims = encode(json!({
        "aud": audience.trim_end_matches('/'),
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": now.as_second(),
        "nbf": now.as_second() - 60,
        "exp": (now + LIFETIME).as_second(),
        "appid": client_id,
        "oid": principal_id,
        "sub": principal_id,
        "tid": TENANT,
        "ver": "1.0",
    }));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode("unsigned"))
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no JWT.
    #[error("the token is not a JWT")]
    Malformed,
    /// It is for somebody else.
    #[error("the token's audience is {0}")]
    Audience(String),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// The claims of a token, if it is for one of `audiences` and has not expired.
pub fn check(token: &str, audiences: &[&str], now: Timestamp) -> Result<Value, Refused> {
    let claims = token.split('.').nth(1).ok_or(Refused::Malformed)?;
    let claims = URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| Refused::Malformed)?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| Refused::Malformed)?;
    let audience = claims["aud"]
        .as_str()
        .unwrap_or_default()
        .trim_end_matches('/');
    if !audiences.contains(&audience) {
        return Err(Refused::Audience(audience.to_owned()));
    }
    match claims["exp"].as_i64() {
        Some(expiry) if expiry > now.as_second() => Ok(claims),
        _ => Err(Refused::Expired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_audience_until_it_expires() {
        let now = Timestamp::UNIX_EPOCH;
        let token = mint("https://storage.azure.com/", "client", "principal", now);
        let storage = ["https://storage.azure.com"];
        assert_eq!(check(&token, &storage, now).unwrap()["appid"], "client");
        assert_eq!(
            check(&token, &storage, now + LIFETIME),
            Err(Refused::Expired)
        );
        let other = check(&token, &["https://management.azure.com"], now);
        assert_eq!(other, Err(Refused::Audience(storage[0].to_owned())));
    }
}
