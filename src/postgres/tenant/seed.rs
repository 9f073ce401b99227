//! Seeds: the settings of one tenant in one transaction, then its admins and demo data in another. A seed can be repeated
//! with the same or other content: settings follow the spec, admins are never duplicated, and a used credential is never
//! changed. Which tables of the tenant's modules they are written to is the modules' concern: `migrations/tenant/tenantry`
//! calls the functions that they registered, as `tenantry_owner`.

use std::collections::BTreeMap;

use argon2::{Argon2, PasswordHasher};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, types::Json};

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
    /// For a link. A module gets its SHA-256.
    ResetToken(SecretText),
    /// Typed by people. A module gets an argon2id hash, as of every other password.
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

    /// As `tenantry.redeem` looks it up. Both are random, and long enough for a fast hash.
    fn token_hash(&self) -> String {
        let (Self::ResetToken(secret) | Self::Password(secret)) = self;
        Sha256::digest(secret.expose().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As a module keeps it that stores credentials itself.
    fn hash(&self) -> Result<String> {
        match self {
            Self::ResetToken(_) => Ok(self.token_hash()),
            Self::Password(password) => Argon2::default()
                .hash_password(password.expose().as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|_| Error::PasswordNotHashed),
        }
    }
}

/// How long one statement may take, and so a function that a module registered: until it ends, the tenant's access is not
/// changed.
const LIMIT: &str = "SET statement_timeout = '30s'";

const SETTINGS: &str = "SELECT tenantry.seed_settings($1)";

const ADMINS: &str = "SELECT tenantry.seed_admins($1, $2, $3)";

/// The answer of the database.
#[derive(Deserialize)]
struct Answer {
    offered: Vec<String>,
    usage: Amounts,
}

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

/// The admins as the parameter of the statement.
fn admins(admins: &[AdminSeed]) -> Result<Value> {
    let admins = admins.iter().map(|admin| {
        Ok(json!({
            "email": admin.email,
            "name": admin.name,
            "kind": admin.offer.kind(),
            "hash": admin.offer.hash()?,
            "token_hash": admin.offer.token_hash(),
            "expires_at": admin.expires_at.to_string(),
        }))
    });
    admins.collect::<Result<Vec<_>>>().map(Value::Array)
}

/// Each statement is a transaction: an admin over the plan's limit must not keep the settings from being applied.
async fn write(session: &mut PgConnection, seed: &Seed, admins: &Value) -> Result<SeedOutcome, sqlx::Error> {
    sqlx::raw_sql(LIMIT).execute(&mut *session).await?;
    if !seed.credentials_only {
        sqlx::query(SETTINGS).bind(json!(seed.settings)).execute(&mut *session).await?;
    }
    let query = sqlx::query_scalar(ADMINS).bind(admins).bind(seed.credentials_only).bind(seed.demo_data);
    let Json(Answer { offered, usage }) = query.fetch_one(&mut *session).await?;
    // A function may have changed the role, the search_path or a timeout of the session, which reads the rights next.
    sqlx::raw_sql("RESET ALL; RESET ROLE").execute(session).await?;
    Ok(SeedOutcome { offered, usage })
}
