//! Names that end up in file names, headers, URLs and configuration files.

use std::fmt;
use std::str::FromStr;

use rand::TryRngCore as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a tunnel name as the WireGuard apps accept it.
    #[error("a peer name is 1 to 15 of the characters a-z A-Z 0-9 _ = + . -, and not only dots")]
    Peer,
    /// Not the short form of a region.
    #[error("a region is 1 to 32 of the characters a-z 0-9 -, beginning with a letter")]
    Region,
    /// Not 32 hexadecimal digits.
    #[error("a lease id is 32 hexadecimal digits")]
    LeaseId,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $error:ident, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(NameError::$error) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// What a person calls a peer. It is also the tunnel's name in the WireGuard apps, whose rule
    /// it follows (`[a-zA-Z0-9_=+.-]{1,15}`, wireguard-android `Tunnel.java`). Names of dots
    /// only are refused: they are directories.
    PeerName,
    Peer,
    |text| {
        (1..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b))
            && !text.bytes().all(|b| b == b'.')
    }
);

name!(
    /// An Azure region in its short form (`northeurope`), or `local`.
    Region,
    Region,
    |text| {
        (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
);

name!(
    /// The fencing token of one start: 128 random bits in hexadecimal.
    LeaseId,
    LeaseId,
    |text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

impl LeaseId {
    /// A fresh identifier from the operating system's random source.
    pub fn generate() -> Self {
        let mut bytes = [0; 16];
        rand::rngs::OsRng
            .try_fill_bytes(&mut bytes)
            .expect("the operating system's random source works");
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_apps_rule() {
        for good in ["phone", "a", "A_b=c+d.e-f", "123456789012345"] {
            assert_eq!(good.parse::<PeerName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(300);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\nPostUp=x",
            "1234567890123456",
            "é",
            "a\0",
            long.as_str(),
        ] {
            assert_eq!(bad.parse::<PeerName>(), Err(NameError::Peer), "{bad:?}");
        }
    }

    #[test]
    fn regions_hold_no_separator() {
        assert!("northeurope".parse::<Region>().is_ok());
        for bad in [
            "",
            "-a",
            "9a",
            "a/b",
            "..",
            "North",
            "a\n",
            &"x".repeat(300),
        ] {
            assert_eq!(bad.parse::<Region>(), Err(NameError::Region), "{bad:?}");
        }
    }

    #[test]
    fn lease_ids_are_fresh_and_parse() {
        let (a, b) = (LeaseId::generate(), LeaseId::generate());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<LeaseId>().unwrap(), a);
    }

    proptest! {
        #[test]
        fn no_accepted_name_can_leave_its_line_or_directory(text in ".{0,20}") {
            if let Ok(name) = text.parse::<PeerName>() {
                prop_assert!(!name.as_str().contains(['/', '\n', '\r', '"', ' ', '\\', '\0']));
                prop_assert!(name.as_str() != "." && name.as_str() != "..");
            }
        }
    }
}
