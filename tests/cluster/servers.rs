//! A server's errors are in its conditions before any tenant is changed.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use sqlx::{Executor, PgConnection};
use tenantry::{
    api::{
        conditions::{PRIVILEGED, REACHABLE, READY, STALLED, find_condition},
        database_server::DatabaseServer,
    },
    modules::ModuleSet,
    postgres::{
        install::setup::{SetupOptions, server_setup},
        tenant::credentials::SecretText,
    },
};
use tenantry_dev::{Postgres, PostgresOptions, Stop, Version, certificates::Authority};
use tenantry_test_support::{Fleet, PATIENCE, shared_operator::registry_status};

pub const LOGIN: &str = "servers_operator";
pub const PASSWORD: &str = "servers-password";
const OPERATOR_NAMESPACE: &str = "tenantry-system";

/// A server of one test, and a tenant that waits for it.
pub struct FaultyServer {
    pub fleet: Fleet,
    name: &'static str,
    pub postgres: Postgres,
    servers: Api<DatabaseServer>,
    secrets: Api<Secret>,
    touched: u32,
}

impl FaultyServer {
    pub async fn new(name: &'static str, options: PostgresOptions) -> Self {
        let fleet = Fleet::new(name).await;
        let postgres = Postgres::start(options).await.unwrap();
        let setup = SetupOptions {
            operator: LOGIN.into(),
            password: SecretText::new(PASSWORD),
            system_database: None,
        };
        server_setup(postgres.admin_url("postgres").parse().unwrap(), &setup).await.unwrap();
        let servers = Api::all(fleet.client.clone());
        let secrets = Api::namespaced(fleet.client.clone(), OPERATOR_NAMESPACE);
        let troubled = Self { fleet, name, postgres, servers, secrets, touched: 0 };
        troubled.put_secret(json!({"username": LOGIN, "password": PASSWORD}), 0).await;
        troubled
    }

