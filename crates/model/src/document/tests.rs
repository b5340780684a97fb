use super::*;
use crate::{PrivateKey, Region, TunnelNetworks};

fn config() -> ServerConfig {
    let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse().unwrap()).unwrap();
    let mut config = ServerConfig::new(networks, vec![51820]);
    for name in ["phone", "laptop"] {
        let assigned: Vec<_> = config.assigned().copied().collect();
        config.peers.push(Peer {
            name: name.parse().unwrap(),
            public_key: PrivateKey::generate().public_key(),
            preshared_key: None,
            allowed_ips: networks.lowest_free(&assigned).unwrap(),
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            expires_at: None,
            quota_bytes: None,
            owner: None,
            client: ClientSettings::default(),
            extra: Extra::new(),
        });
    }
    config
}

#[test]
fn a_configuration_survives_a_round_trip() {
    let config = config();
    assert_eq!(
        ServerConfig::from_json(&config.to_json().unwrap()).unwrap(),
        config
    );
}

#[test]
fn unknown_fields_of_the_same_major_survive_a_rewrite() {
    let mut value: serde_json::Value =
        serde_json::from_slice(&config().to_json().unwrap()).unwrap();
    value["colour"] = "blue".into();
    value["peers"][0]["shape"] = serde_json::json!({"round": true});
    value["peers"][0]["client"]["mood"] = 3.into();
    let read = ServerConfig::from_json(&serde_json::to_vec(&value).unwrap()).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&read.to_json().unwrap()).unwrap();
    assert_eq!(written, value);
}

#[test]
fn a_newer_major_is_refused_even_when_its_shape_is_unknown() {
    let error = LeaseDocument::from_json(br#"{"schema":2,"everything":"different"}"#).unwrap_err();
    assert!(
        matches!(error, DocumentError::NewerSchema { found: 2, .. }),
        "{error}"
    );
}

#[test]
fn oversized_documents_are_refused_before_parsing() {
    let error = LeaseDocument::from_json(&vec![b' '; crate::MAX_DOCUMENT_BYTES + 1]).unwrap_err();
    assert!(matches!(error, DocumentError::TooLarge { .. }), "{error}");
}

#[test]
fn inconsistent_configurations_are_neither_read_nor_written() {
    let breaks: [fn(&mut ServerConfig); 6] = [
        |c| c.peers[1].name = c.peers[0].name.clone(),
        |c| c.peers[1].public_key = c.peers[0].public_key,
        |c| c.peers[1].allowed_ips = c.peers[0].allowed_ips,
        |c| c.peers[0].allowed_ips[0] = "10.8.0.0/24".parse().unwrap(),
        |c| c.peers[0].allowed_ips[0] = "10.8.0.1/32".parse().unwrap(),
        |c| c.ports.clear(),
    ];
    for (number, break_it) in breaks.iter().enumerate() {
        let mut broken = config();
        break_it(&mut broken);
        assert!(
            matches!(broken.to_json(), Err(DocumentError::Inconsistent { .. })),
            "break {number} was written"
        );
        let bytes = serde_json::to_vec(&broken).unwrap();
        assert!(
            ServerConfig::from_json(&bytes).is_err(),
            "break {number} was read"
        );
    }
}

#[test]
fn a_stop_reason_of_a_later_version_is_readable() {
    let reason: StopReason = serde_json::from_str(r#""over_budget""#).unwrap();
    assert_eq!(reason, StopReason::Other);
}

#[test]
fn a_region_with_a_path_in_it_makes_the_document_unreadable() {
    let mut document = LeaseDocument::new("local".parse::<Region>().unwrap());
    document.operation = None;
    let text = String::from_utf8(document.to_json().unwrap())
        .unwrap()
        .replace("local", "../x");
    assert!(LeaseDocument::from_json(text.as_bytes()).is_err());
}
