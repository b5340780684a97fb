//! A storage account: where it is and, with a connection string, its key.

use std::fmt;
use std::str::FromStr;

use azure_core::http::Url;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Why a text names no storage account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Not the address of a Blob service.
    #[error(
        "must be the account's Blob endpoint, such as https://account.blob.core.windows.net/; \
         http is for an emulator on a loopback address only"
    )]
    Url,
    /// A connection string without what is needed.
    #[error(
        "must be a connection string with AccountName, AccountKey and EndpointSuffix or \
         BlobEndpoint"
    )]
    ConnectionString,
    /// The key is not base64.
    #[error("AccountKey must be the account's key, in base64")]
    Key,
}

/// The address of a Blob service: https, or http where nobody else can listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountUrl(Url);

impl AccountUrl {
    /// The address.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether requests are in clear text.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }
}

impl fmt::Display for AccountUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AccountUrl {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let url: Url = text.parse().map_err(|_| AccountError::Url)?;
        // `localhost` may resolve to anything; an address cannot.
        let loopback = url
            .host_str()
            .map(|host| host.trim_matches(['[', ']']))
            .and_then(|host| host.parse::<std::net::IpAddr>().ok())
            .is_some_and(|address| address.is_loopback());
        let secure = url.scheme() == "https" || url.scheme() == "http" && loopback;
        let bare = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match secure && bare && url.has_host() {
            true => Ok(Self(url)),
            false => Err(AccountError::Url),
        }
    }
}

/// An account's key, which opens everything in it.
#[derive(Clone)]
pub struct AccountKey(Zeroizing<Vec<u8>>);

impl AccountKey {
    pub(super) fn sign(&self, text: &str) -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0);
        STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()))
    }
}

impl FromStr for AccountKey {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let bytes = STANDARD.decode(text).map_err(|_| AccountError::Key)?;
        match bytes.is_empty() {
            true => Err(AccountError::Key),
            false => Ok(Self(Zeroizing::new(bytes))),
        }
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey(hidden)")
    }
}

/// An account and its key.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: AccountKey,
}

/// `AZURE_STORAGE_CONNECTION_STRING`.
#[derive(Debug, Clone)]
pub struct ConnectionString {
    /// Where.
    pub url: AccountUrl,
    /// Who.
    pub account: Account,
}

impl FromStr for ConnectionString {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let part = |wanted: &str| {
            let mut parts = text
                .split(';')
                .filter_map(|part| part.trim().split_once('='));
            parts
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value)
        };
        let plain = |name: &&str| {
            (3..=24).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let name = part("AccountName")
            .filter(plain)
            .ok_or(AccountError::ConnectionString)?;
        let key = part("AccountKey")
            .ok_or(AccountError::ConnectionString)?
            .parse()?;
        let url = match (part("BlobEndpoint"), part("EndpointSuffix")) {
            (Some(endpoint), _) => endpoint.parse()?,
            (None, Some(suffix)) => format!("https://{name}.blob.{suffix}/").parse()?,
            (None, None) => return Err(AccountError::ConnectionString),
        };
        let name = name.to_owned();
        Ok(Self {
            url,
            account: Account { name, key },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_is_for_loopback_addresses_only() {
        for good in [
            "https://a.blob.core.windows.net",
            "http://127.0.0.1:10000/dev",
            "http://[::1]:1/",
        ] {
            assert!(good.parse::<AccountUrl>().is_ok(), "{good}");
        }
        for bad in [
            "http://a.blob.core.windows.net",
            "http://localhost:10000/dev",
            "http://10.0.0.1/",
            "https://a/?sig=x",
            "https://u:p@a/",
            "ftp://a/",
            "a",
        ] {
            assert_eq!(bad.parse::<AccountUrl>(), Err(AccountError::Url), "{bad}");
        }
    }

    #[test]
    fn a_connection_string_names_the_account_and_hides_its_key() {
        let text = "DefaultEndpointsProtocol=https;AccountName=popup;AccountKey=c2VjcmV0;\
                    EndpointSuffix=core.windows.net";
        let parsed: ConnectionString = text.parse().unwrap();
        assert_eq!(
            parsed.url.to_string(),
            "https://popup.blob.core.windows.net/"
        );
        assert!(!format!("{parsed:?}").contains("c2Vj"), "{parsed:?}");
        for bad in [
            "",
            "AccountName=popup",
            "AccountName=popup;AccountKey=%;EndpointSuffix=x",
        ] {
            assert!(bad.parse::<ConnectionString>().is_err(), "{bad}");
        }
    }
}
