use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::read(&|name| {
        let home = [("HOME", "/home/me")];
        let found = variables
            .iter()
            .chain(&home)
            .find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn nothing_set_is_the_local_default() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.port, 7071);
    assert_eq!(settings.vpn.ports, [51820]);
    assert_eq!(settings.vpn.network, "10.8.0.0/24".parse().unwrap());
    assert_eq!(settings.vpn.regions, ["local".parse().unwrap()]);
    let state_dir = PathBuf::from("/home/me/.local/state/popup-vpn");
    assert!(
        matches!(&settings.backend, BackendSettings::Local(local) if local.state_dir == state_dir)
    );
    assert!(!settings.under_functions && !settings.hosted && !settings.log.json);
}

#[test]
fn all_problems_are_told_at_once() {
    let error = read(&[
        ("FUNCTIONS_CUSTOMHANDLER_PORT", "x"),
        ("VPN_PORT", "70000"),
        ("VPN_ENDPOINT_HOST", "a b"),
        ("SERVER_NETWORK", "8.8.8.0/24"),
        ("SERVER_INTERFACE", "../wg0"),
        ("REGIONS", "local,../etc"),
        ("EGRESS_ALLOW", "everything"),
        ("PEER_TO_PEER", "perhaps"),
        ("START_WAIT_SECONDS", "226"),
        ("LOG_FORMAT", "xml"),
        ("VPN_STATE_DIR", "relative"),
        ("VPN_BACKEND", "cloud"),
    ])
    .unwrap_err();
    let text = error.to_string();
    for name in [
        "FUNCTIONS_CUSTOMHANDLER_PORT",
        "VPN_PORT",
        "VPN_ENDPOINT_HOST",
        "SERVER_NETWORK",
        "SERVER_INTERFACE",
        "REGIONS",
        "EGRESS_ALLOW",
        "PEER_TO_PEER",
        "START_WAIT_SECONDS",
        "LOG_FORMAT",
        "VPN_STATE_DIR",
        "VPN_BACKEND",
    ] {
        assert!(
            text.contains(&format!("{name}: ")),
            "{name} is missing in {text}"
        );
    }
}

#[test]
fn a_subscription_chooses_azure_unless_told_otherwise() {
    for azure in [("SUBSCRIPTION_ID", "x"), ("VPN_BACKEND", "azure")] {
        let text = read(&[azure]).unwrap_err().to_string();
        assert!(text.contains("RESOURCE_GROUP: "), "{text}");
    }
    assert!(read(&[("SUBSCRIPTION_ID", "x"), ("VPN_BACKEND", "local")]).is_ok());
}

#[test]
fn choosing_a_port_by_hand_does_not_open_the_trust_boundary() {
    let settings = read(&[("FUNCTIONS_CUSTOMHANDLER_PORT", "8080")]).unwrap();
    assert!(!settings.under_functions && !settings.hosted);
}

#[test]
fn only_azure_itself_opens_the_trust_boundary() {
    let custom = ("FUNCTIONS_WORKER_RUNTIME", "custom");
    let instance = ("WEBSITE_INSTANCE_ID", "abc");
    let core_tools = read(&[custom]).unwrap();
    assert!(core_tools.under_functions && !core_tools.hosted && core_tools.log.json);
    assert!(read(&[custom, instance]).unwrap().hosted);
    assert!(
        read(&[custom, ("LEGION_SERVICE_HOST", "x")])
            .unwrap()
            .hosted
    );
    let development = ("AZURE_FUNCTIONS_ENVIRONMENT", "Development");
    assert!(!read(&[custom, instance, development]).unwrap().hosted);
}

#[test]
fn the_gateway_gets_checked_text_only() {
    let settings = read(&[
        ("EGRESS_ALLOW", "192.168.1.7/24, 10.1.2.3"),
        ("PEER_TO_PEER", "1"),
    ]);
    let BackendSettings::Local(LocalSettings { passed_on, .. }) = settings.unwrap().backend else {
        panic!("azure")
    };
    assert!(passed_on.contains(&("EGRESS_ALLOW", "192.168.1.0/24,10.1.2.3/32".to_owned())));
    assert!(passed_on.contains(&("PEER_TO_PEER", "true".to_owned())));
    assert!(passed_on.contains(&("SERVER_INTERFACE", "wg0".to_owned())));
}

#[test]
fn what_the_gateway_would_not_open_is_refused_before_there_is_one() {
    for networks in [
        "fd00::/8",
        "10.0.0.0/8,::1",
        "169.254.0.0/16",
        "10.0.0.0/33",
    ] {
        let error = read(&[("EGRESS_ALLOW", networks)]).unwrap_err().to_string();
        assert!(error.contains("EGRESS_ALLOW"), "{networks}: {error}");
    }
    assert!(read(&[("EGRESS_ALLOW", "0.0.0.0/0 10.1.0.0/16")]).is_ok());
}
