//! Ownership comments that were lost are written again.

use crate::{
    domain::{
        placement::Placement,
        tenant_facts::{Ownership, RecordedOids},
    },
    postgres::{
        catalog::ownership,
        error::Result,
        identifier::{Ident, Literal, Script},
        server::Server,
    },
};

impl Server {
    /// Restores the ownership comment of a database or login that lost it, if the recorded oid proves that it is the
    /// tenant's.
    pub async fn restore_ownership(&self, placement: &Placement, recorded: RecordedOids) -> Result<()> {
        let _one = self.lock_tenant(placement.tenant).await;
        let facts = self.observe(placement).await?;
        let is_lost = |ownership: Ownership| !ownership.is_ours();
        let mut script = Script::new();
        if facts.own_database(recorded).is_some_and(|database| is_lost(database.ownership)) {
            // Only the comment recorded which template it came from, which mattered only while it was being built.
            let comment = ownership::database(placement.tenant, "unknown");
            script.add(
                "COMMENT ON DATABASE {} IS {}",
                &[&Ident::database(placement)?, &Literal::new(&comment)?],
            );
        }
        if facts.own_login(recorded).is_some_and(|login| is_lost(login.ownership)) {
            // Whether a revocation was under way is no longer known: it is proven again.
            let comment = ownership::login_with_unproven_revocation(placement.tenant);
            script.add("COMMENT ON ROLE {} IS {}", &[&Ident::login(placement)?, &Literal::new(&comment)?]);
        }
        self.run("restore the ownership comments", &script).await
    }
}
