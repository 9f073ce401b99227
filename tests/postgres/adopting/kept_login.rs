//! The application's former login after an adoption: it works beside the new one, is restricted with it, and ends.

use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    api::reason::Reason,
    domain::{
        access::AccessLevel,
        drift::{Expected, mismatches},
        placement::Placement,
        takeover::{Former, KeptLogin},
        tenant_facts::RecordedOids,
        usage::entitlements::LoginLimits,
    },
    postgres::tenant::{credentials::scram_verifier, give_back::GivenBack},
};
use tenantry_dev::Postgres;

use super::Shop;
use crate::servers::{SERVERS, access, refusal};

const FULL: AccessLevel = AccessLevel::ReadWrite;

impl<'a> Shop<'a> {
    /// As [`Shop::new`], with a login that should stay usable.
    async fn keeping(postgres: &'a Postgres, database: &str, login: &str) -> Self {
        let mut shop = Self::new(postgres, database).await;
        let now = Timestamp::now();
        let until = now + SignedDuration::from_hours(24);
        shop.kept = Some(KeptLogin { name: login.to_owned(), until, now });
        shop
    }

    fn kept(&self) -> &str {
        &self.kept.as_ref().unwrap().name
    }

    /// The steps up to an active tenant, as the operator takes them once the kept login is recorded.
    async fn adopt(&mut self) -> Former {
        let (found, _) = self.follow_the_blockers().await;
        self.tenant.placement.previous_login = Some(self.kept().to_owned());
        self.take_over(&found).await;
        self.admit(FULL).await;
        Former::of(&found)
    }

    /// Puts a level in force.
    async fn admit(&self, level: AccessLevel) {
        let placement = &self.tenant.placement;
        self.server.set_access(placement, level).await.unwrap();
        if level > AccessLevel::Blocked {
            self.server.admit_kept_login(&placement.of_previous_login().unwrap()).await.unwrap();
            self.server.set_login(placement, &scram_verifier(&self.tenant.password), true).await.unwrap();
        }
    }

    async fn run(&self, database: &str, sql: &str) {
        let mut admin = self.postgres.connect(database).await.unwrap();
        admin.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The attributes, memberships, settings and the comment of the kept login, and what it owns or was granted.
    async fn role(&self) -> Vec<String> {
        let mut admin = self.postgres.connect(&self.tenant.placement.database).await.unwrap();
        admin.execute("SET search_path = ''").await.unwrap();
        sqlx::query_scalar(
            "SELECT format('attributes %s %s', r, shobj_description(r.oid, 'pg_authid')) FROM pg_roles AS r WHERE rolname = $1
             UNION ALL SELECT format('in %s', roleid::regrole) FROM pg_auth_members WHERE member = $1::text::regrole
             UNION ALL SELECT format('setting %s', setconfig) FROM pg_db_role_setting WHERE setrole = $1::text::regrole
             UNION ALL SELECT format('%s %s', deptype, pg_describe_object(classid, objid, objsubid)) FROM pg_shdepend
             WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1::text::regrole
             UNION ALL SELECT format('%s on %s', privilege_type, c.relname)
             FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE a.grantee = $1::text::regrole
             ORDER BY 1",
        )
        .bind(self.kept())
        .fetch_all(&mut admin)
        .await
        .unwrap()
    }

    async fn differences(&self, level: AccessLevel, connections: i32) -> Vec<String> {
        let facts = self.server.observe(&self.tenant.placement).await.unwrap();
        let recorded = RecordedOids::default();
        let expected = Expected { recorded, access: level, connections, is_previous_over: false };
        mismatches(&facts, &expected).iter().map(ToString::to_string).collect()
    }
}

/// What no tenant's login may do.
async fn is_limited(session: &mut PgConnection) {
    for statement in [
        "CREATE TABLE app.t (a int)",
        "CREATE TABLE public.t (a int)",
        "CREATE TEMP TABLE t (a int)",
        "CREATE SCHEMA s",
        "DROP TABLE app.orders",
        "ALTER TABLE public.users ADD x int",
        "TRUNCATE app.orders",
        "SET ROLE tenantry_owner",
        "SET ROLE tenantry_rw",
        "UPDATE tenantry.limits SET maximum = 1000",
    ] {
        // Before 16, a member of a group can become it, which gives it nothing more.
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut *session)
            .await
            .unwrap();
        if statement.ends_with("tenantry_rw") && version < 160_000 {
            continue;
        }
        assert_eq!(refusal(session, statement).await, "42501", "{statement}");
    }
}

