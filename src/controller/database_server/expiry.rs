//! When certificates expire. Only their dates are read here: nothing is trusted for it.

use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rustls::pki_types::{CertificateDer, pem::PemObject};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version of a certificate; absent in the first one.
const VERSION: u8 = 0xa0;

/// When the first of these PEM certificates expires; none if none can be read.
pub fn first_expiry(pem: &[u8]) -> Option<Timestamp> {
    CertificateDer::pem_slice_iter(pem).filter_map(|found| not_after(&found.ok()?)).min()
}

/// `notAfter` of a certificate in DER (RFC 5280, 4.1).
fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = content(der, SEQUENCE)?;
    let (mut fields, _) = content(certificate, SEQUENCE)?;
    if let Some((_, rest)) = content(fields, VERSION) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = content(fields, tag)?.1;
    }
    let (validity, _) = content(fields, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    let text = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let text = match tag {
        GENERALIZED_TIME => text.to_owned(),
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// The content of the first element, if it has this tag, and what follows it.
fn content(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// The tag and the content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match usize::from(length) {
        short @ ..0x80 => (short, rest),
        // The number of bytes that the length has.
        long => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80).filter(|(bytes, _)| bytes.len() <= 4)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use tenantry_dev::certificates::Authority;

    use super::*;

    #[test]
    fn expiry_is_that_of_the_first_certificate() {
        let authority = Authority::new("ours").unwrap();
        let long = authority.certificate().to_owned();
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(first_expiry(long.as_bytes()), at("2080-01-01T00:00:00Z"));
        let expired = authority.expired_server(&["db.example"]).unwrap().certificate;
        let found = first_expiry(expired.as_bytes());
        assert!(found.is_some_and(|found| found < at("2026-01-01T00:00:00Z").unwrap()), "{found:?}");
        assert_eq!(first_expiry(format!("{long}{expired}").as_bytes()), found);
    }

    #[test]
    fn what_is_no_certificate_has_no_expiry() {
        let authority = Authority::new("ours").unwrap();
        let der = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
        assert!(not_after(&der).is_some());
        // Never a panic, wherever it ends.
        for end in 0..der.len() {
            assert_eq!(not_after(&der[..end]), None, "{end}");
        }
        assert_eq!(first_expiry(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(first_expiry(b""), None);
    }
}
