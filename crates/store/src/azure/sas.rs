//! Shared access signatures: a container each, for as long as a lease lasts.
//!
//! The gateway gets these where there is no identity, and never the account's key. Each allows
//! what the gateway's role would: to read `control`, to write `status`, and in `keys` to create
//! and to read, but not to replace.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::account::{Account, AccountUrl};
use crate::Container;

/// Known to stock Azurite too.
const VERSION: &str = "2021-12-02";

/// A signature, in the form of a query.
#[derive(Clone, PartialEq, Eq)]
pub struct Sas(Zeroizing<String>);

/// Not a signature.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("must be a shared access signature for one container: sv=...&sr=c&...&sig=...")]
pub struct SasError;

impl Sas {
    /// Signs for what the gateway does in a container.
    pub fn for_gateway(
        url: &AccountUrl,
        account: &Account,
        container: Container,
        expires_at: Timestamp,
    ) -> Self {
        let permissions = match container {
            Container::Control => "r",
            Container::Status => "rcw",
            Container::Keys => "rc",
        };
        // Without fractions, which the service does not take.
        let expiry = Timestamp::from_second(expires_at.as_second()).unwrap_or(expires_at);
        let protocol = if url.is_plain() {
            "https,http"
        } else {
            "https"
        };
        let name = &account.name;
        let text = format!(
            "{permissions}\n\n{expiry}\n/blob/{name}/{}\n\n\n{protocol}\n{VERSION}\nc\n\n\n\n\n\n\n",
            container.name()
        );
        let mut query = azure_core::http::Url::from_str("https://sas").expect("a constant");
        query
            .query_pairs_mut()
            .append_pair("sv", VERSION)
            .append_pair("sr", "c")
            .append_pair("sp", permissions)
            .append_pair("se", &expiry.to_string())
            .append_pair("spr", protocol)
            .append_pair("sig", &account.key.sign(&text));
        Self(Zeroizing::new(query.query().unwrap_or_default().to_owned()))
    }

    /// The query. A secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sas {
    type Err = SasError;

    fn from_str(text: &str) -> Result<Self, SasError> {
        let text = text.trim_start_matches('?');
        let clean = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let signed = text.split('&').any(|pair| pair.starts_with("sig="));
        match clean && signed && text.len() <= 2048 {
            true => Ok(Self(Zeroizing::new(text.to_owned()))),
            false => Err(SasError),
        }
    }
}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sas(hidden)")
    }
}

/// One signature for each container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SasTokens {
    /// For `control`.
    pub control: Sas,
    /// For `status`.
    pub status: Sas,
    /// For `keys`.
    pub keys: Sas,
}

impl SasTokens {
    /// Signs all three until `expires_at`.
    pub fn for_gateway(url: &AccountUrl, account: &Account, expires_at: Timestamp) -> Self {
        let sas = |container| Sas::for_gateway(url, account, container, expires_at);
        Self {
            control: sas(Container::Control),
            status: sas(Container::Status),
            keys: sas(Container::Keys),
        }
    }

    pub(super) fn of(&self, container: Container) -> &Sas {
        match container {
            Container::Control => &self.control,
            Container::Status => &self.status,
            Container::Keys => &self.keys,
        }
    }
}

/// Appends the signature that is in force to each request.
#[derive(Debug)]
pub(super) struct SasPolicy(pub(super) Arc<RwLock<Sas>>);

#[async_trait]
impl Policy for SasPolicy {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let sas = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let query = match request.url().query() {
            Some(query) if !query.is_empty() => format!("{query}&{}", sas.as_str()),
            _ => sas.as_str().to_owned(),
        };
        request.url_mut().set_query(Some(&query));
        next[0].send(ctx, request, &next[1..]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_hidden_and_nothing_else_is_one() {
        let sas: Sas = "?sv=1&sig=abc%3D".parse().unwrap();
        assert_eq!(sas.as_str(), "sv=1&sig=abc%3D");
        assert_eq!(format!("{sas:?}"), "Sas(hidden)");
        for bad in ["", "sv=1", "sig=a b", "sig=a\n", "sig=a#b"] {
            assert!(bad.parse::<Sas>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_container_gets_no_more_than_the_gateway_does_there() {
        let account = Account {
            name: "popup".into(),
            key: "c2VjcmV0".parse().unwrap(),
        };
        let url = "https://popup.blob.core.windows.net/".parse().unwrap();
        let tokens =
            SasTokens::for_gateway(&url, &account, "2026-01-02T03:04:05.6Z".parse().unwrap());
        for (sas, permissions) in [
            (&tokens.control, "r"),
            (&tokens.status, "rcw"),
            (&tokens.keys, "rc"),
        ] {
            let text = sas.as_str();
            assert!(text.contains(&format!("&sp={permissions}&")), "{text}");
            assert!(
                text.contains("se=2026-01-02T03%3A04%3A05Z&spr=https&"),
                "{text}"
            );
        }
    }
}