#[tokio::test]
async fn former_login_works_beside_the_new_one_is_restricted_with_it_and_ends() {
    for postgres in &*SERVERS {
        let name = "tenant_kept_shop";
        let mut shop = Shop::keeping(postgres, name, "tenant_kept_shop_owner").await;
        shop.run("postgres", "COMMENT ON ROLE tenant_kept_shop_owner IS 'the shop''s own'").await;
        let before = shop.old_session(shop.kept()).await;
        let report = shop.follow_the_blockers().await.1.changes.join("\n");
        for expected in
            ["login tenant_kept_shop_owner works until", "the shop's own", "beside tenant_kept_shop_owner"]
        {
            assert!(report.contains(expected), "{expected}: {report}");
        }
        shop.adopt().await;
        assert!(before.unwrap().execute("SELECT 1").await.is_err(), "the session of before ended");
        let placement = shop.tenant.placement.clone();
        let limits = LoginLimits { connections: 7, temp_file_kilobytes: -1 };
        shop.server.limit_login(&placement, limits).await.unwrap();
        assert_eq!(shop.differences(FULL, 7).await, [""; 0]);

        // With its old password, it does what the new login does, and no more.
        let mut old = shop.old_session(shop.kept()).await.unwrap();
        let mut new = shop.tenant.session(postgres).await.unwrap();
        for session in [&mut old, &mut new] {
            let work = "INSERT INTO app.orders (total) VALUES (4); SELECT * FROM app.totals; SELECT nextval('numbers'), twice(1);
                        DELETE FROM app.orders WHERE total = 4";
            session.execute(work).await.unwrap();
            is_limited(session).await;
        }

        for level in [AccessLevel::ReadOnly, AccessLevel::Blocked] {
            shop.admit(FULL).await;
            let mut sessions =
                [shop.old_session(shop.kept()).await.unwrap(), shop.tenant.session(postgres).await.unwrap()];
            shop.admit(level).await;
            for session in &mut sessions {
                assert!(session.execute("SELECT 1").await.is_err(), "it ended at {level}");
            }
            assert_eq!(access(&shop.server.observe(&placement).await.unwrap()), Some(level));
            assert_eq!(shop.differences(level, 7).await, [""; 0]);
            match shop.old_session(shop.kept()).await {
                Ok(mut session) => {
                    assert_eq!(level, AccessLevel::ReadOnly);
                    session.execute("SELECT * FROM app.orders").await.unwrap();
                    assert_eq!(refusal(&mut session, "DELETE FROM app.orders").await, "42501");
                }
                Err(_) => assert_eq!(level, AccessLevel::Blocked),
            }
        }
        shop.admit(FULL).await;

        // One that lost its comment is recognized by its oid, and stays a kept one.
        let facts = shop.server.observe(&placement).await.unwrap();
        let previous_login = facts.previous.and_then(|previous| Some(previous.role?.oid));
        let recorded = RecordedOids { previous_login, is_previous_kept: true, ..RecordedOids::default() };
        shop.run("postgres", "COMMENT ON ROLE tenant_kept_shop_owner IS NULL").await;
        shop.server.restore_ownership(&placement, recorded).await.unwrap();
        shop.admit(FULL).await;
        assert_eq!(shop.differences(FULL, 7).await, [""; 0]);

        let mut old = shop.old_session(shop.kept()).await.unwrap();
        old.execute("SET application_name = 'nightly report'").await.unwrap();
        let mut new = shop.tenant.session(postgres).await.unwrap();
        let previous = placement.of_previous_login().unwrap();
        let last_use = shop.server.retire_login(&previous).await.unwrap();
        assert!(last_use.sessions == 1 && last_use.describe().contains("nightly report"), "{last_use:?}");
        assert!(old.execute("SELECT 1").await.is_err());
        assert!(shop.old_session(shop.kept()).await.is_err());
        new.execute("INSERT INTO app.orders (total) VALUES (4)").await.unwrap();
        let facts = shop.server.observe(&placement).await.unwrap();
        let role = facts.previous.unwrap().role.unwrap();
        assert!(!role.can_login && !role.ownership.is_ours() && role.groups.is_empty());
        // Its attributes are all that is left of it.
        assert_eq!(shop.role().await.len(), 1, "{:?}", shop.role().await);
        assert_eq!(shop.server.retire_login(&previous).await.unwrap().sessions, 0);
    }
}

