//! Who has a slug, or had it, for the user of a Tenant that wants it.

use jiff::Timestamp;

use super::{identity::TenantId, observed::RegistryStatus, record::TenantRecord, slug::Slug};

/// The last tenant that had a slug, was in use, and is deprovisioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerTenant {
    /// Its id.
    pub id: TenantId,
    /// Its Tenant, as namespace/name.
    pub object: String,
    /// When it was deprovisioned.
    pub closed_at: Timestamp,
    /// Its database, if that is retained.
    pub retained_database: Option<String>,
}

impl FormerTenant {
    /// What a new tenant with its slug has to know.
    pub fn describe(&self, slug: &str) -> String {
        let Self { id, object, closed_at, retained_database } = self;
        let data = match retained_database {
            Some(database) => format!("its database {database} is retained, and is not this tenant's"),
            None => "its data was deleted".to_owned(),
        };
        format!(
            "slug {slug:?} belonged to Tenant {object} (id {id}) until it was deprovisioned at {closed_at:.0}: {data}; this tenant is a new one and starts empty"
        )
    }
}

/// Why a Tenant does not get the slug `wanted`, which another tenant has, or had before, and what to do.
pub fn describe_owner(row: &TenantRecord, wanted: &Slug) -> String {
    let (slug, namespace, name) = (&row.slug, &row.resource_namespace, &row.resource_name);
    if wanted.as_str() != slug {
        let wanted = wanted.as_str();
        return format!(
            "slug {wanted:?} is reserved: it is a former slug of Tenant {namespace}/{name}, which has {slug:?} now: choose another; to apply that Tenant again, write its present slug; no other tenant gets a former slug before that tenant is deprovisioned"
        );
    }
    if row.status != RegistryStatus::Deprovisioning {
        let status = row.status.as_str();
        return format!(
            "slug {slug:?} is taken by Tenant {namespace}/{name} ({status}): choose another, or delete that Tenant first; to move it here with its data, see \"Moving a Tenant\" in docs/offboarding.md"
        );
    }
    let since = row.deprovisioned_at.map(|at| format!(" since {at:.0}")).unwrap_or_default();
    let owner =
        format!("slug {slug:?} is taken by Tenant {namespace}/{name}, which is being deprovisioned{since}");
    if let Some(begun) = row.purge_started_at {
        return format!(
            "{owner}; its purge began at {begun:.0} and cannot be undone: when it ends, this Tenant becomes a new tenant with an empty database"
        );
    }
    let until = match (row.legal_holds(), row.terms()) {
        (Some(holds), _) => format!("by {holds}"),
        (None, Some(terms)) if !terms.held => format!("until {:.0}", terms.purge_after),
        (None, _) => "while its spec.paused holds the purge".to_owned(),
    };
    format!(
        "{owner}; its data is kept {until}: to restore it, apply Tenant {namespace}/{name} again; to move it here with its data, see \"Moving a Tenant\" in docs/offboarding.md; otherwise this Tenant becomes a new tenant with an empty database after that"
    )
}

/// Why a tenant keeps its `present` slug, although its Tenant asks for the slug `wanted`.
pub fn describe_refusal(owner: &TenantRecord, wanted: &Slug, present: &str) -> String {
    let (namespace, name) = (&owner.resource_namespace, &owner.resource_name);
    let why = match owner.slug == wanted.as_str() {
        true => format!("is taken by Tenant {namespace}/{name} ({})", owner.status.as_str()),
        false => format!("is reserved: it is a former slug of Tenant {namespace}/{name}"),
    };
    format!(
        "slug {:?} {why}: this tenant keeps its slug {present:?}, with everything else as its spec says; write another slug, or {present:?} again, with a new stateReason; the slug is changed once that tenant is deprovisioned",
        wanted.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::holds::{Hold, LegalHold, Party};

    fn slug(text: &str) -> Slug {
        Slug::parse(text).unwrap()
    }

    #[test]
    fn former_slug_is_described_with_the_present_one() {
        let row = TenantRecord { slug: "initech".into(), ..TenantRecord::example(RegistryStatus::Active) };
        let former = describe_owner(&row, &slug("acme"));
        let start = "slug \"acme\" is reserved: it is a former slug of Tenant customers/acme, which has \"initech\" now";
        assert!(former.starts_with(start), "{former}");
    }

    #[test]
    fn refused_change_says_which_slug_stays() {
        let owner = TenantRecord::example(RegistryStatus::Active);
        let taken = describe_refusal(&owner, &slug("acme"), "hooli");
        for part in ["slug \"acme\" is taken by Tenant customers/acme (active)", "keeps its slug \"hooli\""] {
            assert!(taken.contains(part), "{taken}");
        }
        let reserved = describe_refusal(&owner, &slug("former"), "hooli");
        assert!(
            reserved.contains("\"former\" is reserved: it is a former slug of Tenant customers/acme"),
            "{reserved}"
        );
    }

    #[test]
    fn owner_is_described_with_dates_and_the_way_back() {
        let active = describe_owner(&TenantRecord::example(RegistryStatus::Active), &slug("acme"));
        assert!(active.starts_with("slug \"acme\" is taken by Tenant customers/acme (active)"), "{active}");
        let mut row = TenantRecord::example(RegistryStatus::Deprovisioning);
        row.purge_after = Some(Timestamp::constant(86_400, 0));
        let tombstone = describe_owner(&row, &slug("acme"));
        for part in [
            "which is being deprovisioned since 1970-01-01T00:00:00Z",
            "its data is kept until 1970-01-02T00:00:00Z",
            "apply Tenant customers/acme again",
            "becomes a new tenant with an empty database",
        ] {
            assert!(tombstone.contains(part), "{tombstone}");
        }
        row.purge_held = Some("Paused".into());
        assert!(describe_owner(&row, &slug("acme")).contains("while its spec.paused holds the purge"));
        row.holds.push(Hold {
            name: "legal".into(),
            mode: None,
            preserve: Some(LegalHold::of("uid".into(), None, false)),
            trigger: None,
            reason: "litigation".into(),
            since: Timestamp::UNIX_EPOCH,
            party: Party::TenantHold,
        });
        assert!(
            describe_owner(&row, &slug("acme"))
                .contains("its data is kept by legal hold \"legal\": to restore")
        );
        row.purge_started_at = Some(Timestamp::constant(86_400, 0));
        assert!(
            describe_owner(&row, &slug("acme"))
                .contains("its purge began at 1970-01-02T00:00:00Z and cannot be undone")
        );
    }

    #[test]
    fn former_tenant_is_described_with_its_data() {
        let row = TenantRecord::example(RegistryStatus::Deprovisioned);
        let former = FormerTenant {
            id: row.id,
            object: "customers/acme".into(),
            closed_at: Timestamp::UNIX_EPOCH,
            retained_database: None,
        };
        assert!(
            former
                .describe("acme")
                .contains("1970-01-01T00:00:00Z: its data was deleted; this tenant is a new")
        );
        let kept = FormerTenant { retained_database: Some("tenant_acme".into()), ..former };
        assert!(
            kept.describe("acme").contains("its database tenant_acme is retained, and is not this tenant's")
        );
    }
}
