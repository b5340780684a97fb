use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn route(interface: u32, to: &str, gateway: Option<&str>, metric: u32) -> Route {
    Route {
        interface,
        to: net(to),
        gateway: gateway.map(|text| text.parse().unwrap()),
        source: None,
        metric,
    }
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
    }
}

/// A container with one interface, as most are.
fn container() -> Network {
    Network {
        routes: vec![
            route(2, "0.0.0.0/0", Some("172.17.0.1"), 0),
            route(2, "172.17.0.0/16", None, 0),
        ],
        links: vec![link(1, "lo"), link(2, "eth0")],
        addresses: vec![(1, net("127.0.0.1/8")), (2, net("172.17.0.5/16"))],
    }
}

fn hop(routes: &Routes, to: [u8; 4]) -> Option<Ipv4Addr> {
    routes.next_hop(to.into())
}

#[test]
fn a_containers_way_out_is_its_one_interface() {
    let (outside, routes) = container().way_out().unwrap();
    assert_eq!((outside.index, outside.name.as_str()), (2, "eth0"));
    assert_eq!(outside.address, Ipv4Addr::new(172, 17, 0, 5));
    assert_eq!((outside.mtu, outside.mac), (1500, [2, 0, 0, 0, 0, 2]));
    assert_eq!(hop(&routes, [172, 17, 9, 9]), Some([172, 17, 9, 9].into()));
    assert_eq!(hop(&routes, [1, 1, 1, 1]), Some([172, 17, 0, 1].into()));
}

#[test]
fn the_lowest_metric_leads_out_and_only_its_interfaces_routes_count() {
    let mut network = container();
    network.links.push(link(3, "eth1"));
    network.addresses.push((3, net("10.0.0.4/24")));
    network.addresses.push((3, net("192.0.2.4/24")));
    let default = route(3, "0.0.0.0/0", Some("192.0.2.1"), 50);
    network.routes[0].metric = 100;
    network.routes.extend([
        default,
        route(3, "198.51.100.0/24", Some("192.0.2.9"), 0),
        route(3, "192.0.2.0/24", None, 0),
    ]);
    let (outside, routes) = network.way_out().unwrap();
    assert_eq!(outside.name, "eth1");
    assert_eq!(
        outside.address,
        Ipv4Addr::new(192, 0, 2, 4),
        "beside the gateway"
    );
    assert_eq!(hop(&routes, [198, 51, 100, 7]), Some([192, 0, 2, 9].into()));
    assert_eq!(hop(&routes, [172, 17, 0, 9]), Some([192, 0, 2, 1].into()));
}

#[test]
fn a_routes_own_source_is_taken_and_a_gateway_off_the_network_is_used() {
    let mut network = container();
    network.routes[0].source = Some(Ipv4Addr::new(203, 0, 113, 8));
    network.routes[0].gateway = Some(Ipv4Addr::new(169, 254, 1, 1));
    let (outside, routes) = network.way_out().unwrap();
    assert_eq!(outside.address, Ipv4Addr::new(203, 0, 113, 8));
    assert_eq!(hop(&routes, [1, 1, 1, 1]), Some([169, 254, 1, 1].into()));
}

#[test]
fn a_default_without_gateway_asks_for_the_destination_itself() {
    let mut network = container();
    network.routes[0].gateway = None;
    let (_, routes) = network.way_out().unwrap();
    assert_eq!(hop(&routes, [1, 1, 1, 1]), Some([1, 1, 1, 1].into()));
}

#[test]
fn what_raw_mode_cannot_use_is_said() {
    let mut no_default = container();
    no_default.routes.remove(0);
    assert!(matches!(
        no_default.way_out(),
        Err(NoWayOut::NoDefaultRoute)
    ));
    let mut tunnel = container();
    tunnel.links[1].mac = None;
    assert!(matches!(tunnel.way_out(), Err(NoWayOut::NotEthernet(name)) if name == "eth0"));
    let mut bare = container();
    bare.addresses.clear();
    assert!(matches!(bare.way_out(), Err(NoWayOut::NoAddress(name)) if name == "eth0"));
}

#[test]
fn this_machine_can_be_read() {
    let mut netlink = Netlink::open().unwrap();
    let network = Network::read(&mut netlink).unwrap();
    let lo = network.links.iter().find(|link| link.name == "lo").unwrap();
    assert!(lo.mac.is_none(), "not Ethernet");
    let again = Network::read(&mut netlink).unwrap();
    assert_eq!(again.links.len(), network.links.len());
}