/// A login beside the owner, with rights of its own.
const READER: &str = "\
GRANT USAGE ON SCHEMA app TO tenant_kept_user;
GRANT SELECT, INSERT, DELETE, TRUNCATE ON app.orders TO tenant_kept_user;
GRANT SELECT, UPDATE ON public.users TO tenant_kept_user;
GRANT USAGE ON SEQUENCE public.numbers TO tenant_kept_user;
COMMENT ON ROLE tenant_kept_user IS 'the web server';
ALTER ROLE tenant_kept_user CONNECTION LIMIT 9;";

#[tokio::test]
async fn rights_of_its_own_do_not_outlive_a_restriction_and_come_back_with_an_undo() {
    for postgres in &*SERVERS {
        let name = "tenant_kept_undo";
        let mut shop = Shop::keeping(postgres, name, "tenant_kept_user").await;
        shop.run(name, "CREATE ROLE tenant_kept_user LOGIN PASSWORD 'old'").await;
        shop.run(name, READER).await;
        let plan = shop.follow_the_blockers().await.1.changes.join("\n");
        assert!(plan.contains("rights of tenant_kept_user on 4 objects are revoked"), "{plan}");
        let before = shop.role().await;
        let former = shop.adopt().await;
        shop.old_session(shop.kept())
            .await
            .unwrap()
            .execute("INSERT INTO public.users (mail) VALUES ('b@shop.example')")
            .await
            .unwrap();
        shop.admit(AccessLevel::ReadOnly).await;
        let mut session = shop.old_session(shop.kept()).await.unwrap();
        for statement in
            ["DELETE FROM app.orders", "UPDATE public.users SET mail = 'x@y'", "TRUNCATE app.orders"]
        {
            assert_eq!(refusal(&mut session, statement).await, "42501", "{statement}");
        }

        // As a rollback does: access is cut first.
        let placement = shop.tenant.placement.clone();
        shop.server.set_access(&placement, AccessLevel::Blocked).await.unwrap();
        assert_eq!(shop.server.give_back(&placement, &former).await.unwrap(), GivenBack::Returned);
        assert_eq!(shop.server.give_back(&placement, &former).await.unwrap(), GivenBack::Untouched);
        // An operator that was killed before this was recorded begins again, and takes nothing.
        let recorded = RecordedOids {
            database: Some(former.oid),
            previous_login: former.login.as_ref().map(|login| login.oid),
            is_previous_kept: true,
            may_be_given_back: true,
            ..RecordedOids::default()
        };
        shop.server.restore_ownership(&placement, recorded).await.unwrap();
        shop.server.set_access(&placement, AccessLevel::Blocked).await.unwrap();
        assert_eq!(shop.role().await, before);
        let mut session = shop.old_session(shop.kept()).await.unwrap();
        let work = "INSERT INTO app.orders (total) VALUES (4); UPDATE public.users SET mail = 'c@shop.example'; TRUNCATE app.orders;
                    SELECT nextval('numbers')";
        session.execute(work).await.unwrap();
        shop.server.drop_login(&Placement { previous_login: None, ..placement }).await.unwrap();
        // The database can be adopted again.
        let (_, report) = shop.inspect().await;
        assert_eq!(report.blockers, Vec::<String>::new());
    }
}

