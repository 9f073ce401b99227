//! Certificates: an authority of the installation's own, and what it signs for the webhook.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, SystemTimeError, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// How much earlier than now a certificate begins: clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// How many lifetimes of a certificate an authority is valid: ten years, with the default.
const LIFETIMES: u32 = 40;

/// The name of the authority.
const AUTHORITY: &str = "tenantry webhook";

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// By rcgen.
    #[error("could not create a certificate: {0}")]
    Create(#[from] rcgen::Error),
    /// By rustls.
    #[error("the certificate cannot be used: {0}")]
    Use(#[from] rustls::Error),
    /// The clock.
    #[error("the system clock is before 1970: {0}")]
    Clock(#[from] SystemTimeError),
}

/// A certificate and its private key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// A new authority, and when it ends, in seconds since 1970.
pub fn authority(lifetime: Duration, now: SystemTime) -> Result<(KeyedCertificate, u64), CertificateError> {
    let key = KeyPair::generate()?;
    let validity = lifetime * LIFETIMES;
    let mut params = authority_params();
    valid(&mut params, validity, now)?;
    let certificate = params.self_signed(&key)?.pem();
    let end = (now + validity).duration_since(UNIX_EPOCH)?.as_secs();
    Ok((KeyedCertificate { certificate, key: key.serialize_pem() }, end))
}

/// A certificate for these names, signed with the key of an authority.
pub fn signed(
    names: &[String],
    authority_key: &str,
    lifetime: Duration,
    now: SystemTime,
) -> Result<KeyedCertificate, CertificateError> {
    let issuer = Issuer::new(authority_params(), KeyPair::from_pem(authority_key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = named("tenantry");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, lifetime, now)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(KeyedCertificate { certificate, key: key.serialize_pem() })
}

/// Whether a certificate is one for all these names, of one of these authorities, and still is at this time.
pub fn is_good(certificate: &str, authorities: &str, names: &[String], at: SystemTime) -> bool {
    verify(certificate, authorities, names, at).is_ok()
}

fn verify(
    certificate: &str,
    authorities: &str,
    names: &[String],
    at: SystemTime,
) -> Result<(), CertificateError> {
    let unreadable = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.map_err(unreadable)?)?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let verifier = builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH)?);
    for name in names {
        let name = ServerName::try_from(name.as_str());
        let name = name.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(&certificate, &[], &name, &[], at)?;
    }
    Ok(())
}

/// The same for every authority, so that its key is enough to sign with it.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn valid(params: &mut CertificateParams, lifetime: Duration, now: SystemTime) -> Result<(), SystemTimeError> {
    let since = now.duration_since(UNIX_EPOCH)?;
    params.not_before = date_time_ymd(1970, 1, 1) + since.saturating_sub(EARLIER);
    params.not_after = date_time_ymd(1970, 1, 1) + since + lifetime;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

    #[test]
    fn certificate_is_good_for_its_names_and_its_time_and_its_authority() {
        let now = SystemTime::now();
        let names = ["tenantry.tenantry-system.svc".to_owned(), "127.0.0.1".to_owned()];
        let (ours, end) = authority(LIFETIME, now).unwrap();
        let (other, _) = authority(LIFETIME, now).unwrap();
        let leaf = signed(&names, &ours.key, LIFETIME, now).unwrap();
        let is_good =
            |authorities: &str, names: &[String], at| is_good(&leaf.certificate, authorities, names, at);
        assert!(is_good(&ours.certificate, &names, now));
        assert!(is_good(&format!("{}{}", other.certificate, ours.certificate), &names, now));
        assert!(!is_good(&other.certificate, &names, now));
        assert!(!is_good(&ours.certificate, &["else.svc".to_owned()], now));
        assert!(is_good(&ours.certificate, &names, now + LIFETIME - Duration::from_secs(60)));
        assert!(!is_good(&ours.certificate, &names, now + LIFETIME + Duration::from_secs(60)));
        assert!(end > (now + 39 * LIFETIME).duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert!(!super::is_good("nothing", &ours.certificate, &names, now));
    }
}
