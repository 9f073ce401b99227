//! Seeds: the settings of one tenant by one statement, then its admins and demo data in one transaction. A seed can be
//! repeated with the same or other content: settings follow the spec, admins are never duplicated, and a used credential
//! is never changed.

use std::collections::BTreeMap;

use argon2::{Argon2, PasswordHasher};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use crate::{
    domain::{
        placement::Placement,
        usage::entitlements::{Amounts, Entitlements},
    },
    postgres::{
        error::{Error, Result},
        server::Server,
    },
};

use super::{credentials::SecretText, limits};

/// What to seed.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The spec's settings.
    pub settings: BTreeMap<String, Value>,
    /// The spec's admins.
    pub admins: Vec<AdminSeed>,
    /// Whether demo data is inserted. It is inserted once, and stays.
    pub demo_data: bool,
    /// Only the admins' credentials are offered: what the application has changed since the last seed stays.
    pub credentials_only: bool,
}

/// An administrator of the customer.
#[derive(Clone, Debug)]
pub struct AdminSeed {
    /// Lower case.
    pub email: String,
    /// For people.
    pub name: Option<String>,
    /// The credential for the first login.
    pub offer: OneTimeSecret,
    /// When the credential expires.
    pub expires_at: Timestamp,
}

/// A credential for one use. Its plain text is for the admin alone; the database gets a hash.
#[derive(Clone, Debug)]
pub enum OneTimeSecret {
    /// Random enough to be hashed once: SHA-256.
    ResetToken(SecretText),
    /// Typed by people, so it is hashed with argon2id.
    Password(SecretText),
}

/// The result of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedOutcome {
    /// The e-mail addresses of the admins whose offered credential is valid. The others use their account already.
    pub offered: Vec<String>,
    /// The usage of the metered limits after the seed.
    pub usage: Amounts,
}

impl OneTimeSecret {
    fn kind(&self) -> &'static str {
        match self {
            Self::ResetToken(_) => "reset_token",
            Self::Password(_) => "one_time_password",
        }
    }

    fn hash(&self) -> Result<String> {
        match self {
            Self::ResetToken(token) => Ok(Sha256::digest(token.expose().as_bytes())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()),
            Self::Password(password) => Argon2::default()
                .hash_password(password.expose().as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|_| Error::PasswordNotHashed),
        }
    }
}

/// The spec's keys get the spec's values. A key that the spec dropped is deleted, unless the application has changed its
/// value; a key that the spec never had belongs to the application.
const SETTINGS: &str = "\
WITH wanted AS (SELECT key, value FROM jsonb_each($1)),
gone AS (
    DELETE FROM tenantry.mirrored_settings m WHERE NOT EXISTS (SELECT FROM wanted w WHERE w.key = m.key)
    RETURNING m.key, m.value),
removed AS (DELETE FROM public.settings s USING gone g WHERE s.key = g.key AND s.value = g.value),
mirrored AS (
    INSERT INTO tenantry.mirrored_settings AS m (key, value) SELECT key, value FROM wanted
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE m.value IS DISTINCT FROM excluded.value)
INSERT INTO public.settings AS s (key, value) SELECT key, value FROM wanted
ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE s.value IS DISTINCT FROM excluded.value";

const ADMINS: &str = "\
WITH wanted AS (SELECT * FROM jsonb_to_recordset($1) AS a (email text, name text)),
account AS (
    INSERT INTO public.users AS u (email, name) SELECT email, coalesce(name, '') FROM wanted
    ON CONFLICT (email) DO UPDATE SET name = CASE WHEN excluded.name = '' THEN u.name ELSE excluded.name END
    RETURNING id)
INSERT INTO public.user_roles (user_id, role_id)
SELECT account.id, r.id FROM account CROSS JOIN public.roles r WHERE r.name = 'admin'
ON CONFLICT DO NOTHING";

/// Revokes unused offers to people who are no longer admins, and offers that a newer one replaces.
const REVOKE: &str = "\
UPDATE public.user_credentials c SET revoked_at = now()
FROM public.users u
WHERE u.id = c.user_id AND c.issued_by = 'tenantry' AND c.used_at IS NULL AND c.revoked_at IS NULL
  AND NOT EXISTS (
      SELECT FROM jsonb_to_recordset($1) AS a (email text, hash text)
      WHERE a.email = u.email AND a.hash = c.secret_hash)";

