//! Neighbours of the control plane, simulated: they have states and delays, not canned answers.
//! Not in a release build.

mod backend;
mod clock;
mod store;

pub use backend::{Fault, SimulatedBackend};
pub use clock::TokioClock;
pub use store::MemoryStore;
