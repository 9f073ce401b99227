//! Databases that the release before made, whose module `core` had what every database now has from the module
//! `tenantry`. The files of `core` that were corrected since are kept in `release_before/`.

use sqlx::{Executor, PgConnection};
use tenantry::{
    domain::{access::AccessLevel, usage::entitlements::Entitlements},
    modules::{BOOTSTRAP, Migration, ModuleSet},
    postgres::{
        server::Server,
        tenant::{
            credentials::{generate_password, scram_verifier},
            seed::{AdminSeed, OneTimeSecret, Seed},
        },
    },
};
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, empty_seed, ready, refusal};

/// The files of the release before that are others now.
const CHANGED: [(&str, &str); 2] = [
    ("0001_settings.sql", include_str!("release_before/core/0001_settings.sql")),
    ("0003_limits.sql", include_str!("release_before/core/0003_limits.sql")),
];

/// The last version of each module of the release before.
const LAST: &[(&str, i32)] = &[("core", 3), ("identity", 4), ("projects", 1)];

/// A superuser's session that acts as `tenantry_owner`, as the migrator does.
async fn owner(postgres: &Postgres, tenant: &Tenant) -> PgConnection {
    let mut session = postgres.connect(&tenant.placement.database).await.unwrap();
    session.execute("SET ROLE tenantry_owner; SET search_path = public, pg_temp").await.unwrap();
    session
}

/// A tenant with the modules of the release before, up to these versions.
async fn provision(postgres: &Postgres, server: &Server, tenant: &Tenant, versions: &[(&str, i32)]) {
    let placement = &tenant.placement;
    server.create_login(placement).await.unwrap();
    let template = server.ensure_template(&ModuleSet::new(vec![])).await.unwrap();
    server.create_database(placement, &template).await.unwrap();
    server.publish_database(placement).await.unwrap();
    let mut session = owner(postgres, tenant).await;
    let schema = "RESET ROLE; DROP SCHEMA tenantry CASCADE; SET ROLE tenantry_dba; CREATE SCHEMA tenantry;
        GRANT USAGE, CREATE ON SCHEMA tenantry TO tenantry_owner;
        GRANT USAGE ON SCHEMA tenantry TO tenantry_rw, tenantry_shrink, tenantry_ro; SET ROLE tenantry_owner";
    session.execute(schema).await.unwrap();
    session.execute(BOOTSTRAP).await.unwrap();
    for (name, last) in versions {
        let modules = ModuleSet::built_in();
        let module = modules.modules().iter().find(|module| module.name == *name).unwrap();
        for file in module.migrations.iter().filter(|file| file.version <= *last) {
            let changed = CHANGED.iter().find(|(changed, _)| *name == "core" && *changed == file.file);
            let sql = changed.map_or(file.sql.clone(), |(_, sql)| (*sql).into());
            let file = Migration { sql, ..file.clone() };
            session.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(file.sql.to_string()))).await.unwrap();
            sqlx::query(
                "INSERT INTO tenantry.migrations (module, version, file, checksum) VALUES ($1, $2, $3, $4)",
            )
            .bind(*name)
            .bind(file.version)
            .bind(file.file.as_ref())
            .bind(file.checksum())
            .execute(&mut session)
            .await
            .unwrap();
        }
    }
    server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
    server.set_login(placement, &scram_verifier(&tenant.password), true).await.unwrap();
}

/// What is in the schemas, and who may do what with it.
async fn structure(session: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "WITH spaces AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('public', 'tenantry'))
         SELECT concat_ws(' ', 'column', s.nspname, c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod),
                a.attnotnull, pg_get_expr(d.adbin, d.adrelid), c.relacl, c.reloptions)
         FROM spaces s JOIN pg_class c ON c.relnamespace = s.oid JOIN pg_attribute a ON a.attrelid = c.oid
         LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE a.attnum > 0 AND c.relkind IN ('r', 'v', 'S', 'i')
         UNION ALL SELECT concat_ws(' ', 'function', pg_get_functiondef(p.oid), p.proacl, pg_get_userbyid(p.proowner))
         FROM spaces s JOIN pg_proc p ON p.pronamespace = s.oid
         UNION ALL SELECT concat_ws(' ', 'constraint', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
         FROM spaces s JOIN pg_constraint c ON c.connamespace = s.oid
         UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT t.tgisinternal
         UNION ALL SELECT pg_get_viewdef('tenantry.entitlements'::regclass)
         UNION ALL SELECT concat_ws(' ', 'comment', d.objoid::regclass, d.objsubid, d.description)
         FROM pg_description d WHERE d.objoid >= 16384 AND d.classoid = 'pg_class'::regclass
         UNION ALL SELECT concat_ws(' ', 'version', m.module, m.version, encode(m.checksum, 'hex')) FROM tenantry.migrations m
         UNION ALL SELECT concat_ws(' ', 'registered', r) FROM tenantry.registered_functions r
         UNION ALL SELECT concat_ws(' ', 'meter', m) FROM tenantry.meters m
         ORDER BY 1",
    )
    .fetch_all(session)
    .await
    .unwrap()
}

async fn texts(session: &mut PgConnection, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(session).await.unwrap()
}

