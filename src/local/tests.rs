use jiff::SignedDuration;
use popup_model::TunnelNetworks;
use popup_model::document::Extra;

use super::*;
use crate::config::LogSettings;

/// Over a program that is not a gateway at all.
fn backend(program: &str, state_dir: &tempfile::TempDir) -> LocalBackend {
    let settings = LocalSettings {
        state_dir: state_dir.path().to_owned(),
        host: Some("vpn.example.org".parse().unwrap()),
        gateway: Some(PathBuf::from(program)),
        passed_on: vec![("PATH", "/usr/bin:/bin".to_owned())],
    };
    let log = LogSettings {
        filter: "info".to_owned(),
        json: false,
    };
    LocalBackend::new(settings, &log)
}

fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn region() -> Region {
    "local".parse().unwrap()
}

fn lease() -> Lease {
    let now = jiff::Timestamp::now();
    Lease {
        id: LeaseId::generate(),
        started_at: now,
        expires_at: now + SignedDuration::from_secs(60),
        idle_timeout_s: None,
        extra: Extra::new(),
    }
}

fn config() -> ServerConfig {
    let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse().unwrap()).unwrap();
    ServerConfig::new(networks, vec![51820])
}

#[tokio::test]
async fn a_gateway_that_exits_with_0_stays_down_until_it_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, lease) = (backend("/bin/true", &directory), lease());
    backend
        .create(&region(), &lease, &config(), in_time())
        .await
        .unwrap();
    let ended = Group::Present {
        lease: Some(lease.id),
        phase: Phase::Ended(None),
    };
    assert_eq!(backend.observe(&region()).await.unwrap().group, ended);
    backend.delete(&region(), in_time()).await.unwrap();
    assert_eq!(
        backend.observe(&region()).await.unwrap().group,
        Group::Absent
    );
    assert!(backend.answers_for().is_empty());
}

#[tokio::test]
async fn a_gateway_that_keeps_crashing_is_given_more_and_more_time() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, lease) = (backend("/bin/false", &directory), lease());
    let mut seconds = Vec::new();
    for _ in 0..7 {
        backend
            .create(&region(), &lease, &config(), in_time())
            .await
            .unwrap();
        let group = backend.observe(&region()).await.unwrap().group;
        let starting = Group::Present {
            lease: Some(lease.id.clone()),
            phase: Phase::Starting,
        };
        assert_eq!(group, starting, "until its backoff is over");
        seconds.push(locked(&backend.runs)[&region()].backoff.as_secs());
    }
    assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    let other = self::lease();
    backend
        .create(&region(), &other, &config(), in_time())
        .await
        .unwrap();
    assert_eq!(
        locked(&backend.runs)[&region()].backoff,
        FIRST_BACKOFF,
        "another lease"
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_lasting_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend("/nonexistent/popup-gateway", &directory);
    let error = backend
        .create(&region(), &lease(), &config(), in_time())
        .await
        .unwrap_err();
    assert!(
        error.permanent && error.to_string().contains("/nonexistent"),
        "{error}"
    );
    assert_eq!(
        backend.observe(&region()).await.unwrap().group,
        Group::Absent
    );
}

#[tokio::test]
async fn the_endpoint_is_the_host_that_was_set() {
    let directory = tempfile::tempdir().unwrap();
    let sighting = backend("/bin/true", &directory)
        .observe(&region())
        .await
        .unwrap();
    assert_eq!(sighting.host, Some("vpn.example.org".parse().unwrap()));
    assert!(
        sighting
            .public_ip
            .is_some_and(|address| !address.is_unspecified())
    );
}
