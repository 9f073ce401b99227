//! The admins and settings of a tenant without any module, and what a tenant's login can do with them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tenantry::{
    domain::access::AccessLevel,
    modules::ModuleSet,
    postgres::{
        server::Server,
        tenant::{
            credentials::{SecretText, generate_password},
            seed::{AdminSeed, OneTimeSecret, Seed},
        },
    },
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, empty_seed, ready, refusal};

/// An admin whose credential is valid for this many hours.
pub fn admin(email: &str, offer: OneTimeSecret, hours: i64) -> AdminSeed {
    let expires_at = Timestamp::now() + SignedDuration::from_hours(hours);
    AdminSeed { email: email.into(), name: Some("A person".into()), offer, expires_at }
}

fn token() -> (SecretText, OneTimeSecret) {
    let token = generate_password();
    (token.clone(), OneTimeSecret::ResetToken(token))
}

fn seed(admins: Vec<AdminSeed>) -> Seed {
    Seed { admins, ..empty_seed() }
}

/// A tenant with no module at all.
async fn bare(server: &Server, name: &str) -> Tenant {
    let tenant = Tenant::new(name);
    tenant.provision_with(server, &ModuleSet::new(vec![]), 1).await;
    tenant
}

/// Whom the tenant gets for a token.
async fn redeem(session: &mut PgConnection, token: &str) -> Option<(String, String)> {
    let query = "SELECT email, name FROM tenantry.redeem($1)";
    sqlx::query_as(query).bind(token).fetch_optional(session).await.unwrap()
}

#[tokio::test]
async fn token_is_redeemed_once_until_it_expires_or_is_revoked() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = bare(&server, "tenant_tokens").await;
        let placement = &tenant.placement;
        let mut session = tenant.session(postgres).await.unwrap();
        let ((first, ada), (late, bea), (gone, cy)) = (token(), token(), token());
        let typed = generate_password();
        let admins = vec![
            admin("ada@x.example", ada, 1),
            admin("bea@x.example", bea, -1),
            admin("cy@x.example", cy, 1),
            admin("dan@x.example", OneTimeSecret::Password(typed.clone()), 1),
        ];
        let outcome = server.seed(placement, &seed(admins.clone()), None).await.unwrap();
        assert_eq!(outcome.offered.len(), 4);
        server.seed(placement, &seed([&admins[..2], &admins[3..]].concat()), None).await.unwrap();

        for refused in ["", "x", &"x".repeat(3_000_000), late.expose(), gone.expose()] {
            assert_eq!(redeem(&mut session, refused).await, None);
        }
        let none = sqlx::query("SELECT * FROM tenantry.redeem(NULL)").fetch_all(&mut session).await.unwrap();
        assert!(none.is_empty());
        // Of two at once, one gets the admin; after a rollback, none has used the token.
        let mut other = tenant.session(postgres).await.unwrap();
        let mut transaction = session.begin().await.unwrap();
        assert!(redeem(&mut transaction, first.expose()).await.is_some());
        transaction.rollback().await.unwrap();
        let both = tokio::join!(redeem(&mut session, first.expose()), redeem(&mut other, first.expose()));
        let ada = Some(("ada@x.example".to_owned(), "A person".to_owned()));
        assert!(both == (ada.clone(), None) || both == (None, ada), "{both:?}");
        assert_eq!(redeem(&mut session, first.expose()).await, None);

        // Who has used one is offered no other, a lost Secret or not.
        let ((again, ada), (renewed, bea)) = (token(), token());
        let admins = vec![admin("ada@x.example", ada, 1), admin("bea@x.example", bea, 1), admins[3].clone()];
        let renewal = Seed { credentials_only: true, ..seed(admins) };
        let offered = server.seed(placement, &renewal, None).await.unwrap().offered;
        assert_eq!(offered, ["bea@x.example", "dan@x.example"]);
        assert_eq!(redeem(&mut session, again.expose()).await, None);
        assert_eq!(redeem(&mut session, renewed.expose()).await.unwrap().0, "bea@x.example");
        assert_eq!(redeem(&mut session, typed.expose()).await.unwrap().0, "dan@x.example");
        assert_eq!(redeem(&mut session, typed.expose()).await, None);
        let hashes: i64 = sqlx::query_scalar("SELECT count(token_hash) FROM tenantry.admins")
            .fetch_one(&mut session)
            .await
            .unwrap();
        assert_eq!(hashes, 0);
    }
}

#[tokio::test]
async fn settings_of_the_tenant_are_rows_of_a_view() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = bare(&server, "tenant_settings_view").await;
        let mut session = tenant.session(postgres).await.unwrap();
        for settings in [json!({"theme": "dark", "old": 1}), json!({"theme": {"hue": 7}})] {
            let map: BTreeMap<_, _> = serde_json::from_value(settings.clone()).unwrap();
            server.seed(&tenant.placement, &Seed { settings: map, ..empty_seed() }, None).await.unwrap();
            let found: serde_json::Value =
                sqlx::query_scalar("SELECT jsonb_object_agg(key, value) FROM tenantry.settings")
                    .fetch_one(&mut session)
                    .await
                    .unwrap();
            assert_eq!(found, settings);
        }
    }
}