#[tokio::test]
async fn database_of_the_release_before_becomes_like_a_new_one_and_keeps_its_rows() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, fresh) = (Tenant::new("tenant_release_before"), Tenant::new("tenant_release_fresh"));
        fresh.provision(&server, 1).await;
        provision(postgres, &server, &tenant, LAST).await;
        let rows = "
            UPDATE tenantry.plan SET name = 'free';
            INSERT INTO tenantry.limits VALUES ('users', 4), ('projects', NULL);
            INSERT INTO tenantry.mirrored_settings VALUES ('theme', '\"dark\"'), ('dropped', '1'), ('changed', '1');
            INSERT INTO settings VALUES ('theme', '\"light\"'), ('dropped', '1'), ('changed', '2'), ('own', '3');
            INSERT INTO tenantry.seeds (name) VALUES ('demo');
            INSERT INTO activity_log (action) VALUES ('kept');
            INSERT INTO users (email, name) VALUES ('ada@x.example', 'Ada L.'), ('bea@x.example', ''), ('cy@x.example', 'Cy');
            INSERT INTO user_credentials (user_id, kind, secret_hash, issued_by, expires_at, used_at)
            SELECT id, 'reset_token', email, 'tenantry', now() + '1h', CASE WHEN email LIKE 'ada%' THEN now() END
            FROM users WHERE email NOT LIKE 'cy%';
            INSERT INTO projects (name) VALUES ('one')";
        owner(postgres, &tenant).await.execute(rows).await.unwrap();

        // As the operator does after an upgrade, with an open transaction of the tenant.
        let mut session = tenant.session(postgres).await.unwrap();
        let reading = "BEGIN; SELECT * FROM tenantry.entitlements, settings, users, tenantry.migrations";
        session.execute(reading).await.unwrap();
        let versions =
            server.migrate(&tenant.placement, &ModuleSet::built_in()).await.unwrap().into_result().unwrap();
        session.execute("COMMIT").await.unwrap();
        for target in ModuleSet::built_in().targets() {
            assert!(versions.contains(&target), "{versions:?}");
        }
        let mut admin = postgres.connect(&tenant.placement.database).await.unwrap();
        let of_new = structure(&mut postgres.connect(&fresh.placement.database).await.unwrap()).await;
        assert_eq!(structure(&mut admin).await, of_new);
        let again = server.migrate(&tenant.placement, &ModuleSet::built_in()).await.unwrap();
        assert_eq!(again.into_result().unwrap(), versions);

        // Nothing changed for the application, not even what it changed itself.
        let settings = "SELECT key || '=' || value FROM settings ORDER BY key";
        assert_eq!(
            texts(&mut session, settings).await,
            ["changed=2", "dropped=1", "own=3", "theme=\"light\""]
        );
        let admins =
            "SELECT concat_ws(' ', email, name, used_at IS NOT NULL) FROM tenantry.admins ORDER BY email";
        assert_eq!(texts(&mut session, admins).await, ["ada@x.example Ada L. t", "bea@x.example  f"]);
        assert_eq!(texts(&mut session, "SELECT role_id::text FROM user_roles").await.len(), 0);
        let counted = server.read_counters(&tenant.placement).await.unwrap();
        assert_eq!(counted, [("users".to_owned(), 3), ("projects".to_owned(), 1)].into());
        assert_eq!(texts(&mut session, "SELECT name FROM tenantry.limits").await.len(), 2);

        // The next seed goes on where the last one was: Ada has an account, Bea is no longer an admin.
        let admins = ["ada@x.example", "dan@x.example"].map(|email| AdminSeed {
            email: email.into(),
            name: None,
            offer: OneTimeSecret::ResetToken(generate_password()),
            expires_at: jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1),
        });
        let wanted = [("theme".to_owned(), "dark".into())].into();
        let seed = Seed { settings: wanted, admins: admins.into(), demo_data: true, ..empty_seed() };
        let outcome = server.seed(&tenant.placement, &seed, None).await.unwrap();
        assert_eq!(outcome.offered, ["dan@x.example"]);
        assert_eq!(texts(&mut session, settings).await, ["changed=2", "own=3", "theme=\"dark\""]);
        let open = "SELECT email FROM users u JOIN user_credentials c ON c.user_id = u.id AND used_at IS NULL AND revoked_at IS NULL";
        assert_eq!(texts(&mut session, open).await, ["dan@x.example"]);
        assert_eq!(texts(&mut session, "SELECT action FROM activity_log").await, ["kept"]);
        assert_eq!(
            refusal(&mut session, "INSERT INTO users (email) VALUES ('eve@x.example')").await,
            "TNLIM"
        );
    }
}

#[tokio::test]
async fn tenant_without_limits_is_counted_after_the_upgrade() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_release_older");
        let placement = &tenant.placement;
        provision(postgres, &server, &tenant, &[("core", 2), ("identity", 3)]).await;
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('a@x.example'), ('b@x.example')").await.unwrap();

        // As the operator does after an upgrade, with an open session of the tenant.
        let versions =
            server.migrate(placement, &ModuleSet::built_in()).await.unwrap().into_result().unwrap();
        assert_eq!(versions.len(), ModuleSet::built_in().targets().len());
        let limits = [("users".to_owned(), Some(2)), ("projects".to_owned(), None)].into();
        let given = Entitlements { plan: "free".into(), limits, ..Entitlements::default() };
        let used = server.apply_limits(placement, &given).await.unwrap();
        assert_eq!(used, [("users".to_owned(), 2), ("projects".to_owned(), 0)].into());
        let one_more = "INSERT INTO users (email) VALUES ('c@x.example')";
        assert_eq!(refusal(&mut session, one_more).await, "TNLIM");
        session.execute("DELETE FROM users WHERE email = 'a@x.example'").await.unwrap();
        session.execute(one_more).await.unwrap();
        session.execute("INSERT INTO projects (name) VALUES ('one')").await.unwrap();
        let counted = server.read_counters(placement).await.unwrap();
        assert_eq!(counted, [("users".to_owned(), 2), ("projects".to_owned(), 1)].into());
    }
}
