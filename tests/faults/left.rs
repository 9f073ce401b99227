//! What there is of many tenants everywhere, without what differs between any two: names, ids, times, secrets.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use sqlx::Connection;
use tenantry::api::{
    LABEL_TENANT, LABEL_TENANT_ID,
    conditions::{DEPROVISIONED, IN_FORCE, READY, RECONCILING, STALLED, find_condition},
    tenant::Tenant,
    tenant_hold::TenantHold,
};

use crate::{
    crash::object,
    world::{World, login},
};

/// What there is of one tenant, by place.
pub type Left = BTreeMap<&'static str, Value>;

/// What to compare, and with which names taken out.
pub struct Whose {
    pub name: String,
    /// It goes away: what its spec declared last may or may not have been put in force before.
    pub leaves: bool,
    /// When its trial ends is counted from its own beginning.
    pub own_trial: bool,
}

const SERVER: &str = "\
SELECT replace(substring(r.rolname FROM '^tenant_(.*)_app$'), '_', '-'), concat_ws(' ',
    r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication, r.rolbypassrls,
    r.rolconnlimit, r.rolpassword IS NOT NULL, r.rolvaliduntil, (SELECT array_agg(s.setconfig) FROM pg_db_role_setting s WHERE s.setrole = r.oid), shobj_description(r.oid, 'pg_authid'),
    (SELECT jsonb_agg(to_jsonb(m) - 'oid' - 'member' ORDER BY m.roleid) FROM pg_auth_members m WHERE m.member = r.oid),
    '|', d.datname, pg_get_userbyid(d.datdba), d.datconnlimit, d.datallowconn,
    regexp_replace(shobj_description(d.oid, 'pg_database'), 'template:.*', ''),
    (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(d.datacl) a))
FROM pg_authid r LEFT JOIN pg_database d ON d.datname = left(r.rolname, -4)
WHERE r.rolname ~ '^tenant_.*_app$'";

const REGISTRY: &str = "\
SELECT slug, concat_ws(' ', status, status_reason, access, deletion_policy, purge_after - deprovisioned_at, purge_held,
    CASE WHEN status <> 'deprovisioning' THEN concat_ws(' ', plan, name, settings, seed_digest) END,
    (SELECT jsonb_agg(h - 'since') FROM jsonb_array_elements(holds) h), database_name, login_name, database_exists,
    password_verifier IS NOT NULL, module_versions, activated_at IS NOT NULL, status = 'suspended' AND suspended_at IS NOT NULL,
    purge_started_at IS NOT NULL, rolling_back, server,
    (SELECT count(*) FROM workflows w WHERE w.tenant_id = t.id AND w.finished_at IS NULL))
FROM tenants t";

const INSIDE: &str = "\
SELECT 'setting ' || key || ' ' || value FROM settings
UNION ALL SELECT 'mirrored ' || key || ' ' || value FROM tenantry.mirrored_settings
UNION ALL SELECT concat_ws(' ', 'offer', u.email, c.kind) FROM user_credentials c JOIN users u ON u.id = c.user_id
    WHERE c.revoked_at IS NULL AND c.used_at IS NULL
UNION ALL SELECT concat_ws(' ', module, version) FROM tenantry.migrations ORDER BY 1";