    pub async fn put_secret(&self, data: Value, touched: u32) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": self.name, "annotations": {"touched": touched.to_string()}}, "stringData": data});
        self.secrets
            .patch(self.name, &PatchParams::apply("tests").force(), &Patch::Apply(secret))
            .await
            .unwrap();
    }

    /// Applies the DatabaseServer, whose Secret has its name.
    pub async fn apply(&self, tls: Value) {
        let server = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "DatabaseServer",
            "metadata": {"name": self.name},
            "spec": {"engine": "PostgreSQL", "host": "127.0.0.1", "port": self.postgres.port(),
                "adminSecretRef": {"name": self.name}, "tls": tls}});
        self.servers
            .patch(self.name, &PatchParams::apply("tests").force(), &Patch::Apply(server))
            .await
            .unwrap();
    }

    /// Changes fields of its spec.
    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.servers.patch(self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until this many tenants' Secrets do not publish the present address; none: until that is unknown.
    async fn pending(&self, count: impl Into<Option<i64>>) {
        let count = count.into();
        let condition = move |server: Option<&DatabaseServer>| {
            let status =
                server.and_then(|server| Some((server.status.as_ref()?, server.metadata.generation)));
            status.is_some_and(|(status, generation)| {
                status.observed_generation == generation && status.pending == count
            })
        };
        self.fleet.until("the number of pending tenants").object(&self.servers, self.name, condition).await;
    }

    /// A change of its Secret makes the operator check the server now.
    async fn look_again(&mut self) {
        self.touched += 1;
        self.put_secret(json!({"username": LOGIN, "password": PASSWORD}), self.touched).await;
    }

    /// Waits for a reason of a condition, and returns the message.
    pub async fn reason(&self, type_: &'static str, reason: &'static str, says: &'static str) -> String {
        let condition = move |server: Option<&DatabaseServer>| {
            server.and_then(|server| server.status.as_ref()).is_some_and(|status| {
                find_condition(&status.conditions, type_)
                    .is_some_and(|found| found.reason == reason && found.message.contains(says))
            })
        };
        let waited = await_condition(self.servers.clone(), self.name, condition);
        let Ok(found) = tokio::time::timeout(PATIENCE, waited).await else {
            let status = self.servers.get(self.name).await.unwrap().status;
            panic!("{type_} is not {reason} with {says:?}: {status:#?}\n{}", self.fleet.operator_log());
        };
        let status = found.unwrap().unwrap().status.unwrap();
        let ready = find_condition(&status.conditions, READY).unwrap();
        let found = find_condition(&status.conditions, type_).unwrap();
        assert_eq!(ready.status == "True", found.status == "True", "{status:?}");
        found.message.clone()
    }

    /// A tenant on the server reports its error, and nothing was created for the tenant.
    async fn untouched_tenant(&self) {
        let slug = self.name;
        self.fleet.apply(slug, json!({"server": self.name})).await;
        self.fleet.reason(slug, READY, "ServerNotReady").await;
        assert_eq!(registry_status(slug).await, None);
        let mut superuser = self.postgres.connect("postgres").await.unwrap();
        let made: Vec<String> = sqlx::query_scalar(
            "SELECT datname::text FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'
             UNION SELECT rolname::text FROM pg_roles WHERE rolname LIKE '%\\_app'",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert_eq!(made, [""; 0]);
    }

    /// The server is Ready: the waiting tenant is provisioned, and both are deleted.
    async fn works(self) {
        self.reason(PRIVILEGED, "RightsComplete", "").await;
        self.fleet.ready(self.name).await;
        self.leave().await;
    }

    pub async fn leave(self) {
        self.fleet.delete(self.name).await;
        self.servers.delete(self.name, &DeleteParams::default()).await.unwrap();
        let gone = |server: Option<&DatabaseServer>| server.is_none();
        self.fleet.until("the server is released").object(&self.servers, self.name, gone).await;
    }
}

#[tokio::test]
async fn certificate_that_does_not_match_server_is_refused() {
    let authority = Authority::new("right").unwrap();
    let options = |certificate| PostgresOptions {
        version: Version::Major(18),
        tls: Some(certificate),
        ..PostgresOptions::default()
    };
    let right = options(authority.server(&["127.0.0.1"]).unwrap());
    let mut server = FaultyServer::new("server-tls", right.clone()).await;
    let ca = |authority: &Authority| json!({"username": LOGIN, "password": PASSWORD, "ca.crt": authority.certificate()});
    // No mode: VerifyFull.
    let verify = json!({"caSecretRef": {"name": "server-tls", "key": "ca.crt"}});

    server.put_secret(ca(&Authority::new("wrong").unwrap()), 1).await;
    server.apply(verify).await;
    server.reason(REACHABLE, "TlsFailed", "UnknownIssuer").await;
    server.untouched_tenant().await;

    server.put_secret(ca(&authority), 2).await;
    server.reason(REACHABLE, "Connected", "PostgreSQL 18").await;

    for (certificate, says) in [
        (authority.expired_server(&["127.0.0.1"]).unwrap(), "expired"),
        (authority.server(&["elsewhere.example"]).unwrap(), "not valid for name"),
    ] {
        server.postgres.stop(Stop::Fast).await.unwrap();
        server.postgres.configure(&options(certificate)).unwrap();
        server.postgres.start_again().await.unwrap();
        server.touched += 10;
        server.put_secret(ca(&authority), server.touched).await;
        server.reason(REACHABLE, "TlsFailed", says).await;
    }
    server.postgres.stop(Stop::Fast).await.unwrap();
    server.postgres.configure(&right).unwrap();
    server.postgres.start_again().await.unwrap();
    server.put_secret(ca(&authority), 100).await;
    server.works().await;
}

#[tokio::test]
async fn every_missing_right_is_named_before_any_change() {
    let mut server = FaultyServer::new("server-rights", PostgresOptions::default()).await;
    let mut admin = server.postgres.connect("postgres").await.unwrap();
    admin
        .execute(
            "ALTER ROLE tenantry_admin NOCREATEDB NOCREATEROLE;
             GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC;
             REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin",
        )
        .await
        .unwrap();
    server.apply(json!({"mode": "Disable"})).await;
    let message = server.reason(PRIVILEGED, "MissingRights", "").await;
    for right in [
        "tenantry_admin lacks CREATEDB",
        "tenantry_admin lacks CREATEROLE",
        "CONNECT to database postgres",
        "CONNECT to database template1",
        "pg_signal_backend",
        "pg_read_all_stats",
        "tenantry server-setup",
    ] {
        assert!(message.contains(right), "{right}: {message}");
    }
    let status = server.servers.get(server.name).await.unwrap().status.unwrap();
    assert!(find_condition(&status.conditions, STALLED).is_some());
    server.untouched_tenant().await;

    // Missing optional rights are reported, with what is different without them, and stop nothing.
    admin.execute("ALTER ROLE tenantry_admin CREATEDB CREATEROLE").await.unwrap();
    server.look_again().await;
    let message = server.reason(PRIVILEGED, "RightsReduced", "pg_signal_backend").await;
    for part in [
        "the operator ends sessions with the login of the tenant",
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        "tenants are built from template0",
        "at every access level but Blocked",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    server.fleet.ready(server.name).await;
    let mut session = server.fleet.login(server.name).await.unwrap();

    // A tenant with an open session is deprovisioned; with all rights it is provisioned again.
    server.fleet.delete(server.name).await;
    assert!(session.execute("SELECT 1").await.is_err());
    admin
        .execute(
            "GRANT pg_signal_backend, pg_read_all_stats TO tenantry_admin;
             REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC",
        )
        .await
        .unwrap();
    let template = format!("tenantry_template_{}", ModuleSet::built_in().digest());
    admin.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {template}"))).await.unwrap();
    server.look_again().await;
    server.fleet.apply(server.name, json!({"server": server.name})).await;
    server.works().await;
}

#[tokio::test]
async fn wrong_password_and_other_installation_have_own_reasons() {
    let mut server = FaultyServer::new("server-taken", PostgresOptions::default()).await;
    server.put_secret(json!({"username": LOGIN, "password": "wrong"}), 1).await;
    server.apply(json!({"mode": "Disable"})).await;
    server.reason(REACHABLE, "AuthenticationFailed", "28P01").await;
    server.untouched_tenant().await;

    let mut admin = server.postgres.connect("postgres").await.unwrap();
    let other = "00000000-0000-0000-0000-00000000beef";
    let mark = format!("COMMENT ON ROLE tenantry_admin IS 'tenantry:installation:{other}'");
    admin.execute(sqlx::AssertSqlSafe(mark)).await.unwrap();
    server.touched = 1;
    server.look_again().await;
    server.reason(PRIVILEGED, "ServerInUse", other).await;

    admin.execute("COMMENT ON ROLE tenantry_admin IS NULL").await.unwrap();
    server.look_again().await;
    server.works().await;
}

#[tokio::test]
async fn rotated_password_is_used_without_restart() {
    let server = FaultyServer::new("server-rotated", PostgresOptions::default()).await;
    // As `kubectl create secret --from-file` reads a file with a line break at its end.
    server
        .put_secret(json!({"username": format!("{LOGIN}\n"), "password": format!("{PASSWORD}\n")}), 1)
        .await;
    server.apply(json!({"mode": "Disable"})).await;
    server.reason(PRIVILEGED, "RightsComplete", "").await;
    server.fleet.apply(server.name, json!({"server": server.name})).await;
    server.fleet.ready(server.name).await;

    let mut admin = server.postgres.connect("postgres").await.unwrap();
    let rotate = async |admin: &mut PgConnection, password: &str| {
        let script = format!(
            "ALTER ROLE {LOGIN} PASSWORD '{password}';
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{LOGIN}'"
        );
        admin.execute(sqlx::AssertSqlSafe(script)).await.unwrap();
    };
    // The old one is refused already.
    rotate(&mut admin, "second").await;
    server.put_secret(json!({"username": LOGIN, "password": PASSWORD}), 2).await;
    let message = server.reason(REACHABLE, "AuthenticationFailed", "28P01").await;
    for part in
        [&format!("127.0.0.1:{}", server.postgres.port()), "username and password", "\"server-rotated\""]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    server.put_secret(json!({"username": LOGIN, "password": "second"}), 2).await;
    server.reason(REACHABLE, "Connected", "").await;
    // It is not refused yet: its sessions are still open.
    server.put_secret(json!({"username": LOGIN, "password": "third"}), 2).await;
    server.reason(REACHABLE, "AuthenticationFailed", "28P01").await;
    rotate(&mut admin, "third").await;
    server.reason(REACHABLE, "Connected", "").await;
    server.put_secret(json!({"username": LOGIN, "password": "third\nline"}), 2).await;
    server.reason(REACHABLE, "ServerMisconfigured", "key \"password\" has a line break").await;
    server.put_secret(json!({"username": LOGIN, "password": "third"}), 3).await;
    server
        .fleet
        .apply(server.name, json!({"server": server.name, "displayName": "After the rotation"}))
        .await;
    server.works().await;
}

#[tokio::test]
async fn changed_address_reaches_every_connection_secret() {
    let authority = Authority::new("address").unwrap();
    let options = PostgresOptions {
        tls: Some(authority.server(&["127.0.0.1", "localhost"]).unwrap()),
        ..PostgresOptions::default()
    };
    let server = FaultyServer::new("server-moved", options).await;
    server.apply(json!({"mode": "Require"})).await;
    let names: Vec<String> = (0..6).map(|number| format!("moved-{number}")).collect();
    let apply = async |name: &str, spec: Value| {
        let mut spec = spec;
        spec["server"] = json!(server.name);
        server.fleet.apply(name, spec).await;
    };
    join_all(names.iter().map(|name| apply(name, json!({})))).await;
    join_all(names.iter().map(|name| server.fleet.ready(name))).await;
    server.pending(0).await;
    let published = async |key: &'static str, value: &str| {
        for name in &names {
            let wait = server.fleet.until(format!("{key} of {name}"));
            wait.is_true(async || server.fleet.secret(&format!("{name}-db"), key).await == value).await;
        }
    };

    // A tenant that cannot be reconciled is counted until it is.
    apply(&names[0], json!({"plan": "no-such-plan"})).await;
    server.fleet.reason(&names[0], READY, "PlanNotFound").await;
    server.change(json!({"host": "localhost"})).await;
    server.pending(1).await;
    apply(&names[0], json!({})).await;
    published("host", "localhost").await;
    server.pending(0).await;
    server.fleet.login(&names[0]).await.unwrap();

    server
        .change(json!({"tls": {"mode": "VerifyFull", "caSecretRef": {"name": server.name, "key": "ca.crt"}}}))
        .await;
    server.reason(REACHABLE, "SecretNotFound", "ca.crt").await;
    server.pending(None).await;
    let ca = json!({"username": LOGIN, "password": PASSWORD, "ca.crt": authority.certificate()});
    server.put_secret(ca, 1).await;
    published("sslmode", "verify-full").await;
    published("certificates", authority.certificate()).await;
    // Two authorities, while the server's certificate is replaced.
    let both = format!("{}{}", Authority::new("next").unwrap().certificate(), authority.certificate());
    server.put_secret(json!({"username": LOGIN, "password": PASSWORD, "ca.crt": both}), 2).await;
    published("certificates", &both).await;
    server.pending(0).await;

    join_all(names.iter().map(|name| server.fleet.delete(name))).await;
    server.fleet.apply(server.name, json!({"server": server.name})).await;
    server.works().await;
}
