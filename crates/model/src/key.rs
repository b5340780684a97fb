//! Curve25519 keys and preshared keys in WireGuard's text form: 44 characters of base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRngCore as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the 44 characters that 32 bytes make in base64.
    #[error("a key is 44 characters of base64, as `wg genkey` and `wg pubkey` print it")]
    Malformed,
    /// A point of small order: every private key shares the same secret with it.
    #[error("this public key is all zero or of small order and cannot be used")]
    Weak,
}

fn parse(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if text.len() != 44 {
        return Err(KeyError::Malformed);
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::Malformed)?);
    <[u8; 32]>::try_from(bytes.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| KeyError::Malformed)
}

fn random() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rngs::OsRng
        .try_fill_bytes(&mut *bytes)
        .expect("the operating system's random source works");
    bytes
}

/// The public half of a Curve25519 key pair; a peer's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes raw bytes as they are; use [`FromStr`] for text from a caller.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether a Diffie-Hellman exchange with this key would give a secret that everybody knows
    /// (RFC 7748, section 6.1).
    fn is_weak(&self) -> bool {
        let probe = x25519_dalek::StaticSecret::from([0x42; 32]);
        !probe
            .diffie_hellman(&x25519_dalek::PublicKey::from(self.0))
            .was_contributory()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = Self(*parse(text)?);
        if key.is_weak() {
            Err(KeyError::Weak)
        } else {
            Ok(key)
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! text_serde {
    ($type:ty, $text:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$type) -> Zeroizing<String> = $text;
                serializer.serialize_str(&text(self))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Zeroizing::new(String::deserialize(deserializer)?);
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_serde!(PublicKey, |key| Zeroizing::new(key.to_string()));
text_serde!(PresharedKey, PresharedKey::to_base64);

/// A Curve25519 private key. Erased when dropped; never printed by `Debug`.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// A new key from the operating system's random source, clamped as `wg genkey` does.
    pub fn generate() -> Self {
        let mut bytes = random();
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }

    /// The public key that belongs to this private key.
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(*self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// WireGuard's text form, erased when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse(text).map(Self)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A symmetric key mixed into the handshake of one peer. Erased when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PresharedKey {
    /// A new key from the operating system's random source.
    pub fn generate() -> Self {
        Self(random())
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// WireGuard's text form, erased when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse(text).map(Self)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1: Alice's key pair.
    #[test]
    fn public_key_matches_rfc_7748() {
        let private: PrivateKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
            .parse()
            .unwrap();
        assert_eq!(
            private.public_key().to_string(),
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
        );
    }

    #[test]
    fn generated_keys_differ_and_are_clamped() {
        let (a, b) = (PrivateKey::generate(), PrivateKey::generate());
        assert_ne!(a.as_bytes(), b.as_bytes());
        assert_eq!(a.as_bytes()[0] & 7, 0);
        assert_eq!(a.as_bytes()[31] & 0xc0, 0x40);
    }

    #[test]
    fn malformed_and_weak_keys_are_refused() {
        for text in [
            "",
            "x",
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo",
            &"A".repeat(44),
            &"\n".repeat(44),
        ] {
            assert_eq!(
                text.parse::<PublicKey>(),
                Err(KeyError::Malformed),
                "{text:?}"
            );
        }
        let zero = STANDARD.encode([0; 32]);
        assert_eq!(zero.parse::<PublicKey>(), Err(KeyError::Weak));
    }

    #[test]
    fn debug_output_hides_secrets() {
        let private = PrivateKey::generate();
        let preshared = PresharedKey::generate();
        let text = format!("{private:?} {preshared:?}");
        assert!(
            !text.contains(private.to_base64().as_str())
                && !text.contains(preshared.to_base64().as_str())
        );
    }
}
