//! A client device: one tunnel address, a TCP/IP stack, and an ear for raw packets.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Time;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) incoming: VecDeque<Vec<u8>>,
    pub(crate) outgoing: VecDeque<Vec<u8>>,
}

pub(crate) struct Client {
    pub(crate) wire: Wire,
    /// Packets that arrived and are not TCP, or all.
    pub(crate) heard: Vec<Vec<u8>>,
    /// TCP is heard, too, and not answered.
    pub(crate) ears_only: bool,
    interface: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
}

pub(crate) struct Received(Vec<u8>);
pub(crate) struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Time) -> Option<(Received, Sending<'_>)> {
        self.incoming
            .pop_front()
            .map(|packet| (Received(packet), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Time) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1420;
        capabilities
    }
}

impl Client {
    pub(crate) fn new(address: Ipv4Addr) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(address.to_bits());
        let mut interface = Interface::new(config, &mut wire, Time::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::Ipv4(Ipv4Cidr::new(address, 0)))
                .unwrap();
        });
        Self {
            wire,
            heard: Vec::new(),
            ears_only: false,
            interface,
            sockets: SocketSet::new(Vec::new()),
            next_port: 40_000,
        }
    }

    /// Begins to connect.
    pub(crate) fn connect(&mut self, to: SocketAddrV4) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 256 * 1024]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let port = self.next_port;
        let socket = self.sockets.get_mut::<Socket>(handle);
        socket
            .connect(self.interface.context(), (*to.ip(), to.port()), port)
            .unwrap();
        handle
    }

    /// The next connection comes from the same port as the last.
    pub(crate) fn use_port_again(&mut self) {
        self.next_port -= 1;
    }

    /// The connection that was begun last.
    pub(crate) fn newest(&self) -> SocketHandle {
        self.sockets.iter().last().unwrap().0
    }

    /// Waits for a connection.
    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 256 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn state(&mut self, handle: SocketHandle) -> State {
        self.tcp(handle).state()
    }

    /// Takes a packet from the tunnel.
    pub(crate) fn hear(&mut self, packet: Vec<u8>) {
        const TCP: u8 = 6;
        if packet[0] >> 4 == 4 && packet[9] == TCP && !self.ears_only {
            self.wire.incoming.push_back(packet);
        } else {
            self.heard.push(packet);
        }
    }

    pub(crate) fn poll(&mut self, now: Time) {
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    pub(crate) fn poll_at(&mut self, now: Time) -> Option<Time> {
        self.interface.poll_at(now, &self.sockets)
    }
}
