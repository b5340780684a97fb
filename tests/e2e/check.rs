//! `popup-vpn check` tells a tunnel that works from one that does not, and why.

use std::time::Duration;

use popup_model::PrivateKey;

use crate::lab::{Handler, Internet, Lab, Settings};

#[test]
fn check_passes_as_an_unprivileged_user_and_names_the_cause_when_it_does_not() {
    let lab = Lab::new(Settings::default());
    let handler = Handler::start(&lab.host);
    let conf = handler.add_peer("phone");
    let client = lab.client();
    let url = format!("http://{}/bytes/100000", Internet::NAME);

    handler
        .check(&client, &conf, &["--url", &url])
        .expect("a check of a good file");
    handler
        .check(
            &client,
            &conf,
            &["--url", &format!("http://{}/", Internet::ADDRESS)],
        )
        .expect("a check by address");

    let stranger = PrivateKey::generate().public_key().to_string();
    let wrong_key = conf.with("PublicKey", &stranger);
    let wrong_port = conf.with("Endpoint", "198.51.100.1:51821");
    let silent_host = conf.with("Endpoint", "198.51.100.99:51820");
    for (wrong, cause) in [
        (wrong_key, "key"),
        (wrong_port, "port"),
        (silent_host, "handshake"),
    ] {
        let failed = handler.check(&client, &wrong, &["--url", &url]);
        let text = failed.text().to_lowercase();
        assert!(!failed.succeeded(), "{text}");
        assert!(text.contains("handshake") && text.contains(cause), "{text}");
    }

    let refused = handler.check(
        &client,
        &conf,
        &["--url", &format!("http://{}:81/", Internet::ADDRESS)],
    );
    assert!(
        !refused.succeeded() && refused.took < Duration::from_secs(20),
        "{}",
        refused.text()
    );
}
