use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn moment() -> Moment {
    Moment {
        now: now(),
        answer_until: "2026-01-02T03:08:05Z".parse().unwrap(),
    }
}

fn config(network: &str) -> ServerConfig {
    let networks = TunnelNetworks::with_random_ula(network.parse().unwrap()).unwrap();
    ServerConfig::new(networks, vec![51820])
}

fn named(name: &str) -> PeerWish {
    PeerWish {
        name: Some(name.parse().unwrap()),
        ..PeerWish::default()
    }
}

fn put(config: &mut ServerConfig, wish: &PeerWish) -> Result<Placed, Error> {
    place(
        config,
        wish,
        &ClientWish::default(),
        &FreshKeys::generate(),
        moment(),
    )
}

#[test]
fn a_new_peer_gets_the_lowest_free_address_and_its_keys() {
    let mut config = config("10.8.0.0/24");
    let first = put(&mut config, &named("phone")).unwrap();
    let second = put(&mut config, &named("laptop")).unwrap();
    assert_eq!(first.peer.addresses()[0].to_string(), "10.8.0.2");
    assert_eq!(second.peer.addresses()[0].to_string(), "10.8.0.3");
    let private = first.private_key.unwrap();
    assert_eq!(private.public_key(), first.peer.public_key);
    assert!(first.changed && first.peer.preshared_key.is_some());
    config.validate().unwrap();
}

#[test]
fn peers_without_a_name_get_the_lowest_number() {
    let mut config = config("10.8.0.0/24");
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(
            put(&mut config, &PeerWish::default())
                .unwrap()
                .peer
                .name
                .to_string(),
        );
    }
    assert_eq!(names, ["peer-1", "peer-2", "peer-3"]);
    remove(&mut config, &"peer-2".parse().unwrap()).unwrap();
    assert_eq!(
        put(&mut config, &PeerWish::default())
            .unwrap()
            .peer
            .name
            .as_str(),
        "peer-2"
    );
}

#[test]
fn a_known_name_changes_nothing() {
    let mut config = config("10.8.0.0/24");
    put(&mut config, &named("phone")).unwrap();
    let before = config.clone();
    let again = put(&mut config, &named("phone")).unwrap();
    assert!(!again.changed && again.private_key.is_none());
    assert_eq!(config, before);
}

#[test]
fn replacing_keeps_the_address_and_kills_the_old_key() {
    let mut config = config("10.8.0.0/24");
    let client = ClientWish {
        mtu: Some(1300),
        ..ClientWish::default()
    };
    let old = place(
        &mut config,
        &named("phone"),
        &client,
        &FreshKeys::generate(),
        moment(),
    )
    .unwrap();
    let new = put(
        &mut config,
        &PeerWish {
            replace: true,
            ..named("phone")
        },
    )
    .unwrap();
    assert_eq!(new.peer.allowed_ips, old.peer.allowed_ips);
    assert_eq!(new.peer.client.mtu, 1300, "what was not asked for stays");
    assert_ne!(new.peer.public_key, old.peer.public_key);
    assert_ne!(new.peer.preshared_key, old.peer.preshared_key);
    assert_eq!(config.peers, [new.peer]);
}

#[test]
fn replacing_nobody_adds() {
    let mut config = config("10.8.0.0/24");
    assert!(
        put(
            &mut config,
            &PeerWish {
                replace: true,
                ..named("phone")
            }
        )
        .unwrap()
        .changed
    );
    assert_eq!(config.peers.len(), 1);
}

#[test]
fn a_callers_key_is_used_and_no_private_key_is_made() {
    let mut config = config("10.8.0.0/24");
    let public_key = Some(PrivateKey::generate().public_key());
    let wish = PeerWish {
        public_key,
        preshared_key: false,
        ..named("phone")
    };
    let placed = put(&mut config, &wish).unwrap();
    assert_eq!(Some(placed.peer.public_key), public_key);
    assert!(placed.private_key.is_none() && placed.peer.preshared_key.is_none());
    let error = put(
        &mut config,
        &PeerWish {
            public_key,
            ..named("laptop")
        },
    )
    .unwrap_err();
    assert!(matches!(error, Error::PeerExists(name) if name.as_str() == "phone"));
    assert_eq!(config.peers.len(), 1);
}