impl World {
    /// What there is of each of these, in their order.
    pub async fn left_of_many(&self, all: &[Whose]) -> Vec<Left> {
        let by_name = async |database: &str, query: &'static str| -> HashMap<String, String> {
            let mut session = self.superuser(database).await;
            sqlx::query_as(query).fetch_all(&mut session).await.unwrap().into_iter().collect()
        };
        let (server, registry) =
            (by_name("postgres", SERVER).await, by_name("tenantry_system", REGISTRY).await);
        let ids = by_name("tenantry_system", "SELECT slug, id::text FROM tenants").await;
        let named = |of: Vec<Tenant>| of.into_iter().map(|tenant| (tenant.name_any(), tenant)).collect();
        let every = ListParams::default();
        let tenants: HashMap<String, Tenant> = named(self.fleet.tenants.list(&every).await.unwrap().items);
        let holds = self.fleet.holds.list(&every).await.unwrap().items;
        let secrets = self.fleet.secrets.list(&every.clone().labels(LABEL_TENANT_ID)).await.unwrap().items;
        let of_one = |whose: &Whose| {
            let name = whose.name.as_str();
            let id = ids.get(name).cloned().unwrap_or_default();
            let plain = |text: &str| {
                text.replace(&id, "ID").replace(&name.replace('-', "_"), "NAME").replace(name, "NAME")
            };
            let mut left = Left::new();
            left.insert("server", json!(server.get(name).map(|text| plain(text))));
            left.insert("registry", json!(registry.get(name).map(|text| plain(text))));
            left.insert("secrets", secrets_of(&secrets, whose, &plain));
            let shown = tenants.get(name).map(|tenant| shown(tenant, whose).to_string());
            left.insert("object", json!(shown.map(|text| plain(&text))));
            let in_force = holds.iter().filter(|hold| hold.spec.tenant == name);
            left.insert("holds", json!(in_force.map(|hold| plain(&held(hold))).collect::<Vec<_>>()));
            left
        };
        let left: Vec<Left> = all.iter().map(of_one).collect();
        let each = stream::iter(all.iter().zip(left)).map(async |(whose, mut left)| {
            left.insert("inside", if whose.leaves { Value::Null } else { self.inside_of(&whose.name).await });
            left.insert("may log in", json!(self.may_log_in(&whose.name).await));
            left
        });
        each.buffered(8).collect().await
    }

    async fn inside_of(&self, name: &str) -> Value {
        let mut session = self.superuser(&format!("tenant_{}", name.replace('-', "_"))).await;
        json!(sqlx::query_scalar::<_, String>(INSIDE).fetch_all(&mut session).await.unwrap())
    }

    /// Whether the password in the Secret is accepted; none without a Secret.
    async fn may_log_in(&self, name: &str) -> Option<bool> {
        let secret = self.fleet.secrets.get_opt(&format!("{name}-db")).await.unwrap()?;
        let uri = String::from_utf8(secret.data?.remove("uri")?.0).unwrap();
        match login(&uri).await {
            Ok(session) => session.close().await.ok().map(|()| true),
            Err(_) => Some(false),
        }
    }
}

fn secrets_of(all: &[Secret], whose: &Whose, plain: &dyn Fn(&str) -> String) -> Value {
    let of_tenant = all.iter().filter(|secret| secret.labels().get(LABEL_TENANT) == Some(&whose.name));
    let told = of_tenant.map(|secret| {
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        plain(&format!("{} {:?} {:?} {keys:?}", secret.name_any(), secret.type_, secret.labels()))
    });
    json!(told.filter(|told| !whose.leaves || !told.starts_with("NAME-admin")).collect::<Vec<_>>())
}

/// The object: what is said of it, without what its history leaves there.
fn shown(tenant: &Tenant, whose: &Whose) -> Value {
    let mut shown = object(tenant);
    let status = tenant.status.clone().unwrap_or_default();
    if whose.leaves {
        // The parts of a living tenant keep what they said last.
        let of = [READY, DEPROVISIONED, RECONCILING, STALLED];
        shown["conditions"].as_object_mut().unwrap().retain(|type_, _| of.contains(&type_.as_str()));
    }
    let holds: Vec<_> =
        status.holds.iter().map(|hold| json!([hold.name, hold.mode, hold.trigger, hold.reason])).collect();
    let ends =
        if whose.own_trial { json!(status.trial_ends_at.is_some()) } else { json!(status.trial_ends_at) };
    shown["more"] = json!({
        "plan": if whose.leaves { None } else { status.plan }, "holds": holds, "trial": ends,
        "suspended": status.suspended_at.is_some() && !whose.leaves, "leaves": status.deprovisioned_at.is_some(),
        "purge": status.purge_after.is_some(), "going": tenant.meta().deletion_timestamp.is_some(),
    });
    shown
}

fn held(hold: &TenantHold) -> String {
    let status = hold.status.clone().unwrap_or_default();
    let found = find_condition(&status.conditions, IN_FORCE);
    let told = found.map(|found| format!("{} {} {}", found.status, found.reason, found.message));
    format!("{} {told:?}", hold.name_any())
}
