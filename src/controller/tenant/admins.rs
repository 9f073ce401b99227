//! The admins' one-time credentials: plain text in the Secret `<name>-admin`, hashes for the seed.

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
    failure::StepError,
    secrets::{self, Found},
};
use crate::{
    api::tenant::{AdminCredential, Tenant},
    controller::context::Context,
    domain::desired::Desired,
    postgres::{
        credentials::{SecretText, generate_password},
        seed::{AdminSeed, OneTimeSecret, Seed},
    },
    registry::TenantRow,
};

/// How long a one-time credential is good for: a week, over a holiday weekend and back.
const VALIDITY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// One with less than this left is replaced when the admins are seeded anyway.
const WORTH_KEEPING: SignedDuration = SignedDuration::from_hours(24);

/// The key in the admin Secret: a JSON list of entries. One key for all, since an e-mail address is not a key.
const KEY: &str = "admins.json";

/// One admin's entry in the admin Secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    email: String,
    credential: AdminCredential,
    /// The reset token or the password.
    secret: String,
    /// After this it is worth nothing.
    expires_at: Timestamp,
}

/// What is offered to the admins of a tenant, written down before it is seeded.
pub struct Offers {
    entries: BTreeMap<String, Entry>,
    found: Found,
}

impl Offers {
    /// Makes what is missing: an entry that is there and good for a while is kept, so that a run that is cut off
    /// and begun again hands out the same.
    pub async fn prepare(
        context: &Context,
        tenant: &Tenant,
        row: &TenantRow,
        desired: &Desired,
    ) -> Result<Self, StepError> {
        let namespace = tenant.namespace().unwrap_or_default();
        let found = secrets::find(context, &namespace, &desired.admin_secret, row).await?;
        let known = match &found {
            Found::Absent => BTreeMap::new(),
            Found::Ours(secret) => read(secret),
        };
        let now = context.clock.now();
        let entries = desired.admins.iter().map(|admin| {
            let kept = known.get(&admin.email).filter(|entry| {
                entry.credential == admin.credential && entry.expires_at.duration_since(now) > WORTH_KEEPING
            });
            let entry = kept.cloned().unwrap_or_else(|| Entry {
                email: admin.email.clone(),
                credential: admin.credential,
                secret: generate_password().expose().to_owned(),
                expires_at: now + VALIDITY,
            });
            (admin.email.clone(), entry)
        });
        let mut offers = Self { entries: entries.collect(), found };
        offers.write(context, tenant, row, desired).await?;
        Ok(offers)
    }

    /// The seed with these offers.
    pub fn seed(&self, desired: &Desired) -> Seed {
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
        Seed { settings: desired.settings.clone(), admins: admins.collect(), demo_data: desired.demo_data }
    }

    /// Takes out of the Secret what nobody needed: admins who have an account already keep their own credentials.
    pub async fn keep_only(
        mut self,
        offered: &[String],
        context: &Context,
        tenant: &Tenant,
        row: &TenantRow,
        desired: &Desired,
    ) -> Result<(), StepError> {
        let before = self.entries.len();
        self.entries.retain(|email, _| offered.contains(email));
        if self.entries.len() == before { Ok(()) } else { self.write(context, tenant, row, desired).await }
    }

    /// Writes the Secret, or deletes it when there is nothing to hand out.
    async fn write(
        &mut self,
        context: &Context,
        tenant: &Tenant,
        row: &TenantRow,
        desired: &Desired,
    ) -> Result<(), StepError> {
        if self.entries.is_empty() {
            return self.remove(context).await;
        }
        let list: Vec<&Entry> = self.entries.values().collect();
        let json = serde_json::json!(list).to_string();
        if let Found::Ours(secret) = &self.found
            && secret
                .data
                .as_ref()
                .and_then(|data| data.get(KEY))
                .is_some_and(|data| data.0 == json.as_bytes())
        {
            return Ok(());
        }
        let secret = Secret {
            metadata: secrets::metadata(tenant, row, &desired.admin_secret),
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json.into_bytes()))])),
            ..Secret::default()
        };
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

/// The entries of an admin Secret. Content that is not ours to read is replaced.
fn read(secret: &Secret) -> BTreeMap<String, Entry> {
    let entries: Vec<Entry> = secret
        .data
        .as_ref()
        .and_then(|data| data.get(KEY))
        .and_then(|bytes| serde_json::from_slice(&bytes.0).ok())
        .unwrap_or_default();
    entries.into_iter().map(|entry| (entry.email.clone(), entry)).collect()
}
