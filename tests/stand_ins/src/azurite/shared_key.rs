//! Shared Key, for the one request that the harness signs (Azure-Docs, "Authorize with Shared
//! Key").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The signature of a Create Container request. `path` begins with the account already; the
/// canonical resource has it twice for an emulator's path-style address.
pub(super) fn create_container(
    key: &[u8],
    path: &str,
    date: &str,
    account: &str,
    version: &str,
) -> String {
    // Twelve standard headers, all empty: a length of 0 is written as nothing.
    let to_sign = format!(
        "PUT{}x-ms-date:{date}\nx-ms-version:{version}\n/{account}{path}\nrestype:container",
        "\n".repeat(12)
    );
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(to_sign.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}