#[test]
fn an_exhausted_network_is_an_error_and_changes_nothing() {
    let mut config = config("10.8.0.0/30");
    put(&mut config, &named("phone")).unwrap();
    let before = config.clone();
    let error = put(&mut config, &named("laptop")).unwrap_err();
    assert!(matches!(error, Error::NetworkExhausted(_)), "{error}");
    assert_eq!(config, before);
    put(
        &mut config,
        &PeerWish {
            replace: true,
            ..named("phone")
        },
    )
    .unwrap();
}

#[test]
fn taking_back_restores_what_was_there() {
    let mut config = config("10.8.0.0/24");
    let added = put(&mut config, &named("phone")).unwrap();
    assert_eq!(confirm(&mut config, &added.peer), Some(true));
    let one = config.clone();
    let replaced = put(
        &mut config,
        &PeerWish {
            replace: true,
            ..named("phone")
        },
    )
    .unwrap();
    assert!(!unplace(&mut config, &added), "its key is gone already");
    assert!(unplace(&mut config, &replaced));
    assert_eq!(config, one);
    assert!(!unplace(&mut config, &added), "somebody has its key");
    let laptop = put(&mut config, &named("laptop")).unwrap();
    assert!(unplace(&mut config, &laptop));
    assert_eq!(config, one);
}

/// With a key of the caller's own.
fn owned(name: &str, public_key: PublicKey, replace: bool) -> PeerWish {
    PeerWish {
        public_key: Some(public_key),
        replace,
        ..named(name)
    }
}

#[test]
fn of_two_placings_with_the_same_key_only_the_last_counts() {
    let mut config = config("10.8.0.0/24");
    let key = PrivateKey::generate().public_key();
    let first = put(&mut config, &owned("phone", key, true)).unwrap();
    let later = Moment {
        answer_until: moment().answer_until + SignedDuration::from_secs(1),
        ..moment()
    };
    let second = place(
        &mut config,
        &owned("phone", key, true),
        &ClientWish::default(),
        &FreshKeys::generate(),
        later,
    )
    .unwrap();
    let both = config.clone();
    assert_eq!(confirm(&mut config, &first.peer), None);
    assert!(!unplace(&mut config, &first));
    assert_eq!(config, both);
    assert_eq!(confirm(&mut config, &second.peer), Some(true));
    assert!(!unplace(&mut config, &second), "its start is answered");
    assert_eq!(config.peers, [second.peer]);
}

#[test]
fn a_peer_whose_own_key_is_sent_again_stays() {
    let mut config = config("10.8.0.0/24");
    let key = PrivateKey::generate().public_key();
    let placed = put(&mut config, &owned("phone", key, false)).unwrap();
    let stranger = PrivateKey::generate().public_key();
    let other = put(&mut config, &owned("phone", stranger, false)).unwrap();
    assert!(!other.changed && !other.to_save);
    let again = put(&mut config, &owned("phone", key, false)).unwrap();
    assert!(!again.changed && again.to_save);
    assert!(!forget_unanswered(&mut config, moment().answer_until));
    assert_eq!(config.peers, [placed.peer]);
    assert!(
        !put(&mut config, &owned("phone", key, false))
            .unwrap()
            .to_save
    );
}

#[test]
fn settings_change_the_network_only_where_every_peer_stays_inside() {
    let mut config = config("10.8.0.0/24");
    put(&mut config, &named("phone")).unwrap();
    let settle = |config: &mut ServerConfig, network: &str| {
        adopt_settings(config, network.parse().unwrap(), &[51820])
    };
    assert!(!settle(&mut config, "10.8.0.0/24").unwrap());
    assert!(settle(&mut config, "10.8.0.0/23").unwrap());
    let error = settle(&mut config, "10.9.0.0/24").unwrap_err();
    assert!(matches!(error, Error::ConfigurationInvalid(_)), "{error}");
    assert_eq!(config.networks.ipv4(), "10.8.0.0/23".parse().unwrap());
    assert!(adopt_settings(&mut config, "10.8.0.0/23".parse().unwrap(), &[443]).unwrap());
    assert_eq!(config.ports, [443]);
}

proptest! {
    #[test]
    fn whatever_is_done_the_configuration_can_be_written(
        steps in proptest::collection::vec((0u8..4, 0usize..6), 0..40),
    ) {
        let mut config = config("10.8.0.0/29");
        for (step, number) in steps {
            let name: PeerName = format!("p{number}").parse().unwrap();
            match step {
                0 => drop(put(&mut config, &PeerWish::default())),
                1 => drop(put(&mut config, &named(name.as_str()))),
                2 => drop(put(&mut config, &PeerWish { replace: true, ..named(name.as_str()) })),
                _ => drop(remove(&mut config, &name)),
            }
            prop_assert_eq!(config.validate(), Ok(()));
        }
    }
}

