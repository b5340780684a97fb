//! A simulated world around the gateway: clients with a TCP/IP of their own, a link that loses and
//! reorders, an outside that answers as told, and a clock that only this file moves.

mod client;
pub(crate) mod counting;
mod outside;
pub(crate) mod packets;
mod plain;
mod world;

pub(crate) use client::Client;
pub(crate) use outside::Answer;
pub(crate) use plain::{Plain, initiation, message};
pub(crate) use world::{Arrival, Link, SentFrame, World, endpoint, peer_spec};
