//! The admins' one-time credentials: plain text in the Secret `<name>-admin`, hashes for the seed.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
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
    postgres::seed::{AdminSeed, OneTimeSecret, Seed},
    registry::TenantRow,
};

/// How long a one-time credential is good for.
const VALIDITY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The key in the admin Secret: a JSON list of [`Entry`]. One key for all, since an e-mail address is not a key.
const KEY: &str = "admins.json";

/// One admin's entry in the admin Secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    email: String,
    credential: AdminCredential,
    /// The reset token or the password.
    secret: String,
    /// After this it is worth nothing.
    expires_at: Timestamp,
}

/// What is offered to the admins of a tenant.
pub struct Offers<'a> {
    tenant: &'a Tenant,
    row: &'a TenantRow,
    name: String,
    entries: BTreeMap<String, Entry>,
}
