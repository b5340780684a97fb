use popup_model::{PresharedKey, PrivateKey};
use proptest::prelude::*;

use super::*;

fn file(private_key: &PrivateKey, preshared_key: &PresharedKey) -> String {
    format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.8.0.2/32, fd12::2/128\nDNS = 1.1.1.1, 8.8.8.8\n\
         MTU = 1380\n\n[Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
         Endpoint = vpn.example.net:443\nPersistentKeepalive = 25\n",
        *private_key.to_base64(),
        PrivateKey::generate().public_key(),
        *preshared_key.to_base64(),
    )
}

fn minimal() -> String {
    file(&PrivateKey::generate(), &PresharedKey::generate())
}

fn problem(text: &str) -> (usize, Problem) {
    match text.parse::<Conf>() {
        Err(ConfError::Line { line, problem }) => (line, problem),
        other => panic!("expected a line at fault, got {other:?}"),
    }
}

#[test]
fn every_key_the_handler_writes_is_understood() {
    let (private_key, preshared_key) = (PrivateKey::generate(), PresharedKey::generate());
    let conf: Conf = file(&private_key, &preshared_key).parse().unwrap();
    assert_eq!(
        conf.private_key.as_ref().unwrap().as_bytes(),
        private_key.as_bytes()
    );
    assert_eq!(conf.preshared_key, Some(preshared_key));
    assert_eq!(conf.address, "10.8.0.2/32".parse().unwrap());
    assert_eq!(
        conf.dns,
        [
            "1.1.1.1".parse::<IpAddr>().unwrap(),
            "8.8.8.8".parse().unwrap()
        ]
    );
    assert_eq!(conf.mtu, 1380);
    assert_eq!(conf.endpoint.to_string(), "vpn.example.net:443");
    assert_eq!(conf.gateway(), Some(Ipv4Addr::new(10, 8, 0, 1)));
    assert!(conf.routes(Ipv4Addr::new(203, 0, 113, 1)));
}

#[test]
fn a_file_without_a_private_key_is_a_file() {
    let text: String = minimal()
        .lines()
        .filter(|line| !line.starts_with("PrivateKey"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(text.parse::<Conf>().unwrap().private_key.is_none());
}

#[test]
fn case_comments_and_carriage_returns_do_not_matter() {
    let text = minimal()
        .replace("AllowedIPs", "allowedips")
        .replace('\n', " # note\r\n");
    assert!(text.parse::<Conf>().is_ok());
}

#[test]
fn unknown_keys_and_empty_values_name_their_line() {
    let text = minimal().replace("MTU = 1380", "PostUp = reboot");
    assert_eq!(
        problem(&text),
        (5, Problem::UnknownKey("PostUp".into(), "Interface"))
    );
    let text = minimal().replace("MTU = 1380", "MTU =");
    assert_eq!(problem(&text), (5, Problem::Empty("MTU".into())));
    let text = minimal().replace("PersistentKeepalive", "MTU");
    assert_eq!(
        problem(&text),
        (12, Problem::UnknownKey("MTU".into(), "Peer"))
    );
    let text = minimal().replace("MTU = 1380", "MTU = 1380\nMTU = 1380");
    assert_eq!(problem(&text), (6, Problem::Twice("MTU")));
    assert_eq!(
        problem(&format!("{}[Peer]\n", minimal())),
        (13, Problem::SecondSection("Peer"))
    );
    assert_eq!(problem("MTU = 1380"), (1, Problem::NoSection));
}

#[test]
fn what_is_missing_is_named() {
    for key in ["Address", "PublicKey", "AllowedIPs", "Endpoint"] {
        let text: String = minimal()
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(text.parse::<Conf>().unwrap_err(), ConfError::Missing(key));
    }
    let text = minimal().replace("10.8.0.2/32, ", "");
    assert_eq!(text.parse::<Conf>().unwrap_err(), ConfError::NoIpv4Address);
}

#[test]
fn a_key_on_a_broken_line_is_not_repeated() {
    let secret = PrivateKey::generate();
    let secret = secret.to_base64();
    for line in [
        format!("{}\n", *secret),
        format!("PrivateKey {}\n", *secret),
        format!("PrivateKey = x{}\n", *secret),
    ] {
        let error = format!("[Interface]\n{line}").parse::<Conf>().unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains(&secret[..40]),
            "{error}"
        );
    }
}

#[test]
fn endpoints_are_names_or_addresses_with_a_port() {
    for good in [
        "203.0.113.1:51820",
        "[2001:db8::1]:443",
        "a-b.example.net:1",
    ] {
        assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "host",
        "host:",
        ":443",
        "host:0",
        "host:65536",
        "2001:db8::1:443",
        "a b:1",
        "[host]:1",
    ] {
        assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
    }
}

#[test]
fn gateway_is_the_first_address_unless_it_lies_outside_the_tunnel() {
    let gateway = |address: &str, allowed: &str| {
        let text = minimal()
            .replace("10.8.0.2/32", address)
            .replace("0.0.0.0/0", allowed);
        text.parse::<Conf>()
            .unwrap()
            .gateway()
            .map(|address| address.to_string())
    };
    assert_eq!(
        gateway("10.9.7.5/16", "0.0.0.0/0").as_deref(),
        Some("10.9.0.1")
    );
    assert_eq!(
        gateway("10.9.7.5", "10.9.7.0/24").as_deref(),
        Some("10.9.7.1")
    );
    assert_eq!(gateway("10.9.7.1/24", "0.0.0.0/0"), None);
    assert_eq!(gateway("10.9.7.5/32", "203.0.113.0/24"), None);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,400}") {
        let _ = text.parse::<Conf>();
    }

    #[test]
    fn arbitrary_lines_in_a_good_file_never_panic(line in "[A-Za-z=\\[\\]0-9:./, #-]{0,60}", at in 0usize..13) {
        let text = minimal();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.insert(at.min(lines.len()), &line);
        let _ = lines.join("\n").parse::<Conf>();
    }
}
