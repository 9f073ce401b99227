//! Passwords: generated and turned into verifiers in this process, so that no server, log or error ever contains one.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use rand::{RngExt, distr::Alphanumeric};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::domain::identity::TenantId;

/// Letters and digits only, so that a password needs no escaping in a URI; 32 of them are 190 bits.
const PASSWORD_LENGTH: usize = 32;

/// A secret text: its `Debug` does not print it, it has no `Display`, and it is wiped when dropped.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text, for a Secret, a connection or a hash. Never for a message.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

/// A text without the one line break at its end that is no part of it: an editor added it to the file.
pub fn without_final_line_break(text: &str) -> &str {
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

/// Generates a password.
pub fn generate_password() -> SecretText {
    SecretText::new(
        rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect::<String>(),
    )
}

/// The SCRAM-SHA-256 verifier of a password. PostgreSQL stores the verifier and is never sent the password.
pub fn scram_verifier(password: &SecretText) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}

/// Whether a text is a verifier, and not a password by mistake.
pub(super) fn is_verifier(text: &str) -> bool {
    text.strip_prefix("SCRAM-SHA-256$").is_some_and(|rest| {
        rest.split('$').count() == 2
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=:$".contains(&b))
    })
}

/// A keyed digest of a tenant's password, by which a Secret is checked: HMAC-SHA-256 over the tenant's id and the
/// password. (A check against the SCRAM verifier costs 4096 hashes per tenant.)
pub fn password_digest(key: &[u8], id: TenantId, password: &SecretText) -> Vec<u8> {
    // HMAC accepts keys of every length; the type is shared with algorithms that do not.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(id.0.as_bytes());
    mac.update(password.expose().as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn password_is_random_and_safe_in_a_uri() {
        let (a, b) = (generate_password(), generate_password());
        assert_eq!(a.expose().len(), PASSWORD_LENGTH);
        assert!(a.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(a.expose(), b.expose());
    }

    #[test]
    fn debug_of_a_secret_hides_it() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2")), "SecretText");
    }

    #[test]
    fn verifier_is_distinguished_from_password() {
        assert!(is_verifier(&scram_verifier(&generate_password())));
        for not in ["hunter2", "", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096:a'b$c:d", "md5abc"] {
            assert!(!is_verifier(not), "{not}");
        }
    }

    #[test]
    fn digest_depends_on_key_tenant_and_password() {
        let (one, two) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let password = SecretText::new("p");
        let digest = password_digest(b"key", one, &password);
        assert_eq!(digest.len(), 32);
        assert_eq!(digest, password_digest(b"key", one, &password));
        assert_ne!(digest, password_digest(b"other", one, &password));
        assert_ne!(digest, password_digest(b"key", two, &password));
        assert_ne!(digest, password_digest(b"key", one, &SecretText::new("q")));
    }
}
