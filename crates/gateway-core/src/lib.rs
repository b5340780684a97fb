//! The gateway without its input and output: packets and time in, packets and commands out.
//!
//! Drive invariant: inputs, then drain. After a batch of `handle_*` calls and of TCP data lent and
//! taken, the shell calls [`Gateway::flush`], and takes every transmit and every command before it
//! waits again.

mod boring;
mod context;
mod drop_reason;
mod echo;
mod gateway;
mod idle;
mod limits;
mod mappings;
mod nat;
mod output;
mod packet;
mod peers;
mod policy;
mod reassembly;
pub mod session;
mod shard;
mod tcp;
mod timers;
mod transmit;
mod turns;
mod udp;

pub use boring::{BoringInterface, BoringSession};
pub use drop_reason::{DropCounters, DropReason};
pub use gateway::{FlowCounts, Gateway, Settings, WayOut};
pub use limits::Limits;
pub use nat::{Frame, Offload, PortRefusal, RawSettings, Received, Transport};
pub use output::{Command, EchoMapping, TcpFlow, UdpMapping};
pub use peers::{PeerReport, PeerSpec};
pub use policy::{EgressPolicy, NeverAllowed, Refusal};
pub use shard::{Handover, Shard};
pub use tcp::ConnectFailure;
pub use transmit::{Endpoint, Transmit};
pub use turns::{QUANTUM, ROUND};