/// What a tenant might try to become an admin, or to have its own function called.
const FORGERIES: &[&str] = &[
    "INSERT INTO tenantry.admins (email) VALUES ('eve@x.example')",
    "UPDATE tenantry.admins SET used_at = NULL",
    "UPDATE tenantry.admins SET token_hash = sha256('x'), expires_at = now() + '1h'",
    "DELETE FROM tenantry.admins",
    "SELECT * FROM tenantry.admins FOR UPDATE",
    "DO $$ BEGIN LOCK TABLE tenantry.admins IN ROW EXCLUSIVE MODE; END $$",
    "INSERT INTO tenantry.settings VALUES ('theme', '1')",
    "UPDATE tenantry.settings SET value = '1'",
    "DELETE FROM tenantry.mirrored_settings",
    "DELETE FROM tenantry.registered_functions",
    "INSERT INTO tenantry.registered_functions VALUES ('admin', 'public', 'mine', NULL, true, 9)",
    "SELECT tenantry.on_admin('public.mine')",
    "SELECT tenantry.on_settings('public.mine')",
    "SELECT tenantry.on_demo('public.mine')",
    "SELECT tenantry.off('public.mine')",
    "SELECT tenantry.register('admin', 'public.mine')",
    "SELECT tenantry.find_function('admin', 'public', 'mine')",
    "SELECT tenantry.seed_admins('[]', false, false)",
    "SELECT tenantry.seed_settings('{}')",
    "CREATE FUNCTION public.mine(admin jsonb) RETURNS void LANGUAGE sql AS ''",
    "CREATE FUNCTION tenantry.mine(admin jsonb) RETURNS void LANGUAGE sql AS ''",
    "CREATE FUNCTION pg_temp.mine(admin jsonb) RETURNS void LANGUAGE sql AS ''",
    "CREATE OR REPLACE FUNCTION tenantry.redeem(token text) RETURNS TABLE (email text, name text) LANGUAGE sql AS 'SELECT 1, 2'",
    "ALTER FUNCTION tenantry.redeem(text) SET search_path = public",
    "CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
    "CREATE OPERATOR public.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = byteaeq)",
];

#[tokio::test]
async fn login_forges_no_admin_and_replaces_no_function() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = bare(&server, "tenant_forger").await;
        let (valid, ada) = token();
        server.seed(&tenant.placement, &seed(vec![admin("ada@x.example", ada, 1)]), None).await.unwrap();
        let mut session = tenant.session(postgres).await.unwrap();
        for forgery in FORGERIES {
            assert_eq!(refusal(&mut session, forgery).await, "42501", "{forgery}");
        }
        // The hash that it reads is no token, and its settings change nothing for the function.
        let hash = "SELECT encode(token_hash, 'hex') FROM tenantry.admins";
        let hash: String = sqlx::query_scalar(hash).fetch_one(&mut session).await.unwrap();
        assert_eq!(redeem(&mut session, &hash).await, None);
        let settings =
            "SET search_path = pg_temp, public; SET tenantry.module = 'mine'; SET quote_all_identifiers = on";
        session.execute(settings).await.unwrap();
        for level in [AccessLevel::ShrinkOnly, AccessLevel::ReadOnly] {
            server.set_access(&tenant.placement, level).await.unwrap();
            session = tenant.session(postgres).await.unwrap();
            assert_eq!(refusal(&mut session, "SELECT * FROM tenantry.redeem('x')").await, "42501");
        }
        server.set_access(&tenant.placement, AccessLevel::ReadWrite).await.unwrap();
        session = tenant.session(postgres).await.unwrap();
        assert!(redeem(&mut session, valid.expose()).await.is_some());
        right_to_redeem_is_repaired(postgres, &server, &tenant).await;
    }
}

/// Taken from the group it is given back, and given to others it is taken back.
async fn right_to_redeem_is_repaired(postgres: &Postgres, server: &Server, tenant: &Tenant) {
    let mut owner = postgres.connect(&tenant.placement.database).await.unwrap();
    let changes = "REVOKE EXECUTE ON FUNCTION tenantry.redeem FROM tenantry_rw;
        GRANT EXECUTE ON FUNCTION tenantry.redeem TO tenantry_ro, PUBLIC";
    owner.execute(changes).await.unwrap();
    let report = server.settle_rights(&tenant.placement).await.unwrap();
    assert_eq!((report.repaired.len(), report.left.len()), (3, 0), "{report:?}");
    let acl = "SELECT proacl::text FROM pg_proc WHERE oid = 'tenantry.redeem'::regproc";
    let acl: String = sqlx::query_scalar(acl).fetch_one(&mut owner).await.unwrap();
    assert_eq!(acl, "{tenantry_owner=X/tenantry_owner,tenantry_rw=X/tenantry_owner}");
}
