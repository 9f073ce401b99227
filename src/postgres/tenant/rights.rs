//! The rights in a tenant's database: read whenever a session of the migrator works there, and brought to what they should
//! be. What only another role can change is reported.

use super::{grants::add_right, support_login::support_scripts};
use crate::{
    domain::{
        access::AccessLevel,
        identity::TenantId,
        placement::Placement,
        rights::{ObjectKind, RightsMismatch, RightsReport, rights_mismatches},
    },
    postgres::{
        catalog::{ownership, rights::read_rights},
        error::Result,
        identifier::{ADMIN, DBA, Ident, Keyword, Literal, OWNER, Quoted, Script},
        server::{Server, run_despite_read_only, run_on},
        session::{
            connect::ConnectAs,
            migrator::MigratorSession,
            pool::{Session, lock},
        },
    },
};

/// How often rights are read and repaired before the rest is reported: an object that gets its owner back gets the rights of
/// the groups in the second round.
const ROUNDS: u32 = 3;

impl Server {
    /// Reads the rights in a tenant's database, in a session of its own, and repairs them. A report that is not clean is also
    /// kept for [`Server::take_rights_report`].
    pub async fn settle_rights(&self, placement: &Placement) -> Result<RightsReport> {
        let mut migrator = self.open_looking_session(placement, "connect to read the rights").await?;
        let result = self.settle(&mut migrator.session, placement).await;
        self.close_unchecked(migrator, result).await
    }

    /// Takes the report of the rights that were last found to differ in a tenant's database.
    pub fn take_rights_report(&self, id: TenantId) -> Option<RightsReport> {
        lock(&self.inner.rights).remove(&id)
    }

    /// Closes the session and returns the result of its operation. After a success in a published database, the rights
    /// there are read first.
    pub(in crate::postgres) async fn close_migrator_session<T>(
        &self,
        mut migrator: MigratorSession,
        placement: &Placement,
        result: Result<T>,
    ) -> Result<T> {
        if result.is_ok()
            && migrator.is_published()
            && let Err(error) = self.settle(&mut migrator.session, placement).await
        {
            tracing::warn!(database = placement.database, %error, "could not read the rights in a tenant's database");
        }
        self.close_unchecked(migrator, result).await
    }

    async fn settle(&self, session: &mut Session, placement: &Placement) -> Result<RightsReport> {
        let mut report = RightsReport::default();
        let mut narrowed = false;
        let mut attempted: Vec<RightsMismatch> = Vec::new();
        let logins: Vec<&str> = placement.logins().collect();
        for round in 1..=ROUNDS {
            let read = read_rights(session, Some(placement.tenant), &logins).await?;
            let found = rights_mismatches(&read.objects, &logins);
            // Repaired is what is not found again: a REVOKE of what another role granted is a mere warning.
            let repaired = attempted.extract_if(.., |done| !found.contains(done));
            report.repaired.extend(repaired.map(|done| done.to_string()));
            let (repairable, stuck): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|mismatch| mismatch.is_repairable() && round < ROUNDS);
            report.left = stuck.iter().map(ToString::to_string).collect();
            let (support_by_owner, support_by_dba) = support_scripts(&read)?;
            let is_settled = support_by_owner.is_empty() && support_by_dba.is_empty();
            if repairable.is_empty() && (is_settled || round == ROUNDS) {
                break;
            }
            let (by_dba, by_owner): (Vec<_>, Vec<_>) = repairable.iter().partition(|found| needs_dba(found));
            let doing = "repair the rights in the database";
            run_on(session, doing, &owner_script(&by_owner)?).await?;
            run_on(session, "set the rights of support logins", &support_by_owner).await?;
            if !(by_dba.is_empty() && support_by_dba.is_empty()) {
                let connect_as = ConnectAs::Admin(placement.database.as_str());
                // It waits for no session, since it holds one.
                let mut admin = self.inner.sessions.single_at_once(&connect_as, doing).await?;
                let mut script = dba_script(&by_dba, admin.has_grant_options())?;
                script.append(support_by_dba);
                let done = run_despite_read_only(&mut admin, doing, &script).await;
                admin.close().await;
                done?;
            }
            narrowed |= repairable.iter().any(RightsMismatch::is_excess);
            attempted = repairable;
        }
        if narrowed {
            self.doubt_sessions(placement).await?;
        }
        if !report.is_clean() {
            // What an earlier session repaired may not be reported yet.
            let mut reports = lock(&self.inner.rights);
            let kept = reports.entry(placement.tenant).or_default();
            kept.repaired.extend(report.repaired.iter().cloned());
            kept.left.clone_from(&report.left);
        }
        Ok(report)
    }

    /// Records of the logins with a restricted level that their sessions may have rights that were revoked just now: they have to
    /// be ended.
    async fn doubt_sessions(&self, placement: &Placement) -> Result<()> {
        let _one = self.lock_tenant(placement.tenant).await;
        let facts = self.observe(placement).await?;
        let others = facts.previous.into_iter().chain(facts.reader).filter_map(|other| other.role);
        let mut script = Script::new();
        for found in facts.login.into_iter().chain(others).filter(|login| login.ownership.is_ours()) {
            if !found.groups.iter().map(String::as_str).eq(AccessLevel::ReadWrite.group()) {
                let name = Ident::new(&found.name)?;
                let unproven = ownership::unproven(placement.tenant, found.is_kept);
                script.add("COMMENT ON ROLE {} IS {}", &[&name, &Literal::new(&unproven)?]);
            }
        }
        if script.is_empty() {
            return Ok(());
        }
        self.run("record that sessions have to be ended", &script).await
    }
}

