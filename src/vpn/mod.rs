//! The control plane: what should run, what runs, and what to do about the difference.
//!
//! Every decision is [`plan::plan`], a pure function; every transition of a document is pure too
//! (`lease`, `peers`). `service` reads, decides, persists and then acts, in this order, so that a
//! crash between the last two is repaired by whoever looks next.

pub mod backend;
pub mod client_config;
pub mod clock;
pub mod documents;
pub mod endpoint;
pub mod lease;
pub mod peers;
pub mod plan;
pub mod request;
pub mod service;
pub mod status;

pub use backend::{Backend, BackendError, Group, Phase, Sighting};
pub use clock::{Clock, SystemClock};
pub use endpoint::{Host, HostError};
pub use request::{ClientWish, PeerRequest, PeerWish, StartRequest};
pub use service::{Options, Service};
