//! Signs requests with the account's key, as "Authorize with Shared Key" of the Blob service's
//! REST reference has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use azure_core::time::{OffsetDateTime, to_rfc7231};

use super::account::Account;

/// The headers that are signed by their value alone, in this order; content-length is the third.
const SIGNED: [&str; 10] = [
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// A policy for each try: the signature covers the time.
#[derive(Debug)]
pub(super) struct SharedKeyPolicy(pub(super) Account);

#[async_trait]
impl Policy for SharedKeyPolicy {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        let signature = self.0.key.sign(&string_to_sign(&self.0.name, request));
        request.insert_header(
            "authorization",
            format!("SharedKey {}:{signature}", self.0.name),
        );
        next[0].send(ctx, request, &next[1..]).await
    }
}

fn string_to_sign(account: &str, request: &Request) -> String {
    let value = |name: &'static str| {
        let found = request
            .headers()
            .get_optional_str(&HeaderName::from_static(name));
        found.unwrap_or_default()
    };
    let length = request.body().len().filter(|length| *length > 0);
    let mut text = request.method().as_str().to_owned();
    for name in SIGNED {
        if name == "content-md5" {
            text.push('\n');
            text.push_str(&length.map(|length| length.to_string()).unwrap_or_default());
        }
        text.push('\n');
        text.push_str(value(name));
    }
    text.push('\n');
    let headers: BTreeMap<String, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_ascii_lowercase(), value.as_str().trim()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    for (name, value) in headers {
        text.push_str(&format!("{name}:{value}\n"));
    }
    text.push_str(&format!("/{account}{}", request.url().path()));
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.url().query_pairs() {
        query
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(value.into_owned());
    }
    for (name, mut values) in query {
        values.sort();
        text.push_str(&format!("\n{name}:{}", values.join(",")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::Method;

    #[test]
    fn the_signed_text_is_as_the_reference_has_it() {
        // The example "List Containers", with an emulator's path and a conditional write added.
        let url = "https://h/acct/box/a%20b?restype=container&comp=b&comp=a"
            .parse()
            .unwrap();
        let mut request = Request::new(url, Method::Put);
        request.insert_header("x-ms-version", "2021-12-02");
        request.insert_header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        request.insert_header("if-match", "\"0x1\"");
        request.insert_header("content-type", "application/json");
        request.set_body("hello");
        assert_eq!(
            string_to_sign("acct", &request),
            "PUT\n\n\n5\n\napplication/json\n\n\n\"0x1\"\n\n\n\n\
             x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2021-12-02\n\
             /acct/acct/box/a%20b\ncomp:a,b\nrestype:container"
        );
    }
}
