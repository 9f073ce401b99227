//! Each tenant's login.

use crate::{
    domain::{placement::Placement, tenant_facts::Ownership},
    postgres::{
        catalog::ownership,
        error::{Error, Result, code, describe, is_duplicate},
        identifier::{Ident, Keyword, Literal, NO_ATTRIBUTES, Script},
        server::{Server, run_despite_read_only},
    },
};

use super::credentials::is_verifier;

impl Server {
    /// Creates the tenant's login, without LOGIN, a password or any right, and with its ownership comment.
    pub async fn create_login(&self, placement: &Placement) -> Result<()> {
        let (id, login) = (placement.tenant, Ident::login(placement)?);
        let _one = self.lock_tenant(id).await;
        let script = Script::of("CREATE ROLE {} NOLOGIN {}", &[&login, &NO_ATTRIBUTES])
            .then("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(&ownership::login(id, false))?]);
        match self.run("create the login", &script).await {
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => {
                self.own_login(placement).await.map(drop)
            }
            other => other,
        }
    }

    /// Sets the password of the login, as a verifier, and LOGIN or NOLOGIN.
    pub async fn set_login(&self, placement: &Placement, verifier: &str, can_login: bool) -> Result<()> {
        if !is_verifier(verifier) {
            return Err(Error::NotAVerifier);
        }
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        if !self.own_login(placement).await? {
            return Err(Error::LoginMissing(login.to_string()));
        }
        let may = Keyword(if can_login { "LOGIN" } else { "NOLOGIN" });
        let script = Script::of("ALTER ROLE {} {} PASSWORD {}", &[&login, &may, &Literal::new(verifier)?]);
        self.run("set the login's password", &script).await
    }

    /// Drops the tenant's login, if it exists. A role of that name that is not the tenant's is a conflict.
    pub async fn drop_login(&self, placement: &Placement) -> Result<()> {
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        if !self.own_login(placement).await? {
            return Ok(());
        }
        let mut session = self.admin().await?;
        let dropped =
            run_despite_read_only(&mut session, "drop the login", &Script::of("DROP ROLE {}", &[&login]))
                .await;
        if dropped.as_ref().err().is_none_or(|error| error.sql_state().is_some()) {
            session.release();
        }
        match dropped {
            Err(Error::Sql { source, .. }) if code(&source) == Some("2BP01") => {
                Err(Error::LoginInUse { login: login.to_string(), detail: describe(&source) })
            }
            // Another session dropped it first.
            Err(Error::Sql { source, .. }) if code(&source) == Some("42704") => Ok(()),
            other => other,
        }
    }

    /// Whether the tenant's login exists. A role of that name that is not the tenant's is a conflict.
    pub(super) async fn own_login(&self, placement: &Placement) -> Result<bool> {
        let login = Ident::login(placement)?;
        let inventory = self.read(Some((&[], &[login.as_str()]))).await?;
        match inventory.facts(placement).login {
            None => Ok(false),
            Some(facts) if facts.ownership.is_ours() => Ok(true),
            Some(facts) => Err(conflict(&login, facts.ownership)),
        }
    }
}

pub(super) fn conflict(login: &Ident, ownership: Ownership) -> Error {
    Error::Conflict { kind: "role", name: login.to_string(), detail: ownership.describe() }
}
