//! What the cloud's resolver answers.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

/// Names and their addresses. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<RwLock<HashMap<String, Ipv4Addr>>>);

impl Names {
    /// Lets a name mean this address, or nothing.
    pub fn set(&self, name: &str, ip: Option<Ipv4Addr>) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match ip {
            Some(ip) => names.insert(name, ip),
            None => names.remove(&name),
        };
    }

    /// What a name means now.
    pub fn find(&self, name: &str) -> Option<Ipv4Addr> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        names.get(&name).copied()
    }
}
