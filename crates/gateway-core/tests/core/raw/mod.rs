//! The raw way out: what peers send and what the network answers, packet by packet.

mod icmp;
mod network;
mod overload;
mod tcp;
mod trains;
mod translation;

use std::net::{Ipv4Addr, SocketAddrV4};

use popup_gateway_core::{RawSettings, WayOut};
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use crate::support::World;

pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);

pub(super) fn settings() -> RawSettings {
    RawSettings {
        address: OUTSIDE,
        mtu: 1500,
        ports: 10_000..=31_999,
        held_ports: 512,
        trains: true,
    }
}

pub(super) fn raw_world(clients: usize) -> World {
    World::with(clients, |world| world.way_out = WayOut::Raw(settings()))
}

pub(super) fn inside(client: usize, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 8, 0, 2 + client as u8), port)
}

/// The ends of a TCP or UDP packet, whose checksums must be right.
pub(super) fn ends(packet: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    assert!(ip.verify_checksum(), "the IP header's checksum");
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let (from, to) = match ip.next_header() {
        IpProtocol::Tcp => {
            let segment = TcpPacket::new_checked(ip.payload()).unwrap();
            assert!(segment.verify_checksum(&source.into(), &destination.into()));
            (segment.src_port(), segment.dst_port())
        }
        IpProtocol::Udp => {
            let datagram = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(datagram.verify_checksum(&source.into(), &destination.into()));
            (datagram.src_port(), datagram.dst_port())
        }
        other => panic!("{other} has no ports"),
    };
    (
        SocketAddrV4::new(source, from),
        SocketAddrV4::new(destination, to),
    )
}

/// The packets a client has been sent that are neither TCP nor forgotten, after the link's delay.
pub(super) fn heard(world: &mut World, client: usize) -> Vec<Vec<u8>> {
    world.run_for(std::time::Duration::from_millis(20));
    std::mem::take(&mut world.clients[client].heard)
}
