use axum::body::Body;
use serde_json::json;

use super::*;

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(map) => Fields { map, within: "" },
        other => panic!("{other}"),
    }
}

fn parse(value: Value) -> Result<StartRequest, Error> {
    start(fields(value), false)
}

fn code(value: Value) -> &'static str {
    parse(value).unwrap_err().code()
}

async fn posted(content_type: Option<&str>, bytes: &[u8]) -> Result<Fields, Error> {
    let mut request = Request::builder().method("POST").uri("/api/start-vpn");
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    body(request.body(Body::from(bytes.to_vec())).unwrap()).await
}

#[tokio::test]
async fn no_body_asks_for_the_default() {
    let request = start(posted(None, b"").await.unwrap(), false).unwrap();
    assert!(matches!(request.peer, PeerRequest::Unsaid));
    assert!(request.region.is_none() && request.lifetime.is_none());
    assert_eq!(request.client, ClientWish::default());
}

#[tokio::test]
async fn a_body_must_be_a_json_object_that_says_so() {
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("x"),
    ] {
        let error = posted(kind, b"{}").await.unwrap_err();
        assert!(matches!(error, Error::UnsupportedMediaType), "{kind:?}");
    }
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        posted(Some(kind), b"{}").await.unwrap();
    }
    for text in ["{", "[]", "1", "null", "{\"a\"}", "\u{0}", "{} {}"] {
        let error = posted(Some("application/json"), text.as_bytes())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::InvalidJson(_)), "{text:?}");
    }
    let deep = [b"{\"a\":".to_vec(), vec![b'['; 60_000]].concat();
    let error = posted(Some("application/json"), &deep).await.unwrap_err();
    assert!(matches!(error, Error::InvalidJson(_)), "nesting is bounded");
}

#[tokio::test]
async fn more_than_the_limit_is_not_read() {
    let just = [b"{}".to_vec(), vec![b' '; MAX_BODY_BYTES - 2]].concat();
    posted(Some("application/json"), &just).await.unwrap();
    let more = [just, vec![b' ']].concat();
    let error = posted(Some("application/json"), &more).await.unwrap_err();
    assert!(matches!(error, Error::BodyTooLarge { .. }));
}

#[test]
fn a_peer_that_is_null_differs_from_none() {
    assert!(matches!(
        parse(json!({})).unwrap().peer,
        PeerRequest::Unsaid
    ));
    assert!(matches!(
        parse(json!({"peer": null})).unwrap().peer,
        PeerRequest::Nobody
    ));
    let PeerRequest::Wanted(wish) = parse(json!({"peer": {}})).unwrap().peer else {
        panic!()
    };
    assert_eq!(wish, PeerWish::default());
    assert!(wish.preshared_key, "on unless declined");
}

#[test]
fn unknown_fields_are_named_and_shortened() {
    let error = parse(json!({"mtu": 1420, "Region": "local"}))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"Region\"") && error.contains("allowedIps"),
        "{error}"
    );
    let error = parse(json!({"peer": {"publickey": "x"}})).unwrap_err();
    assert_eq!(error.code(), "UnknownField");
    assert!(error.to_string().contains("\"peer.publickey\""), "{error}");
    let mut map = Map::new();
    for number in 0..100 {
        map.insert(
            format!("\n<script>{number}{}", "x".repeat(500)),
            Value::Null,
        );
    }
    let text = parse(Value::Object(map)).unwrap_err().to_string();
    assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
}

#[test]
fn each_field_has_its_own_code() {
    assert_eq!(code(json!({"region": "../x"})), "InvalidRegion");
    assert_eq!(code(json!({"region": 1})), "InvalidRegion");
    assert_eq!(code(json!({"peer": []})), "InvalidPeer");
    assert_eq!(code(json!({"peer": {"name": "a\nb"}})), "InvalidPeerName");
    assert_eq!(
        code(json!({"peer": {"name": "x".repeat(300)}})),
        "InvalidPeerName"
    );
    assert_eq!(
        code(json!({"peer": {"publicKey": "short"}})),
        "InvalidPublicKey"
    );
    let zero = "A".repeat(43) + "=";
    assert_eq!(
        code(json!({"peer": {"publicKey": zero}})),
        "InvalidPublicKey"
    );
    assert_eq!(
        code(json!({"peer": {"presharedKey": "yes"}})),
        "InvalidPeer"
    );
    assert_eq!(code(json!({"peer": {"replace": true}})), "InvalidPeer");
    for dns in [
        json!("dns.example"),
        json!(["1.1.1.1\nPostUp = x"]),
        json!(7),
        json!(["0.0.0.0"]),
    ] {
        assert_eq!(code(json!({ "dns": dns })), "InvalidDns");
    }
    assert_eq!(code(json!({"dns": vec!["1.1.1.1"; 9]})), "InvalidDns");
    for nets in [
        json!([]),
        json!(""),
        json!(["0.0.0.0/33"]),
        json!([1]),
        json!(vec!["::/0"; 65]),
    ] {
        assert_eq!(code(json!({ "allowedIps": nets })), "InvalidAllowedIps");
    }
    for mtu in [
        json!(1279),
        json!(1441),
        json!("1420"),
        json!(-1),
        json!(1e30),
    ] {
        assert_eq!(code(json!({ "mtu": mtu })), "InvalidMtu");
    }
    for minutes in [json!(0), json!(10081), json!(1.5), json!("60")] {
        assert_eq!(
            code(json!({ "lifetimeMinutes": minutes })),
            "InvalidLifetime"
        );
    }
    assert_eq!(code(json!({"idleMinutes": -1})), "InvalidIdle");
}

#[test]
fn lists_may_be_written_as_in_a_conf() {
    let request =
        parse(json!({"dns": "9.9.9.9, 9.9.9.9,2620:fe::fe", "allowedIps": "10.1.2.3/8,::/0"}));
    let client = request.unwrap().client;
    assert_eq!(
        client.dns.unwrap(),
        [
            "9.9.9.9".parse::<IpAddr>().unwrap(),
            "2620:fe::fe".parse().unwrap()
        ]
    );
    assert_eq!(
        client.allowed_ips.unwrap(),
        ["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()]
    );
    assert_eq!(
        parse(json!({"dns": []})).unwrap().client.dns,
        Some(Vec::new()),
        "no DNS at all"
    );
}

#[test]
fn zero_idle_minutes_mean_never() {
    assert_eq!(parse(json!({})).unwrap().idle_timeout, None);
    assert_eq!(
        parse(json!({"idleMinutes": 0})).unwrap().idle_timeout,
        Some(None)
    );
    let five = Some(Some(Duration::from_secs(300)));
    assert_eq!(parse(json!({"idleMinutes": 5})).unwrap().idle_timeout, five);
}

#[test]
fn the_first_kind_accepted_is_the_one_given() {
    let wants = |accept: &str, uri: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        wants_conf(&headers, &uri.parse().unwrap())
    };
    assert!(wants("text/plain", "/").unwrap());
    assert!(wants("Text/Plain;q=0.9, application/json", "/").unwrap());
    assert!(!wants("application/json, text/plain", "/").unwrap());
    assert!(!wants("*/*", "/").unwrap());
    assert!(wants("*/*", "/?code=x&format=conf").unwrap());
    assert!(!wants("text/plain", "/?format=json").unwrap());
    assert!(matches!(
        wants("*/*", "/?format=zip"),
        Err(Error::InvalidFormat)
    ));
}
