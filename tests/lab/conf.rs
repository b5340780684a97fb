//! Reading a client configuration, as far as the tests need it.

use std::net::SocketAddr;

use popup_model::{PresharedKey, PrivateKey, PublicKey};

/// A client configuration.
#[derive(Debug, Clone)]
pub struct Conf(pub String);

impl Conf {
    /// The value of `key`, which must be there.
    #[track_caller]
    pub fn value(&self, key: &str) -> &str {
        self.optional(key)
            .unwrap_or_else(|| panic!("no {key} in\n{}", self.0))
    }

    /// The value of `key`.
    pub fn optional(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim())
        })
    }

    /// The same file with another value for `key`.
    pub fn with(&self, key: &str, value: &str) -> Self {
        let old = self.value(key);
        Self(
            self.0
                .lines()
                .map(|line| {
                    let same = line
                        .split_once('=')
                        .is_some_and(|(name, _)| name.trim() == key);
                    if same {
                        format!("{}\n", line.replacen(old, value, 1))
                    } else {
                        format!("{line}\n")
                    }
                })
                .collect(),
        )
    }

    pub fn private_key(&self) -> PrivateKey {
        self.value("PrivateKey").parse().unwrap()
    }

    pub fn server_key(&self) -> PublicKey {
        self.value("PublicKey").parse().unwrap()
    }

    pub fn preshared_key(&self) -> Option<PresharedKey> {
        self.optional("PresharedKey")
            .map(|key| key.parse().unwrap())
    }

    pub fn endpoint(&self) -> SocketAddr {
        self.value("Endpoint").parse().unwrap()
    }

    /// The peer's IPv4 address in the tunnel.
    pub fn address(&self) -> std::net::Ipv4Addr {
        let addresses = self.value("Address").split(',');
        let mut v4 = addresses.filter_map(|address| address.trim().split('/').next()?.parse().ok());
        v4.next().expect("an IPv4 address")
    }
}