/// A registry that was restored to a state before the adoption does not know the login: it loses its access, and stays.
#[tokio::test]
async fn login_of_the_application_is_never_dropped() {
    for postgres in &*SERVERS {
        let mut shop = Shop::keeping(postgres, "tenant_kept_forgotten", "tenant_kept_forgotten_owner").await;
        shop.adopt().await;
        let forgotten = Placement { previous_login: None, ..shop.tenant.placement.clone() };
        shop.server.restore_ownership(&forgotten, RecordedOids::default()).await.unwrap();
        assert!(shop.old_session(shop.kept()).await.is_err());
        assert_eq!(shop.role().await.len(), 1, "{:?}", shop.role().await);
        shop.tenant.session(postgres).await.unwrap();

        // Nor by a purge.
        let mut shop = Shop::keeping(postgres, "tenant_kept_purged", "tenant_kept_purged_owner").await;
        shop.adopt().await;
        let placement = shop.tenant.placement.clone();
        shop.server.finish_takeover(&placement).await.unwrap();
        shop.server.set_access(&placement, AccessLevel::Blocked).await.unwrap();
        shop.server.drop_database(&placement).await.unwrap();
        shop.server.drop_strays(&placement, RecordedOids::default()).await.unwrap();
        shop.server.drop_other_logins(&placement).await.unwrap();
        shop.server.drop_login(&placement).await.unwrap();
        let mut admin = postgres.connect("postgres").await.unwrap();
        let left: Vec<(String, bool, Option<String>)> = sqlx::query_as(
            "SELECT rolname::text, rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname ~ '^tenant_kept_purged'",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert_eq!(left, [("tenant_kept_purged_owner".to_owned(), false, None)]);
    }
}

#[tokio::test]
async fn two_tenants_never_keep_one_login() {
    for postgres in &*SERVERS {
        let login = "tenant_kept_shared";
        let mut one = Shop::keeping(postgres, "tenant_kept_one", login).await;
        one.run("postgres", "CREATE ROLE tenant_kept_shared LOGIN PASSWORD 'old'").await;
        let other = Shop::keeping(postgres, "tenant_kept_other", login).await;
        let (found, _) = other.follow_the_blockers().await;
        one.adopt().await;
        let refused = other.server.claim_database(&other.tenant.placement, &found).await.unwrap_err();
        assert!(
            refused.to_string().contains("it should be kept, and has changed since the report"),
            "{refused}"
        );
        let facts = other.server.observe(&other.tenant.placement).await.unwrap();
        assert!(!facts.database.unwrap().ownership.is_ours(), "nothing was claimed");
        let blockers = other.inspect().await.1.blockers.join("\n");
        assert!(blockers.contains("or a tenant's, and is not kept"), "{blockers}");
    }
}

/// What stands against it: how it comes about, a part of its message, and what removes it, if its statement does not.
const BLOCKERS: &[(&str, &str, &str)] = &[
    ("ALTER ROLE {login} SUPERUSER", "has SUPERUSER, which no tenant's login has", ""),
    (
        "ALTER ROLE {login} CREATEDB CREATEROLE REPLICATION BYPASSRLS",
        "has CREATEDB CREATEROLE REPLICATION BYPASSRLS",
        "",
    ),
    ("ALTER ROLE {login} NOLOGIN", "has NOLOGIN", ""),
    ("ALTER ROLE {login} NOINHERIT", "has NOINHERIT", ""),
    ("ALTER ROLE {login} VALID UNTIL '2090-01-01'", "has an end of its own, 2090-01-01", ""),
    (
        "ALTER ROLE {login} SET search_path = app",
        "has settings of its own, which no tenant's login has (search_path)",
        "",
    ),
    ("ALTER ROLE {login} IN DATABASE {database} SET work_mem = '1MB'", "(work_mem)", ""),
    ("GRANT pg_monitor TO {login}", "is a member of pg_monitor", ""),
    ("GRANT {login} TO adopt_reader", "adopt_reader is a member of role {login}", ""),
    ("GRANT CONNECT ON DATABASE postgres TO {login}", "has rights on database postgres", ""),
    ("CREATE DATABASE {database}_2 OWNER {login}", "has database {database}_2", "DROP DATABASE {database}_2"),
    (
        "CREATE TABLE {login} (a int); ALTER TABLE {login} OWNER TO {login}",
        "has objects in database postgres",
        "DROP TABLE {login}",
    ),
    (
        "CREATE TABLE {login} (a int); GRANT SELECT ON {login} TO {login}",
        "has rights on objects in database postgres",
        "DROP TABLE {login}",
    ),
    (
        "COMMENT ON ROLE {login} IS 'tenantry:tenant:x'",
        "or a tenant's, and is not kept",
        "COMMENT ON ROLE {login} IS NULL",
    ),
];

#[tokio::test]
async fn what_stands_against_keeping_a_login_is_named_with_what_removes_it() {
    for postgres in &*SERVERS {
        let (database, login) = ("tenant_kept_refused", "tenant_kept_refused_owner");
        let mut shop = Shop::keeping(postgres, database, login).await;
        shop.follow_the_blockers().await;
        let fill = |text: &str| text.replace("{login}", login).replace("{database}", database);
        for (cause, message, remedy) in BLOCKERS {
            shop.run("postgres", &fill(cause)).await;
            let (_, report) = shop.inspect().await;
            let named = report.blockers.iter().any(|line| line.contains(&fill(message)));
            assert!(named, "{cause}: {:?}", report.blockers);
            if remedy.is_empty() {
                shop.follow_the_blockers().await;
            } else {
                shop.run("postgres", &fill(remedy)).await;
                assert_eq!(shop.inspect().await.1.blockers, Vec::<String>::new(), "{remedy}");
            }
        }
        let digest = shop.inspect().await.1.digest;
        let kept = shop.kept.clone().unwrap();
        let named = |name: &str| Some(KeptLogin { name: name.to_owned(), ..kept.clone() });
        for (other, message) in [
            (named("tenant_kept_absent"), "which does not exist"),
            (named("tenantry_admin"), "Tenantry's own"),
            (named("postgres"), "SUPERUSER"),
            (named("tenant_kept_refused_b"), "now or by a rotation"),
            (Some(KeptLogin { until: kept.now, ..kept.clone() }), "is over"),
            (
                Some(KeptLogin { until: kept.now + SignedDuration::from_hours(2161), ..kept.clone() }),
                "more than 90 days away",
            ),
        ] {
            shop.kept = other;
            let (_, report) = shop.inspect().await;
            assert!(
                report.blockers.iter().any(|line| line.contains(message)),
                "{message}: {:?}",
                report.blockers
            );
            assert_ne!(report.digest, digest, "another login or another date is another report");
        }
        shop.kept = Some(kept);
        let mut admin = postgres.connect("postgres").await.unwrap();
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if version >= 160_000 {
            // As the owner, a role needs SET; to be restricted, it needs ADMIN OPTION.
            shop.run("postgres", &fill("REVOKE {login} FROM tenantry_admin; GRANT {login} TO tenantry_admin WITH INHERIT TRUE, SET TRUE")).await;
            let blockers = shop.inspect().await.1.blockers.join("\n");
            assert!(blockers.contains("could not restrict it"), "{blockers}");
            shop.follow_the_blockers().await;
            shop.adopt().await;
            // A tidy administrator revokes it again: that is found, and a suspension still takes the rights.
            let mut old = shop.old_session(login).await.unwrap();
            shop.run("postgres", &fill("REVOKE ADMIN OPTION FOR {login} FROM tenantry_admin")).await;
            let found = shop.differences(FULL, -1).await.join("\n");
            let (_, remedy) = found.rsplit_once(": ").unwrap();
            assert!(found.contains("may not change role") && found.lines().count() == 1, "{found}");
            let placement = &shop.tenant.placement;
            let refused = shop.server.set_access(placement, AccessLevel::Blocked).await.unwrap_err();
            assert_eq!(refused.reason(), Reason::MissingRight, "{refused}");
            assert_eq!(refusal(&mut old, "SELECT * FROM app.orders").await, "42501");
            shop.run("postgres", remedy).await;
            shop.server.set_access(placement, AccessLevel::Blocked).await.unwrap();
            assert_eq!(shop.differences(AccessLevel::Blocked, -1).await, [""; 0]);
            assert!(shop.old_session(login).await.is_err());
        }
    }
}
