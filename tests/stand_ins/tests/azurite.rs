//! Azurite, with and without TLS, and faults in front of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use popup_stand_ins::azurite::{API_VERSION, Azurite};
use popup_stand_ins::client::{Answer, call};
use popup_stand_ins::proxy::{Proxy, Weather};
use popup_stand_ins::tls::Authority;
use popup_stand_ins::token;
use support::tools;

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn over_https_a_token_for_storage_opens_it_and_another_does_not() {
    let authority = Authority::new().unwrap();
    let certificate = authority.issue(&[], &[ANYWHERE.ip()]).unwrap();
    let tls = Some((&certificate, authority.pem.as_str()));
    let azurite = Azurite::start(&tools(), ANYWHERE, tls).await.unwrap();
    azurite.create_container("control").await.unwrap();
    let list = async |audience: &str| -> Answer {
        let bearer = format!(
            "Bearer {}",
            token::mint(audience, "c", "p", Timestamp::now())
        );
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-ms-version", API_VERSION),
        ];
        let target = "/devstoreaccount1/control?restype=container&comp=list";
        call(
            azurite.address,
            Some(&authority.pem),
            "GET",
            target,
            &headers,
            None,
        )
        .await
        .unwrap()
    };
    assert_eq!(list("https://storage.azure.com").await.status, 200);
    assert_eq!(list("https://management.azure.com").await.status, 403);
}

#[tokio::test]
async fn over_http_the_accounts_key_opens_it() {
    let azurite = Azurite::start(&tools(), ANYWHERE, None).await.unwrap();
    azurite.create_container("control").await.unwrap();
    assert!(
        azurite.create_container("control").await.is_err(),
        "it is there already"
    );
    let text = azurite.connection_string(azurite.address);
    assert!(text.contains(&format!(
        "BlobEndpoint=http://{}/devstoreaccount1;",
        azurite.address
    )));
}

#[tokio::test]
async fn the_weather_in_front_of_it_can_change() {
    let azurite = Azurite::start(&tools(), ANYWHERE, None).await.unwrap();
    let proxy = Proxy::start(ANYWHERE, azurite.address).await.unwrap();
    let ask = || call(proxy.address, None, "GET", "/devstoreaccount1", &[], None);
    assert!(ask().await.is_ok());
    proxy.set(Weather::Down);
    assert!(ask().await.is_err());
    proxy.set(Weather::Silent);
    let nothing = tokio::time::timeout(Duration::from_millis(200), ask()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    proxy.set(Weather::Slow(Duration::from_millis(100)));
    assert!(ask().await.is_ok());
}
