//! A certificate authority that nobody trusts but the tests.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// By the certificate library.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// By the TLS library.
    #[error("cannot use the certificate: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// The authority. Its certificate is what clients are told to trust.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate, in PEM.
    pub pem: String,
}

/// A server's certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub pem: String,
    /// The private key, in PEM.
    pub key_pem: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    /// A fresh one.
    pub fn new() -> Result<Self, TlsError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Popup VPN test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL 3, as Python uses it, insists on the key usage of an authority.
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    /// A certificate for a server of these names and addresses.
    pub fn issue(&self, names: &[&str], addresses: &[IpAddr]) -> Result<Certificate, TlsError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        })
    }
}

impl Certificate {
    /// What accepts TLS connections with it.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
