//! Public addresses and the names that follow them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use sha2::{Digest as _, Sha256};

use super::path::GroupPath;

/// Addresses that are given out in turn, so that one that was just released is not given again.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    first: Ipv4Addr,
    size: u32,
    next: u32,
    taken: BTreeSet<Ipv4Addr>,
}

impl Pool {
    pub(super) fn new(first: Ipv4Addr, size: u32) -> Self {
        Self {
            first,
            size: size.max(1),
            next: 0,
            taken: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..self.size {
            let address = Ipv4Addr::from(u32::from(self.first).wrapping_add(self.next));
            self.next = (self.next + 1) % self.size;
            if self.taken.insert(address) {
                return Some(address);
            }
        }
        None
    }

    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }
}

/// The name for a label: `<label>.<region>.azurecontainer.io`, and with any scope but `Unsecure`
/// a hash of 16 characters in between. What is hashed for which scope is the service's secret;
/// here it is what the scope's name promises.
pub(super) fn fqdn(label: &str, scope: &str, location: &str, group: &GroupPath) -> String {
    let label = label.to_ascii_lowercase();
    let about = match scope {
        "Unsecure" => return format!("{label}.{location}.azurecontainer.io"),
        "TenantReuse" => "tenant".to_owned(),
        "SubscriptionReuse" => group.subscription.clone(),
        "ResourceGroupReuse" => format!("{}/{}", group.subscription, group.resource_group),
        _ => format!("{}/{}", group.key(), rand::random::<u64>()),
    };
    let digest = Sha256::digest(about.to_ascii_lowercase());
    // The published examples use lower-case letters and digits, and begin with a letter.
    let letters = b"abcdefghjkmnpqrstuvwxyz0123456789";
    let hash = digest.iter().take(16).enumerate().map(|(at, byte)| {
        let choices = if at == 0 { 23 } else { letters.len() };
        char::from(letters[usize::from(*byte) % choices])
    });
    format!(
        "{label}.{}.{location}.azurecontainer.io",
        hash.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupPath {
        GroupPath {
            subscription: "s".into(),
            resource_group: "g".into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_reused_scope_gives_the_same_name_again_and_a_hash_of_16() {
        let name = fqdn("vpn", "ResourceGroupReuse", "westeurope", &group("a"));
        assert_eq!(
            name,
            fqdn("VPN", "ResourceGroupReuse", "westeurope", &group("b"))
        );
        let hash = name.split('.').nth(1).unwrap();
        assert_eq!(hash.len(), 16);
        assert_eq!(
            fqdn("vpn", "Unsecure", "westeurope", &group("a")),
            "vpn.westeurope.azurecontainer.io"
        );
    }

    #[test]
    fn a_released_address_is_not_the_next_one() {
        let mut pool = Pool::new(Ipv4Addr::new(203, 0, 113, 10), 2);
        let first = pool.take().unwrap();
        pool.release(first);
        let second = pool.take().unwrap();
        assert_ne!(first, second);
        assert_eq!(pool.take(), Some(first));
        assert_eq!(pool.take(), None);
    }
}
