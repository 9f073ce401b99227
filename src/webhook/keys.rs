//! What all replicas share, in a Secret of the operator's namespace: the authority, the certificate, and the word in the path by
//! which the API server is known.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use uuid::Uuid;

use super::certificate::{CertificateError, KeyedCertificate, authority, is_good, signed};

/// The keys of the Secret.
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const AUTHORITY_END: &str = "ca.end";
const CERTIFICATE: &str = "tls.crt";
const CERTIFICATE_KEY: &str = "tls.key";
const WORD: &str = "path";

/// The content of the Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The certificates of the authority, PEM: its own first, then that of the one before it.
    pub authorities: String,
    authority_key: String,
    /// When the authority ends, in seconds since 1970.
    authority_end: u64,
    /// The certificate of the webhook.
    pub leaf: KeyedCertificate,
    /// The last part of the path of every request. A caller does not have to prove that it is the API server; this word is what
    /// only the configurations of webhooks, and this Secret, have.
    pub word: String,
}

impl Keys {
    /// The keys in a Secret; none: it has no usable ones.
    pub fn read(secret: &Secret) -> Option<Self> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?.0.clone();
            String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
        };
        Some(Self {
            authorities: text(AUTHORITY)?,
            authority_key: text(AUTHORITY_KEY)?,
            authority_end: text(AUTHORITY_END)?.parse().ok()?,
            leaf: KeyedCertificate { certificate: text(CERTIFICATE)?, key: text(CERTIFICATE_KEY)? },
            word: text(WORD)?,
        })
    }

    /// New keys. The authority stays until it is near its end, and the word stays.
    ///
    /// # Errors
    /// A certificate could not be made.
    pub fn renewed(
        former: Option<&Self>,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let word = former.map_or_else(|| Uuid::new_v4().simple().to_string(), |former| former.word.clone());
        let usable = former.filter(|former| former.authority_lasts(lifetime, now));
        let same = usable.and_then(|former| {
            let leaf = signed(names, &former.authority_key, lifetime, now).ok()?;
            Some(Self { leaf, word: word.clone(), ..former.clone() })
        });
        // The authority's certificate and its key may not belong together.
        let same = same.filter(|renewed| renewed.are_good(names, lifetime, now));
        if let Some(renewed) = same {
            return Ok(renewed);
        }
        let (new, authority_end) = authority(lifetime, now)?;
        // Replicas serve a certificate of the former authority until they have read the new one.
        let before = former.and_then(|former| first_certificate(&former.authorities)).unwrap_or_default();
        let both = Self {
            authorities: format!("{}{before}", new.certificate),
            leaf: signed(names, &new.key, lifetime, now)?,
            authority_key: new.key,
            authority_end,
            word,
        };
        // The former one may be no certificate.
        match both.are_good(names, lifetime, now) {
            true => Ok(both),
            false => Ok(Self { authorities: new.certificate, ..both }),
        }
    }

    /// Whether nothing has to be renewed: the certificate is for these names, and for another third of its lifetime.
    pub fn are_good(&self, names: &[String], lifetime: Duration, now: SystemTime) -> bool {
        self.authority_lasts(lifetime, now)
            && is_good(&self.leaf.certificate, &self.authorities, names, now + lifetime / 3)
    }

    /// Whether the authority outlives a certificate that is signed now.
    fn authority_lasts(&self, lifetime: Duration, now: SystemTime) -> bool {
        let needed = (now + lifetime).duration_since(UNIX_EPOCH).map(|needed| needed.as_secs());
        needed.is_ok_and(|needed| needed < self.authority_end)
    }

    /// The data of the Secret.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let end = self.authority_end.to_string();
        let entries = [
            (AUTHORITY, &self.authorities),
            (AUTHORITY_KEY, &self.authority_key),
            (AUTHORITY_END, &end),
            (CERTIFICATE, &self.leaf.certificate),
            (CERTIFICATE_KEY, &self.leaf.key),
            (WORD, &self.word),
        ];
        entries.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).into()
    }

    /// A Secret with these keys: the one that was read, at its version, or a new one.
    pub fn secret(&self, name: &str, read: Option<&Secret>) -> Secret {
        let mut secret = read.cloned().unwrap_or_default();
        if read.is_none() {
            secret.metadata.name = Some(name.to_owned());
            let label = ("app.kubernetes.io/managed-by".to_owned(), "tenantry".to_owned());
            secret.labels_mut().extend([label]);
        }
        secret.data = Some(self.data());
        secret
    }
}

/// The first certificate of a PEM text.
fn first_certificate(pem: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = pem.find(END)? + END.len();
    Some(&pem[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(900);

    fn names() -> Vec<String> {
        vec!["tenantry.tenantry-system.svc".to_owned()]
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let now = SystemTime::now();
        let keys = Keys::renewed(None, &names(), LIFETIME, now).unwrap();
        let secret = keys.secret("tenantry-webhook", None);
        assert!(
            Keys::read(&secret).is_some_and(|read| read == keys && read.are_good(&names(), LIFETIME, now))
        );
        let mut incomplete = secret;
        incomplete.data.as_mut().unwrap().remove(WORD);
        assert!(Keys::read(&incomplete).is_none());
        assert!(Keys::read(&Secret::default()).is_none());
    }

    #[test]
    fn certificate_is_renewed_in_its_last_third_by_the_same_authority() {
        let now = SystemTime::now();
        let first = Keys::renewed(None, &names(), LIFETIME, now).unwrap();
        assert!(first.are_good(&names(), LIFETIME, now + Duration::from_secs(590)));
        let later = now + Duration::from_secs(610);
        assert!(!first.are_good(&names(), LIFETIME, later));
        let second = Keys::renewed(Some(&first), &names(), LIFETIME, later).unwrap();
        assert!(second.are_good(&names(), LIFETIME, later) && second.leaf != first.leaf);
        assert_eq!((&second.authorities, &second.word), (&first.authorities, &first.word));
        // Another name is another certificate.
        assert!(!second.are_good(&["other.svc".to_owned()], LIFETIME, later));
    }

    #[test]
    fn authority_near_its_end_is_followed_by_another_and_still_trusted() {
        let now = SystemTime::now();
        let first = Keys::renewed(None, &names(), LIFETIME, now).unwrap();
        let later = now + LIFETIME * 39 + Duration::from_secs(60);
        assert!(!first.are_good(&names(), LIFETIME, later));
        let second = Keys::renewed(Some(&first), &names(), LIFETIME, later).unwrap();
        assert!(second.are_good(&names(), LIFETIME, later) && second.word == first.word);
        assert!(
            second.authorities.ends_with(first.authorities.trim_end())
                && second.authorities != first.authorities
        );
        let third = Keys::renewed(Some(&second), &names(), LIFETIME, later + LIFETIME * 40).unwrap();
        assert!(!third.authorities.contains(first.authorities.trim_end()));
        // A key that cannot be read is replaced, and so are a certificate that is not that of the key, and one that is none.
        let other = Keys::renewed(None, &names(), LIFETIME, now).unwrap();
        for broken in [
            Keys { authority_key: "nothing".to_owned(), ..first.clone() },
            Keys { authority_key: other.authority_key, ..first.clone() },
            Keys {
                authorities: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(),
                ..first
            },
        ] {
            let renewed = Keys::renewed(Some(&broken), &names(), LIFETIME, now).unwrap();
            assert!(renewed.are_good(&names(), LIFETIME, now), "{}", renewed.authorities);
        }
    }
}
