//! Memberships of `tenantry_admin` that an interrupted operation left. To roll back a tenant's prepared transaction, the
//! operator becomes a member of its owner, which cannot be in one transaction with the rollback.

use crate::postgres::{
    error::Result,
    identifier::{ADMIN, GROUPS, Ident, OWNER, Script},
    server::{Server, run_on},
    session::connect::{ANSWER_LIMIT, with_timeout},
};

/// The roles of tenants, the groups and `tenantry_owner`, where `tenantry_admin` is a member beyond what its creation of them
/// gives: from 16 on, that is the ADMIN option without SET and INHERIT. `$1` are the shared roles.
const BORROWED: &str = "\
SELECT r.rolname::text FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.roleid
WHERE m.member = (SELECT a.oid FROM pg_roles AS a WHERE a.rolname = 'tenantry_admin')
    AND (r.rolname = ANY ($1) OR starts_with(shobj_description(r.oid, 'pg_authid'), 'tenantry:tenant:'))
    AND (NOT to_jsonb(m) ? 'set_option' OR (to_jsonb(m) ->> 'set_option')::bool AND m.grantor = m.member)
ORDER BY 1";

impl Server {
    /// Revokes the memberships in tenants' logins, groups and `tenantry_owner` that an interrupted rollback left to
    /// `tenantry_admin`. Returns the names of those roles.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn revoke_borrowed_memberships(&self) -> Result<Vec<String>> {
        let doing = "revoke the memberships that an interrupted operation left";
        // A rollback that runs needs its own.
        let _one = self.inner.sessions.rolling_back.lock().await;
        let mut session = self.admin().await?;
        let [rw, shrink, ro] = GROUPS;
        let shared = [rw, shrink, ro, OWNER];
        let shared = shared.each_ref().map(Ident::as_str);
        let query = sqlx::query_scalar(BORROWED).bind(&shared[..]).fetch_all(&mut *session);
        let borrowed: Vec<String> = with_timeout(ANSWER_LIMIT, doing, query).await?;
        let mut script = Script::new();
        for role in &borrowed {
            script.add("REVOKE {} FROM {}", &[&Ident::new(role)?, &ADMIN]);
        }
        run_on(&mut session, doing, &script).await?;
        session.release();
        Ok(borrowed)
    }
}
