//! The admins' one-time credentials: in plain text in the Secret `<name>-admin`, as hashes for the seed.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use serde::{Deserialize, Serialize};

use super::{
    admin_content::{KEY, content_digest, digest, holds_credentials_of},
    failure::StepError,
    secrets::{self, Found},
};
use crate::{
    api::tenant::{AdminCredential, Tenant},
    controller::context::Context,
    domain::{
        record::TenantRecord,
        seed_record::{IssuedCredentials, SeedRecord},
        spec::DesiredTenant,
    },
    postgres::tenant::{
        credentials::{SecretText, generate_password},
        seed::{AdminSeed, OneTimeSecret, Seed},
    },
};

/// How long a one-time credential is valid: a week, which covers a long weekend.
const VALIDITY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A credential that is valid for less than this is replaced when the admins are seeded.
const MIN_VALIDITY: SignedDuration = SignedDuration::from_hours(24);

/// The entry of one admin in the admin Secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    email: String,
    credential: AdminCredential,
    /// The reset token or the password.
    secret: String,
    /// When it expires.
    expires_at: Timestamp,
}

/// One-time credentials of a tenant's admins. They are in the Secret before their hashes are in the database, so that an
/// interrupted run leaves no hash whose plain text is lost.
pub struct AdminCredentials {
    entries: BTreeMap<String, Entry>,
    found: Found,
    renews: bool,
}

impl AdminCredentials {
    /// Creates the missing entries and writes the Secret. An entry that is valid for a while is kept, so that a run that is
    /// repeated issues the same credential.
    pub async fn prepare(
        context: &Context,
        tenant: &Tenant,
        row: &TenantRecord,
        desired: &DesiredTenant,
    ) -> Result<Self, StepError> {
        let namespace = tenant.namespace().unwrap_or_default();
        let found = secrets::find(context, &namespace, &desired.admin_secret, row).await?;
        let known = match &found {
            Found::Absent => BTreeMap::new(),
            Found::Ours(secret) => read(secret),
        };
        let now = context.clock.now();
        let recorded = row.seed_digest.as_deref().map(SeedRecord::parse);
        let content = match &found {
            Found::Absent => None,
            Found::Ours(secret) => content_digest(secret),
        };
        // The rest of the seed is in the database: only the credentials are issued again.
        let renews = recorded.is_some_and(|seed| {
            seed.digest == desired.seed_digest() && !seed.credentials_intact(content.as_deref(), now)
        });
        let was_changed = renews && !holds_issued(&found, row);
        let entries = desired.admins.iter().map(|admin| {
            let kept = known.get(&admin.email).filter(|entry| {
                !was_changed
                    && entry.credential == admin.credential
                    && entry.expires_at.duration_since(now) > MIN_VALIDITY
            });
            let entry = kept.cloned().unwrap_or_else(|| Entry {
                email: admin.email.clone(),
                credential: admin.credential,
                secret: generate_password().expose().to_owned(),
                expires_at: now + VALIDITY,
            });
            (admin.email.clone(), entry)
        });
        let mut credentials = Self { entries: entries.collect(), found, renews };
        credentials.write(context, tenant, row, desired).await?;
        Ok(credentials)
    }

    /// The seed with these credentials.
    pub fn seed(&self, desired: &DesiredTenant) -> Seed {
        let admins = desired.admins.iter().filter_map(|admin| {
            let entry = self.entries.get(&admin.email)?;
            let secret = SecretText::new(entry.secret.clone());
            Some(AdminSeed {
                email: admin.email.clone(),
                name: admin.name.clone(),
                offer: match entry.credential {
                    AdminCredential::ResetToken => OneTimeSecret::ResetToken(secret),
                    AdminCredential::OneTimePassword => OneTimeSecret::Password(secret),
                },
                expires_at: entry.expires_at,
            })
        });
        Seed {
            settings: desired.settings.clone(),
            admins: admins.collect(),
            demo_data: desired.demo_data,
            credentials_only: self.renews,
        }
    }

    /// Whether nothing but the credentials is seeded, because their Secret was lost, changed or not used in time.
    pub fn renews(&self) -> bool {
        self.renews
    }

    /// Removes the entries that were not used: admins who have an account already keep their credentials. Returns what is in
    /// the Secret then.
    pub async fn retain_issued(
        mut self,
        issued: &[String],
        context: &Context,
        tenant: &Tenant,
        row: &TenantRecord,
        desired: &DesiredTenant,
    ) -> Result<Option<IssuedCredentials>, StepError> {
        let before = self.entries.len();
        self.entries.retain(|email, _| issued.contains(email));
        if self.entries.len() != before {
            self.write(context, tenant, row, desired).await?;
        }
        let first = self.entries.values().map(|entry| entry.expires_at).min();
        let expires_at = first.map(|at| Timestamp::from_second(at.as_second()).unwrap_or(at));
        Ok(expires_at.map(|expires_at| IssuedCredentials {
            expires_at,
            content_digest: digest(self.content().as_bytes()),
        }))
    }

    /// The content of the Secret.
    fn content(&self) -> String {
        let list: Vec<&Entry> = self.entries.values().collect();
        serde_json::json!(list).to_string()
    }

    /// Writes the Secret, or deletes it if it would be empty.
    async fn write(
        &mut self,
        context: &Context,
        tenant: &Tenant,
        row: &TenantRecord,
        desired: &DesiredTenant,
    ) -> Result<(), StepError> {
        if self.entries.is_empty() {
            return self.remove(context).await;
        }
        let secret = Secret {
            metadata: secrets::metadata(tenant, row, &desired.admin_secret),
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(self.content().into_bytes()))])),
            ..Secret::default()
        };
        if let Found::Ours(found) = &self.found
            && secrets::is_as_wanted(found, &secret)
        {
            return Ok(());
        }
        self.found = Found::Ours(Box::new(secrets::write(context, secret, &self.found).await?));
        Ok(())
    }

    async fn remove(&mut self, context: &Context) -> Result<(), StepError> {
        let Found::Ours(secret) = std::mem::replace(&mut self.found, Found::Absent) else { return Ok(()) };
        let secrets =
            Api::<Secret>::namespaced(context.client.clone(), &secret.namespace().unwrap_or_default());
        let exactly = Preconditions { uid: secret.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        match secrets.delete(&secret.name_any(), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the Secret that was found has the credentials that were issued.
fn holds_issued(found: &Found, row: &TenantRecord) -> bool {
    match found {
        Found::Absent => false,
        Found::Ours(secret) => holds_credentials_of(secret, row),
    }
}

/// The entries of an admin Secret. Content that cannot be parsed is replaced.
fn read(secret: &Secret) -> BTreeMap<String, Entry> {
    let entries: Vec<Entry> = secret
        .data
        .as_ref()
        .and_then(|data| data.get(KEY))
        .and_then(|bytes| serde_json::from_slice(&bytes.0).ok())
        .unwrap_or_default();
    entries.into_iter().map(|entry| (entry.email.clone(), entry)).collect()
}
