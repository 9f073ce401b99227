//! Seeds: settings by one statement, then admins and demo data of one tenant in one transaction. May be run again with the same or other
//! content: settings follow the spec, admins are never doubled, nobody's used credential is touched.

use std::collections::BTreeMap;

use argon2::{Argon2, PasswordHasher};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use crate::domain::{
    identity::TenantId,
    limits::{Amounts, Entitlements},
};

use super::{
    credentials::SecretText,
    error::{Error, Result},
    limits,
    server::Server,
};

/// What to seed.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The spec's settings.
    pub settings: BTreeMap<String, Value>,
    /// The spec's admins.
    pub admins: Vec<AdminSeed>,
    /// Whether demo data is wanted. It is put in once, and stays.
    pub demo_data: bool,
}

/// An administrator of the customer.
#[derive(Clone, Debug)]
pub struct AdminSeed {
    /// Lower case.
    pub email: String,
    /// For people.
    pub name: Option<String>,
    /// What the admin is offered to log in with for the first time.
    pub offer: OneTimeSecret,
    /// After this it is worth nothing.
    pub expires_at: Timestamp,
}

/// A credential for one use. Its plain text is for the admin alone; the database gets a hash.
#[derive(Clone, Debug)]
pub enum OneTimeSecret {
    /// Random enough to be hashed once: SHA-256.
    ResetToken(SecretText),
    /// Typed by people, so it is hashed expensively: argon2id.
    Password(SecretText),
}

/// What a seed came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedOutcome {
    /// Those admins, by e-mail, whose offered credential is in force. The others have an account that they use.
    pub offered: Vec<String>,
    /// What the tenant then uses of its metered limits.
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

/// The spec's keys get the spec's values. A key that it dropped goes, unless the application has put a value of its own
/// there; a key that it never had is the application's.
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

/// Open offers to people who are no admins any more, and those that a newer offer replaces.
const REVOKE: &str = "\
UPDATE public.user_credentials c SET revoked_at = now()
FROM public.users u
WHERE u.id = c.user_id AND c.issued_by = 'tenantry' AND c.used_at IS NULL AND c.revoked_at IS NULL
  AND NOT EXISTS (
      SELECT FROM jsonb_to_recordset($1) AS a (email text, hash text)
      WHERE a.email = u.email AND a.hash = c.secret_hash)";

/// Whoever has used a credential, has one from the application, or is known to own the address, has an account and
/// needs no first one: an offer would be a second key to it. One that is there already is opened again.
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
    /// Seeds a tenant's database, the one being built or the published one, after holding it to `limits`, if there are any;
    /// those stay, whatever becomes of the seed.
    pub async fn seed(
        &self,
        id: TenantId,
        database: &str,
        seed: &Seed,
        limits: Option<&Entitlements>,
    ) -> Result<SeedOutcome> {
        let wanted = seed.admins.clone();
        // Argon2 takes its time by design: not on the threads that serve everybody.
        let admins = tokio::task::spawn_blocking(move || admins(&wanted))
            .await
            .unwrap_or(Err(Error::PasswordNotHashed))?;
        let mut visit = self.enter(id, database, "connect to seed").await?;
        let session = &mut visit.session;
        let result = async {
            if let Some(limits) = limits {
                limits::apply(session, limits).await?;
            }
            write(session, seed, &admins).await.map_err(Error::sql("seed the database"))
        };
        let result = result.await;
        self.leave(visit, result).await
    }
}

/// The admins as the statements take them.
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
    // By itself: an admin for whom there is no room in the plan does not keep settings from being as they should.
    sqlx::query(SETTINGS).bind(json!(seed.settings)).execute(&mut *session).await?;
    let mut transaction = session.begin().await?;
    sqlx::query(ADMINS).bind(admins).execute(&mut *transaction).await?;
    sqlx::query(REVOKE).bind(admins).execute(&mut *transaction).await?;
    let offered = sqlx::query_scalar(OFFER).bind(admins).fetch_all(&mut *transaction).await?;
    if seed.demo_data {
        sqlx::query(DEMO).execute(&mut *transaction).await?;
    }
    let usage = limits::read(&mut transaction).await?;
    transaction.commit().await?;
    Ok(SeedOutcome { offered, usage })
}
