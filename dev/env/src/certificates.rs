//! Certificates for the control plane and for tests of TLS.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::error::Result;

/// A certificate and its key, both in PEM format.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A certificate authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates an authority with this common name.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = valid(name, (2020, 2080))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate in PEM format, for clients to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server certificate for these host names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Result<Certificate> {
        self.sign(names, (2020, 2080), ExtendedKeyUsagePurpose::ServerAuth, None)
    }

    /// An expired server certificate for these names.
    pub fn expired_server(&self, names: &[&str]) -> Result<Certificate> {
        self.sign(names, (2020, 2021), ExtendedKeyUsagePurpose::ServerAuth, None)
    }

    /// A client certificate; Kubernetes reads the common name as the user and the organization as a group.
    pub fn client(&self, user: &str, group: &str) -> Result<Certificate> {
        self.sign(&[user], (2020, 2080), ExtendedKeyUsagePurpose::ClientAuth, Some(group))
    }

    fn sign(
        &self,
        names: &[&str],
        years: (i32, i32),
        usage: ExtendedKeyUsagePurpose,
        organization: Option<&str>,
    ) -> Result<Certificate> {
        let mut params = valid(names.first().copied().unwrap_or("localhost"), years)?;
        match organization {
            Some(group) => params.distinguished_name.push(DnType::OrganizationName, group),
            None => {
                let alternatives: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
                params.subject_alt_names = CertificateParams::new(alternatives)?.subject_alt_names;
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certificate { certificate, key: key.serialize_pem() })
    }
}

/// A key pair (ECDSA P-256) for service account tokens: the private (PKCS #8) and the public key, both in PEM format.
pub(crate) fn signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn valid(name: &str, (from, until): (i32, i32)) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    Ok(params)
}