fn replacing(name: &str) -> PeerWish {
    PeerWish {
        replace: true,
        ..named(name)
    }
}

#[test]
fn a_peer_is_taken_back_when_its_start_is_never_answered() {
    let mut config = config("10.8.0.0/24");
    let phone = put(&mut config, &named("phone")).unwrap().peer;
    assert_eq!(confirm(&mut config, &phone), Some(true));
    assert_eq!(confirm(&mut config, &phone), Some(false));
    let settled = config.clone();
    put(&mut config, &named("laptop")).unwrap();
    put(&mut config, &replacing("phone")).unwrap();
    assert!(
        !forget_unanswered(&mut config, now()),
        "they may be answered yet"
    );
    assert_eq!(config.peers.len(), 2);
    assert!(forget_unanswered(&mut config, moment().answer_until));
    assert_eq!(config, settled);
}

#[test]
fn a_peer_that_nobody_got_does_not_come_back() {
    let mut config = config("10.8.0.0/24");
    put(&mut config, &named("phone")).unwrap();
    let again = put(&mut config, &replacing("phone")).unwrap();
    assert!(again.previous.is_none());
    assert!(forget_unanswered(&mut config, moment().answer_until));
    assert!(config.peers.is_empty() && config.unanswered.is_empty());
}

#[test]
fn a_peer_whose_key_is_another_s_by_now_does_not_come_back() {
    let mut config = config("10.8.0.0/24");
    let old = put(&mut config, &named("phone")).unwrap().peer;
    confirm(&mut config, &old);
    put(&mut config, &replacing("phone")).unwrap();
    let own = PeerWish {
        public_key: Some(old.public_key),
        ..named("tablet")
    };
    let tablet = put(&mut config, &own).unwrap().peer;
    confirm(&mut config, &tablet);
    assert!(forget_unanswered(&mut config, moment().answer_until));
    let names: Vec<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["tablet"]);
}

#[test]
fn a_removed_peer_leaves_no_note() {
    let mut config = config("10.8.0.0/24");
    let phone = put(&mut config, &named("phone")).unwrap().peer;
    remove(&mut config, &phone.name).unwrap();
    assert!(config.unanswered.is_empty());
    assert_eq!(confirm(&mut config, &phone), None);
}

#[test]
fn a_start_finds_what_it_has_placed_itself() {
    let mut config = config("10.8.0.0/24");
    let old = put(&mut config, &named("phone")).unwrap().peer;
    confirm(&mut config, &old);
    let own = PrivateKey::generate().public_key();
    let wishes = [
        PeerWish::default(),
        named("laptop"),
        replacing("phone"),
        owned("tablet", own, false),
    ];
    for wish in wishes {
        let keys = FreshKeys::generate();
        let mut again = || place(&mut config, &wish, &ClientWish::default(), &keys, moment());
        let (first, second) = (again().unwrap(), again().unwrap());
        assert_eq!(second.peer, first.peer, "{wish:?}");
        assert_eq!(second.previous, first.previous, "{wish:?}");
        assert!(second.changed && !second.to_save, "{wish:?}");
        assert_eq!(
            second.private_key.map(|key| key.public_key()),
            first.private_key.map(|key| key.public_key())
        );
    }
    assert_eq!(config.peers.len(), 4);
}

#[test]
fn peers_that_the_document_has_no_room_for_are_refused() {
    let mut config = config("10.8.0.0/24");
    let client = ClientWish {
        dns: Some(vec![std::net::IpAddr::from([192, 168, 100, 100]); 10_000]),
        ..ClientWish::default()
    };
    let put = |config: &mut ServerConfig, wish: &PeerWish| {
        place(config, wish, &client, &FreshKeys::generate(), moment())
    };
    let refused = loop {
        let before = config.clone();
        if let Err(error) = put(&mut config, &PeerWish::default()) {
            assert_eq!(config, before);
            break error;
        }
        config.to_json().unwrap();
    };
    assert!(matches!(refused, Error::TooManyPeers), "{refused}");
    assert!((2..10).contains(&config.peers.len()));
    assert!(!put(&mut config, &named("peer-1")).unwrap().changed);
}
