//! What is the tenant's and does not look like it any more: ownership comments that were lost, and a login that was renamed.

use crate::{
    domain::{
        placement::Placement,
        tenant_facts::{OtherKind, Ownership, RecordedOids, StrayRole, TenantFacts},
    },
    postgres::{
        catalog::ownership,
        error::Result,
        identifier::{Ident, Literal, Script},
        server::Server,
    },
};

impl Server {
    /// Restores the ownership comment of a database or role that lost it, if the recorded oid proves that it is the
    /// tenant's, and the name of a login that was renamed. Where another role has the name already, the renamed one loses
    /// its access, and is dropped if that other role is the tenant's login.
    pub async fn restore_ownership(&self, placement: &Placement, recorded: RecordedOids) -> Result<()> {
        let facts = self.restore_marks(placement, recorded).await?;
        // Of a role without access nothing is left to take.
        for stray in facts.strays.iter().filter(|stray| stray.has_access && facts.login.is_some()) {
            self.cut_stray(placement, stray).await?;
            if facts.own_login(recorded).is_none() {
                continue;
            }
            // Without access it may stay: what it owns may be the customer's data.
            self.drop_unused_login(&as_login(placement, stray)).await?;
        }
        Ok(())
    }

    /// Drops the tenant's roles under other names.
    pub async fn drop_strays(&self, placement: &Placement, recorded: RecordedOids) -> Result<()> {
        let facts = self.restore_marks(placement, recorded).await?;
        for stray in facts.strays.iter().filter(|_| facts.login.is_some()) {
            self.cut_stray(placement, stray).await?;
            self.drop_login(&as_login(placement, stray)).await?;
        }
        Ok(())
    }

    /// Restores the comments and the name of the login. Returns the facts as they are then.
    async fn restore_marks(&self, placement: &Placement, recorded: RecordedOids) -> Result<TenantFacts> {
        let _one = self.lock_tenant(placement.tenant).await;
        let facts = self.observe_recorded(placement, recorded).await?;
        let is_lost = |ownership: Ownership| !ownership.is_ours();
        let is_given_back = facts.is_given_back(recorded);
        let mut script = Script::new();
        let database = facts.own_database(recorded).filter(|_| !is_given_back);
        if database.is_some_and(|database| is_lost(database.ownership)) {
            // Only the comment recorded which template it came from, which mattered only while it was being built.
            let comment = ownership::database(placement.tenant, "unknown");
            script.add(
                "COMMENT ON DATABASE {} IS {}",
                &[&Ident::database(placement)?, &Literal::new(&comment)?],
            );
        }
        // Whether a revocation was under way is no longer known: it is proven again.
        let unproven = ownership::unproven(placement.tenant, false);
        if facts.own_login(recorded).is_some_and(|login| is_lost(login.ownership)) {
            script.add("COMMENT ON ROLE {} IS {}", &[&Ident::login(placement)?, &Literal::new(&unproven)?]);
        }
        for other in facts.others() {
            let Some(role) = other.own_role(recorded).filter(|role| is_lost(role.ownership)) else {
                continue;
            };
            let is_kept = other.kind == OtherKind::Previous && recorded.is_previous_kept;
            if is_kept && is_given_back {
                continue;
            }
            let unproven = ownership::unproven(placement.tenant, is_kept);
            script.add("COMMENT ON ROLE {} IS {}", &[&Ident::new(&role.name)?, &Literal::new(&unproven)?]);
        }
        for stray in facts.strays.iter().filter(|stray| is_lost(stray.ownership)) {
            script.add("COMMENT ON ROLE {} IS {}", &[&Ident::new(&stray.name)?, &Literal::new(&unproven)?]);
        }
        let renamed = facts.renamed_login(recorded);
        if let Some(stray) = renamed {
            let names: [Ident; 2] = [Ident::new(&stray.name)?, Ident::login(placement)?];
            script.add("ALTER ROLE {} RENAME TO {}", &[&names[0], &names[1]]);
        }
        self.run("restore the ownership comments", &script).await?;
        if renamed.is_some() { self.observe_recorded(placement, recorded).await } else { Ok(facts) }
    }

    /// Takes all access from a role of the tenant's that is not its login, and ends its sessions. The login's sessions in
    /// the tenant's database end too.
    async fn cut_stray(&self, placement: &Placement, stray: &StrayRole) -> Result<()> {
        self.block_login(&as_login(placement, stray)).await
    }
}

/// The tenant with this role as its login.
fn as_login(placement: &Placement, stray: &StrayRole) -> Placement {
    placement.with_login(&stray.name)
}
