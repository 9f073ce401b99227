//! The content of an admin Secret: its key, and how it is recognized.

use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use crate::domain::{record::TenantRecord, seed_record::SeedRecord};

/// The key in the admin Secret: a JSON list of entries. One key for all, since an e-mail address is not a key.
pub const KEY: &str = "admins.json";

/// The digest of the credentials in an admin Secret.
pub fn content_digest(secret: &Secret) -> Option<String> {
    Some(digest(&secret.data.as_ref()?.get(KEY)?.0))
}

/// Tokens and passwords are random: a digest of them reveals nothing.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a Secret contains exactly the credentials that were issued for a tenant.
pub fn holds_credentials_of(secret: &Secret, row: &TenantRecord) -> bool {
    let issued = row.seed_digest.as_deref().and_then(|seed| SeedRecord::parse(seed).issued);
    issued.is_some_and(|issued| content_digest(secret).as_ref() == Some(&issued.content_digest))
}
