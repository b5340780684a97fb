//! Sockets and the packet loop. All `unsafe` of the gateway lives below here.

mod addresses;
mod bpf;
mod echo_sockets;
mod loop_handle;
mod memory;
mod packet_loop;
mod raw;
mod registry;
mod splices;
mod steering;
mod udp_sockets;
mod wireguard_socket;

pub(crate) use addresses::own_ipv4_addresses;
pub(crate) use echo_sockets::echo_available;
pub(crate) use loop_handle::{Input, Inputs, LoopHandle, Snapshot};
pub(crate) use memory::{keep_memory_elastic, make_room_for_descriptors};
pub(crate) use packet_loop::{LoopParts, start};
pub(crate) use raw::{Proof, RawPath, RawSockets, Unavailable};
pub(crate) use wireguard_socket::WireGuardSocket;
