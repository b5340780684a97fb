//! How the simulated cloud is set up.

use std::net::Ipv4Addr;

use super::{Delays, Identity, Quotas};

/// How the simulated cloud is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pace.
    pub delays: Delays,
    /// The limits.
    pub quotas: Quotas,
    /// How the end of an operation is found.
    pub long_running: LongRunning,
    /// Regions that exist.
    pub locations: Vec<String>,
    /// Resource groups that exist; any when empty.
    pub resource_groups: Vec<String>,
    /// Identities that exist; any when empty.
    pub identities: Vec<Identity>,
    /// The first public address that is given out, and how many there are.
    pub addresses: (Ipv4Addr, u32),
}

/// Which headers announce a long-running operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongRunning {
    /// `Azure-AsyncOperation` and nothing else, as recorded.
    AsyncOperation,
    /// `Location` and `Retry-After`, as the swagger of 2026-07-01 declares.
    Location,
}

impl Default for Settings {
    fn default() -> Self {
        let locations = [
            "westeurope",
            "northeurope",
            "uksouth",
            "eastus",
            "westus",
            "japaneast",
        ];
        Self {
            delays: Delays::recorded(),
            quotas: Quotas::default(),
            long_running: LongRunning::AsyncOperation,
            locations: locations.map(str::to_owned).to_vec(),
            resource_groups: Vec::new(),
            identities: Vec::new(),
            // The end of TEST-NET-3, so that a lab has room at its beginning.
            addresses: (Ipv4Addr::new(203, 0, 113, 100), 100),
        }
    }
}
