//! Where the documents are: a directory, or an account in Azure.

use std::path::PathBuf;

use popup_store::azure::{AccountUrl, SasTokens};

use super::Reader;

/// Where the documents are.
#[derive(Debug)]
pub(crate) enum StorageSettings {
    /// In this directory.
    Directory(PathBuf),
    /// In this account.
    Blob(Box<BlobSettings>),
}

/// An account, and how it is opened.
#[derive(Debug)]
pub(crate) struct BlobSettings {
    pub(crate) url: AccountUrl,
    pub(crate) access: BlobAccess,
    /// The version of its interface; the library's own when absent.
    pub(crate) api_version: Option<String>,
    /// Certificates that are trusted besides Mozilla's, as PEM.
    pub(crate) ca_pem: Option<String>,
    /// Where the interface's key is instead, when a file share is mounted for it.
    pub(crate) key_dir: Option<PathBuf>,
}

/// How an account is opened.
#[derive(Debug)]
pub(crate) enum BlobAccess {
    /// As this identity, whose tokens the instance metadata gives.
    Identity { client_id: String },
    /// With signatures from the handler.
    Sas(SasTokens),
}

const SAS: [&str; 3] = [
    "STORAGE_SAS_CONTROL",
    "STORAGE_SAS_STATUS",
    "STORAGE_SAS_KEYS",
];

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|text| !text.is_empty())
    }

    pub(super) fn storage(&mut self) -> Option<StorageSettings> {
        match (self.text("VPN_STATE_DIR"), self.text("STORAGE_ACCOUNT_URL")) {
            (Some(directory), _) => Some(StorageSettings::Directory(directory.into())),
            (None, Some(_)) => self
                .blob()
                .map(|blob| StorageSettings::Blob(Box::new(blob))),
            (None, None) => {
                let cure = "VPN_STATE_DIR or STORAGE_ACCOUNT_URL must say where the documents are";
                self.problems.push(cure.to_owned());
                None
            }
        }
    }

    fn blob(&mut self) -> Option<BlobSettings> {
        let url = self.parsed::<AccountUrl>("STORAGE_ACCOUNT_URL", None);
        let access = match SAS.iter().any(|name| self.text(name).is_some()) {
            true => {
                let [control, status, keys] = SAS.map(|name| self.parsed(name, None));
                control
                    .zip(status)
                    .zip(keys)
                    .map(|((control, status), keys)| SasTokens {
                        control,
                        status,
                        keys,
                    })
                    .map(BlobAccess::Sas)
            }
            false => {
                let client_id = self.required("AZURE_CLIENT_ID");
                client_id.map(|client_id| BlobAccess::Identity { client_id })
            }
        };
        Some(BlobSettings {
            url: url?,
            access: access?,
            api_version: self.text("STORAGE_API_VERSION"),
            ca_pem: self.text("TLS_CA_PEM"),
            key_dir: self.text("VPN_KEY_DIR").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, SettingsError};
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<StorageSettings, SettingsError> {
        let lease = "0123456789abcdef0123456789abcdef";
        let base = [
            ("LEASE_ID", lease),
            ("LEASE_EXPIRES_AT", "2026-01-02T03:04:05Z"),
        ];
        let lookup = |name: &str| {
            let mut all = variables.iter().chain(&base);
            all.find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Settings::from_environment(&lookup).map(|settings| settings.storage)
    }

    const URL: (&str, &str) = (
        "STORAGE_ACCOUNT_URL",
        "https://popup.blob.core.windows.net/",
    );

    #[test]
    fn an_account_is_opened_as_an_identity_or_with_three_signatures() {
        let StorageSettings::Blob(blob) = read(&[URL, ("AZURE_CLIENT_ID", "me")]).unwrap() else {
            panic!("a directory")
        };
        assert!(matches!(blob.access, BlobAccess::Identity { client_id } if client_id == "me"));
        let mut signatures = vec![URL];
        signatures.extend(SAS.map(|name| (name, "sv=1&sig=secret")));
        let settings = read(&signatures).unwrap();
        assert!(!format!("{settings:?}").contains("secret"));
        signatures.pop();
        assert!(
            read(&signatures)
                .unwrap_err()
                .to_string()
                .contains("STORAGE_SAS_KEYS")
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(
            read(&[])
                .unwrap_err()
                .to_string()
                .contains("VPN_STATE_DIR or STORAGE")
        );
        assert!(
            read(&[URL])
                .unwrap_err()
                .to_string()
                .contains("AZURE_CLIENT_ID")
        );
    }
}