/// Whether the owner of the database has to repair it; else the owner of the objects does.
fn needs_dba(mismatch: &RightsMismatch) -> bool {
    match mismatch {
        RightsMismatch::Owned(_) => true,
        RightsMismatch::Excess { object, .. } | RightsMismatch::Missing { object, .. } => {
            object.owner != OWNER.as_str()
        }
    }
}

/// Grants and revokes, as the owner of the objects.
fn owner_script(mismatches: &[&RightsMismatch]) -> Result<Script> {
    let mut script = Script::new();
    for mismatch in mismatches {
        match mismatch {
            RightsMismatch::Excess { object, grantee, privileges } => {
                for privilege in privileges {
                    add_right(&mut script, object, privilege, grantee, true)?;
                }
            }
            RightsMismatch::Missing { object, grantee, privileges } => {
                for privilege in privileges {
                    add_right(&mut script, object, privilege, grantee, false)?;
                }
            }
            RightsMismatch::Owned(_) => {}
        }
    }
    Ok(script)
}

/// The same on schemas, as the owner of the database; and owners. For those, `tenantry_admin` becomes a member of the old
/// and the new owner, for this one transaction.
fn dba_script(mismatches: &[&RightsMismatch], options_known: bool) -> Result<Script> {
    let mut script = Script::new();
    for mismatch in mismatches {
        let RightsMismatch::Owned(object) = mismatch else { continue };
        let (owner, address) = (Ident::new(&object.owner)?, Quoted::by_postgres(&object.address));
        let new_owner = if object.kind == ObjectKind::Schema { DBA } else { OWNER };
        let options = Keyword(if options_known { "WITH INHERIT TRUE, SET TRUE" } else { "" });
        script.add("GRANT {} TO {} {}", &[&owner, &ADMIN, &options]);
        if new_owner == OWNER {
            script.add("GRANT {} TO {} {}", &[&OWNER, &ADMIN, &options]);
        }
        let change: &'static str = match object.kind {
            ObjectKind::Function | ObjectKind::Definer => "ALTER ROUTINE {} OWNER TO {}",
            ObjectKind::Schema => "ALTER SCHEMA {} OWNER TO {}",
            // Of a view or a sequence too.
            _ => "ALTER TABLE {} OWNER TO {}",
        };
        script.add(change, &[&address, &new_owner]);
        if new_owner == OWNER {
            script.add("REVOKE {} FROM {}", &[&OWNER, &ADMIN]);
        }
        script.add("REVOKE {} FROM {}", &[&owner, &ADMIN]);
    }
    let rest: Vec<&RightsMismatch> =
        mismatches.iter().copied().filter(|mismatch| !matches!(mismatch, RightsMismatch::Owned(_))).collect();
    let rest = owner_script(&rest)?;
    if !rest.is_empty() {
        script.add("SET LOCAL ROLE {}", &[&DBA]);
        script.append(rest);
    }
    Ok(script)
}