/// A user who has used a credential, has one from the application, or has a verified address needs no offer: it would be
/// a second key to the account. An offer that exists is made valid again.
const OFFER: &str = "\
WITH wanted AS (
    SELECT u.id, a.*
    FROM jsonb_to_recordset($1) AS a (email text, kind text, hash text, expires_at timestamptz)
    JOIN public.users u USING (email)
    WHERE u.email_verified_at IS NULL AND NOT EXISTS (
        SELECT FROM public.user_credentials c
        WHERE c.user_id = u.id AND (c.used_at IS NOT NULL OR c.issued_by <> 'tenantry'))),
again AS (
    UPDATE public.user_credentials c SET revoked_at = NULL, expires_at = w.expires_at FROM wanted w
    WHERE c.user_id = w.id AND c.kind = w.kind AND c.secret_hash = w.hash RETURNING c.user_id),
offered AS (
    INSERT INTO public.user_credentials (user_id, kind, secret_hash, issued_by, expires_at)
    SELECT id, kind, hash, 'tenantry', expires_at FROM wanted w
    WHERE NOT EXISTS (SELECT FROM again WHERE again.user_id = w.id))
SELECT email FROM wanted ORDER BY email";

const DEMO: &str = "\
WITH first AS (
    INSERT INTO tenantry.seeds (name) VALUES ('demo') ON CONFLICT DO NOTHING RETURNING 1),
people AS (
    INSERT INTO public.users (email, name, is_demo, email_verified_at)
    SELECT v.email, v.name, true, now()
    FROM first, (VALUES ('ada@demo.example', 'Ada (demo)'), ('grace@demo.example', 'Grace (demo)')) AS v (email, name)
    ON CONFLICT (email) DO NOTHING RETURNING id),
roles AS (
    INSERT INTO public.user_roles (user_id, role_id)
    SELECT people.id, r.id FROM people CROSS JOIN public.roles r WHERE r.name = 'member' ON CONFLICT DO NOTHING)
INSERT INTO public.activity_log (action, entity_type, details)
SELECT 'demo.seeded', 'demo', '{\"demo\": true}' FROM first";

impl Server {
    /// Seeds a tenant's database, the one being built or the published one, after applying `limits`, if given. The limits
    /// stay even if the seed fails.
    pub async fn seed(
        &self,
        placement: &Placement,
        seed: &Seed,
        limits: Option<&Entitlements>,
    ) -> Result<SeedOutcome> {
        let wanted = seed.admins.clone();
        // Argon2 is slow by design: it does not run on the threads of the runtime.
        let admins = tokio::task::spawn_blocking(move || admins(&wanted))
            .await
            .unwrap_or(Err(Error::PasswordNotHashed))?;
        let mut migrator = self.open_migrator_session(placement, "connect to seed").await?;
        let session = &mut migrator.session;
        let result = async {
            if let Some(limits) = limits {
                limits::apply(session, limits).await?;
            }
            write(session, seed, &admins).await.map_err(Error::sql("seed the database"))
        };
        let result = result.await;
        self.close_migrator_session(migrator, placement, result).await
    }
}

/// The admins as the parameter of the statements.
fn admins(admins: &[AdminSeed]) -> Result<Value> {
    let admins = admins.iter().map(|admin| {
        Ok(json!({
            "email": admin.email,
            "name": admin.name,
            "kind": admin.offer.kind(),
            "hash": admin.offer.hash()?,
            "expires_at": admin.expires_at.to_string(),
        }))
    });
    admins.collect::<Result<Vec<_>>>().map(Value::Array)
}

async fn write(session: &mut PgConnection, seed: &Seed, admins: &Value) -> Result<SeedOutcome, sqlx::Error> {
    // Outside the transaction: an admin over the plan's limit must not keep the settings from being applied.
    if !seed.credentials_only {
        sqlx::query(SETTINGS).bind(json!(seed.settings)).execute(&mut *session).await?;
    }
    let mut transaction = session.begin().await?;
    if !seed.credentials_only {
        sqlx::query(ADMINS).bind(admins).execute(&mut *transaction).await?;
    }
    sqlx::query(REVOKE).bind(admins).execute(&mut *transaction).await?;
    let offered = sqlx::query_scalar(OFFER).bind(admins).fetch_all(&mut *transaction).await?;
    if seed.demo_data && !seed.credentials_only {
        sqlx::query(DEMO).execute(&mut *transaction).await?;
    }
    let usage = limits::read(&mut transaction).await?;
    transaction.commit().await?;
    Ok(SeedOutcome { offered, usage })
}
