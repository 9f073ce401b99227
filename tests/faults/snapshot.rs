//! Everything that exists of tenants, without what differs between any two: names, ids, times, secrets.

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
use tenantry_test_support::{World, login};

use crate::crash::object;

/// Everything that exists of one tenant, by source.
pub type Snapshot = BTreeMap<&'static str, Value>;

/// A tenant to compare.
pub struct Subject {
    pub name: String,
    /// It is being deprovisioned: its last spec may or may not have been applied before.
    pub deprovisioned: bool,
    /// The end of its trial depends on its own activation.
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

/// The reason of a tombstone is that with which the deprovisioning began, whatever the spec says since.
const REGISTRY: &str = "\
SELECT slug, concat_ws(' ', status, CASE WHEN status <> 'deprovisioning' THEN status_reason END, access, deletion_policy, purge_after - deprovisioned_at, purge_held,
    CASE WHEN status <> 'deprovisioning' THEN concat_ws(' ', plan, name, settings, split_part(seed_digest, '+', 1)) END,
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

/// The snapshots of these, in their order.
pub async fn snapshots(world: &World, all: &[Subject]) -> Vec<Snapshot> {
    let by_name = async |database: &str, query: &'static str| -> HashMap<String, String> {
        let mut session = world.superuser(database).await;
        sqlx::query_as(query).fetch_all(&mut session).await.unwrap().into_iter().collect()
    };
    let (server, registry) = (by_name("postgres", SERVER).await, by_name("tenantry_system", REGISTRY).await);
    let ids = by_name("tenantry_system", "SELECT slug, id::text FROM tenants").await;
    let named = |of: Vec<Tenant>| of.into_iter().map(|tenant| (tenant.name_any(), tenant)).collect();
    let every = ListParams::default();
    let tenants: HashMap<String, Tenant> = named(world.fleet.tenants.list(&every).await.unwrap().items);
    let holds = world.fleet.holds.list(&every).await.unwrap().items;
    let secrets = world.fleet.secrets.list(&every.clone().labels(LABEL_TENANT_ID)).await.unwrap().items;
    let of_one = |subject: &Subject| {
        let name = subject.name.as_str();
        let id = ids.get(name).cloned().unwrap_or_default();
        let plain = |text: &str| {
            text.replace(&id, "ID").replace(&name.replace('-', "_"), "NAME").replace(name, "NAME")
        };
        let mut snapshot = Snapshot::new();
        snapshot.insert("server", json!(server.get(name).map(|text| plain(text))));
        snapshot.insert("registry", json!(registry.get(name).map(|text| plain(text))));
        snapshot.insert("secrets", secrets_of(&secrets, subject, &plain));
        let shown = tenants.get(name).map(|tenant| shown(tenant, subject).to_string());
        snapshot.insert("object", json!(shown.map(|text| plain(&text))));
        let in_force = holds.iter().filter(|hold| hold.spec.tenant == name);
        snapshot.insert("holds", json!(in_force.map(|hold| plain(&held(hold))).collect::<Vec<_>>()));
        snapshot
    };
    let snapshot: Vec<Snapshot> = all.iter().map(of_one).collect();
    let each = stream::iter(all.iter().zip(snapshot)).map(async |(subject, mut snapshot)| {
        snapshot.insert(
            "inside",
            if subject.deprovisioned { Value::Null } else { inside_of(world, &subject.name).await },
        );
        snapshot.insert("may log in", json!(may_log_in(world, &subject.name).await));
        snapshot
    });
    each.buffered(8).collect().await
}

async fn inside_of(world: &World, name: &str) -> Value {
    let mut session = world.superuser(&format!("tenant_{}", name.replace('-', "_"))).await;
    json!(sqlx::query_scalar::<_, String>(INSIDE).fetch_all(&mut session).await.unwrap())
}

/// Whether the password in the Secret is accepted; none without a Secret.
async fn may_log_in(world: &World, name: &str) -> Option<bool> {
    let secret = world.fleet.secrets.get_opt(&format!("{name}-db")).await.unwrap()?;
    let uri = String::from_utf8(secret.data?.remove("uri")?.0).unwrap();
    match login(&uri).await {
        Ok(session) => session.close().await.ok().map(|()| true),
        Err(_) => Some(false),
    }
}

fn secrets_of(all: &[Secret], subject: &Subject, plain: &dyn Fn(&str) -> String) -> Value {
    let of_tenant = all.iter().filter(|secret| secret.labels().get(LABEL_TENANT) == Some(&subject.name));
    let lines = of_tenant.map(|secret| {
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        plain(&format!("{} {:?} {:?} {keys:?}", secret.name_any(), secret.type_, secret.labels()))
    });
    json!(lines.filter(|line| !subject.deprovisioned || !line.starts_with("NAME-admin")).collect::<Vec<_>>())
}

/// The object's status, without its history.
fn shown(tenant: &Tenant, subject: &Subject) -> Value {
    let mut shown = object(tenant);
    let status = tenant.status.clone().unwrap_or_default();
    if subject.deprovisioned {
        // The conditions of parts keep their last values.
        let of = [READY, DEPROVISIONED, RECONCILING, STALLED];
        shown["conditions"].as_object_mut().unwrap().retain(|type_, _| of.contains(&type_.as_str()));
    }
    let holds: Vec<_> =
        status.holds.iter().map(|hold| json!([hold.name, hold.mode, hold.trigger, hold.reason])).collect();
    let ends =
        if subject.own_trial { json!(status.trial_ends_at.is_some()) } else { json!(status.trial_ends_at) };
    shown["more"] = json!({
        "plan": if subject.deprovisioned { None } else { status.plan }, "holds": holds, "trial": ends,
        "suspended": status.suspended_at.is_some() && !subject.deprovisioned, "deprovisioned": status.deprovisioned_at.is_some(),
        "purge": status.purge_after.is_some(), "going": tenant.meta().deletion_timestamp.is_some(),
    });
    shown
}

fn held(hold: &TenantHold) -> String {
    let status = hold.status.clone().unwrap_or_default();
    let found = find_condition(&status.conditions, IN_FORCE);
    let condition = found.map(|found| format!("{} {} {}", found.status, found.reason, found.message));
    format!("{} {condition:?}", hold.name_any())
}
