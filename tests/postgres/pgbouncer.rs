//! The files of `docs/pgbouncer.md`, as they are printed but for addresses and paths, with the real PgBouncer: a tenant connects
//! through it, is suspended and reinstated.

use std::{fs, path::PathBuf, time::Duration};

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, raw_sql};
use tenantry::{
    controller::tenant::secrets::{Address, entries},
    domain::access::AccessLevel,
    postgres::tenant::{
        credentials::{generate_password, scram_verifier},
        migration_login::{MigratedDatabase, MigrationLogin},
    },
};
use tenantry_dev::{
    Postgres, PostgresOptions, Version,
    certificates::Authority,
    paths::{self, RunDirectory},
    ports,
    process::{End, Launch, Lifetime, User},
    service::Service,
    tools,
};
use tenantry_test_support::Wait;
use uuid::Uuid;

use crate::servers::{OPERATOR, Tenant, ready, set_up, start};

/// The block of a language on the page that has this line.
fn block(language: &str, line: &str) -> String {
    let page = fs::read_to_string(paths::checkout().join("docs/pgbouncer.md")).unwrap();
    let mut blocks = page.split("\n```").filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    blocks.find(|block| block.lines().any(|found| found == line)).unwrap().to_owned()
}

/// A PgBouncer in front of a server.
struct Pooler {
    _service: Service,
    port: u16,
    authority: Authority,
    files: RunDirectory,
}

impl Pooler {
    async fn start(pool_mode: &str, postgres: &Postgres, authority: Authority) -> Self {
        let (files, port) = (RunDirectory::new().unwrap(), ports::free().unwrap());
        let path = |name: &str| files.path().join(name);
        let certificate = authority.server(&["127.0.0.1"]).unwrap();
        fs::write(path("tls.crt"), &certificate.certificate).unwrap();
        fs::write(path("tls.key"), &certificate.key).unwrap();
        fs::write(path("ca.crt"), authority.certificate()).unwrap();
        fs::write(path("users"), block("text", "\"pgbouncer\" \"change-me\"")).unwrap();
        let mut settings = block("ini", "[pgbouncer]");
        for (printed, own) in [
            ("host=db.example port=5432", format!("host=127.0.0.1 port={}", postgres.port())),
            (
                "listen_addr = 0.0.0.0\nlisten_port = 6432",
                format!("listen_addr = 127.0.0.1\nlisten_port = {port}"),
            ),
            ("/etc/pgbouncer", files.path().display().to_string()),
            ("pool_mode = session", format!("pool_mode = {pool_mode}")),
        ] {
            assert!(settings.contains(printed), "{printed} is not in {settings}");
            settings = settings.replace(printed, &own);
        }
        fs::write(path("pgbouncer.ini"), settings).unwrap();
        let pgbouncer = tools::find("pgbouncer").await.unwrap().display().to_string();
        let settings = path("pgbouncer.ini").display().to_string();
        // It refuses to run as root: in a user namespace it is another user, with the same files.
        let (program, arguments) = match User::for_database().unwrap() {
            Some(_) => ("unshare", vec!["--user".to_owned(), pgbouncer, settings]),
            None => (pgbouncer.as_str(), vec![settings]),
        };
        let launch = Launch {
            name: format!("PgBouncer on port {port}"),
            program: PathBuf::from(program),
            arguments,
            environment: Vec::new(),
            log: path("pgbouncer.log"),
            user: None,
            end: End::Kill,
        };
        let service = Service::new(launch, Lifetime::WithParent);
        service.start().unwrap();
        service.wait_until(Duration::from_secs(60), async || !ports::is_free(port)).await.unwrap();
        Self { _service: service, port, authority, files }
    }

    /// What is in the connection Secret of a login.
    fn uri(&self, login: &str, password: &str, database: &str, authority: &Authority) -> String {
        let (host, sslmode) = ("127.0.0.1".to_owned(), "verify-full".to_owned());
        let certificates = authority.certificate().to_owned();
        let file = self.files.path().join("client.crt");
        fs::write(&file, &certificates).unwrap();
        let address = Address { host, port: self.port, sslmode, certificates };
        entries(&address, "acme-db", login, password, database)["uri-mounted"]
            .replace("/bindings/acme-db/certificates", &file.display().to_string())
    }

    async fn connect(&self, tenant: &Tenant) -> sqlx::Result<PgConnection> {
        let (login, database) = (&tenant.placement.login, &tenant.placement.database);
        PgConnection::connect(&self.uri(login, tenant.password.expose(), database, &self.authority)).await
    }
}

/// The part of the page that is run on the server.
async fn prepare(postgres: &Postgres) {
    let script = block("sql", "\\connect pooler");
    let (first, second) = script.split_once("\\connect pooler\n").unwrap();
    let mut superuser = postgres.connect("postgres").await.unwrap();
    // CREATE DATABASE is alone in its transaction.
    for statement in first.split_inclusive(";\n") {
        superuser.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }
    let mut superuser = postgres.connect("pooler").await.unwrap();
    superuser.execute(raw_sql(AssertSqlSafe(second.to_owned()))).await.unwrap();
}

/// What PgBouncer says of a wrong password, and of a login that may not log in.
const REFUSED: &str = "SASL authentication failed";

/// The SQLSTATE of an error.
fn code<T>(outcome: sqlx::Result<T>) -> String {
    let error = outcome.err().unwrap();
    error.as_database_error().unwrap_or_else(|| panic!("{error}")).code().unwrap().into_owned()
}

async fn count_users(session: &mut PgConnection) -> sqlx::Result<i64> {
    // With a parameter, it is a prepared statement.
    sqlx::query_scalar("SELECT count(*) FROM users WHERE email <> $1").bind("").fetch_one(session).await
}

async fn serves_and_refuses(pool_mode: &str) {
    let authority = Authority::new("private").unwrap();
    let tls = Some(authority.server(&["127.0.0.1"]).unwrap());
    let options = PostgresOptions { version: Version::Major(18), tls, ..PostgresOptions::default() };
    let postgres = set_up(Postgres::start(options).await.unwrap()).await;
    let server = ready(&postgres).await;
    let tenant = Tenant::new(&format!("tenant_pgbouncer_{pool_mode}"));
    tenant.provision(&server, 1).await;
    prepare(&postgres).await;
    // The operator finds nothing to complain of.
    ready(&postgres).await;
    let pooler = Pooler::start(pool_mode, &postgres, authority).await;
    let placement = &tenant.placement;

    // Clients in turn: with transaction pooling, one session of the server has what both prepared.
    let mut first = pooler.connect(&tenant).await.unwrap();
    let mut second = pooler.connect(&tenant).await.unwrap();
    for _ in 0..3 {
        assert_eq!(count_users(&mut first).await.unwrap(), 0);
        assert_eq!(count_users(&mut second).await.unwrap(), 0);
    }
    let verified =
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1 AND ssl";
    let mut superuser = postgres.connect("postgres").await.unwrap();
    let sessions: i64 =
        sqlx::query_scalar(verified).bind(&placement.login).fetch_one(&mut superuser).await.unwrap();
    let is_session = pool_mode == "session";
    assert_eq!(sessions, if is_session { 2 } else { 1 });

    // What a client sets stays in its session, or reaches another client.
    first.execute("SET lock_timeout = '1s'").await.unwrap();
    let found: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut second).await.unwrap();
    assert_eq!(found, if is_session { "0" } else { "1s" });

    // Another authority, another password, another database, another role and unknown parameters are refused.
    let other = Authority::new("other").unwrap();
    let (login, password) = (placement.login.as_str(), tenant.password.expose());
    let database = placement.database.as_str();
    for (login, password, database, authority, refused) in [
        (login, password, database, &other, "UnknownIssuer"),
        (login, "wrong", database, &pooler.authority, REFUSED),
        (login, password, "pooler", &pooler.authority, "permission denied for database \"pooler\""),
        ("postgres", "wrong", "postgres", &pooler.authority, "no such user"),
    ] {
        let error =
            PgConnection::connect(&pooler.uri(login, password, database, authority)).await.unwrap_err();
        assert!(error.to_string().contains(refused), "{login} in {database}: {error}");
    }
    let uri = pooler.uri(login, password, database, &pooler.authority) + "&options[lock_timeout]=1s";
    let error = PgConnection::connect(&uri).await.unwrap_err().to_string();
    assert!(error.contains("unsupported startup parameter in options: lock_timeout"), "{error}");

    // Suspended: who is connected, who is in a transaction, and who connects.
    second.execute("BEGIN; SELECT 1").await.unwrap();
    server.set_access(placement, AccessLevel::Blocked).await.unwrap();
    assert_eq!(code(count_users(&mut first).await), if is_session { "57P01" } else { "28000" });
    assert_eq!(code(count_users(&mut second).await), "57P01");
    let error = pooler.connect(&tenant).await.unwrap_err();
    assert!(error.to_string().contains(REFUSED), "{error}");
    assert_eq!(code::<()>(Err(error)), "08P01");

    // Reinstated.
    server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
    server.set_login(placement, &scram_verifier(&tenant.password), true).await.unwrap();
    let again = async || {
        let mut session = pooler.connect(&tenant).await?;
        count_users(&mut session).await
    };
    let wait = Wait::until("the tenant connects again");
    assert_eq!(wait.observe(async || again().await.map_err(|error| error.to_string())).await, 0);

    // Narrowed: the server's sessions end, and the next one has the new access.
    let mut client = pooler.connect(&tenant).await.unwrap();
    count_users(&mut client).await.unwrap();
    server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
    if is_session {
        assert_eq!(code(count_users(&mut client).await), "57P01");
        client = pooler.connect(&tenant).await.unwrap();
    }
    assert_eq!(count_users(&mut client).await.unwrap(), 0);
    assert_eq!(code(client.execute("DELETE FROM users").await), "42501");
    server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();

    // A new password is valid at once, and the old one is not.
    let old = Tenant { placement: placement.clone(), password: tenant.password };
    let new = Tenant { placement: placement.clone(), password: generate_password() };
    server.set_login(placement, &scram_verifier(&new.password), true).await.unwrap();
    assert!(pooler.connect(&old).await.is_err());
    let mut client = pooler.connect(&new).await.unwrap();
    count_users(&mut client).await.unwrap();

    // Migrations have the same address.
    let password = generate_password();
    let wanted = MigrationLogin {
        run: Uuid::new_v4(),
        schema: "public",
        verifier: &scram_verifier(&password),
        valid_until: Some(Timestamp::now() + 10.minutes()),
    };
    let login = server.open_migration_login(&MigratedDatabase::OfTenant(placement), &wanted).await.unwrap();
    let uri = pooler.uri(&login, password.expose(), &placement.database, &pooler.authority);
    let mut migration = PgConnection::connect(&uri).await.unwrap();
    let owner: String =
        sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut migration).await.unwrap();
    assert_eq!(owner, "tenantry_owner");
    server.close_migration_login(&login).await.unwrap();
    assert!(PgConnection::connect(&uri).await.is_err());
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn tenant_is_served_and_refused_with_session_pooling() {
    serves_and_refuses("session").await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn tenant_is_served_and_refused_with_transaction_pooling() {
    serves_and_refuses("transaction").await;
}

#[tokio::test]
async fn verifier_is_that_of_a_login_that_may_connect() {
    let postgres = set_up(start(15, Vec::new()).await).await;
    let server = ready(&postgres).await;
    prepare(&postgres).await;
    let tenant = Tenant::new("tenant_pgbouncer_verifier");
    server.create_login(&tenant.placement).await.unwrap();
    let query = block("ini", "[pgbouncer]");
    let query = query.lines().find_map(|line| line.strip_prefix("auth_query = ")).unwrap().to_owned();
    let mut pgbouncer =
        PgConnection::connect(&postgres.url("pgbouncer", "change-me", "pooler")).await.unwrap();
    let mut verifier = async |login: &str| {
        let found = sqlx::query_as(AssertSqlSafe(query.clone())).bind(login).fetch_all(&mut pgbouncer);
        let found: Vec<(String, String)> = found.await.unwrap();
        found
    };
    let login = &tenant.placement.login;
    assert_eq!(verifier(login).await, []);
    let stored = scram_verifier(&tenant.password);
    server.set_login(&tenant.placement, &stored, true).await.unwrap();
    assert_eq!(verifier(login).await, [(login.clone(), stored.clone())]);
    server.set_login(&tenant.placement, &stored, false).await.unwrap();
    for refused in [login.as_str(), "postgres", "pgbouncer", OPERATOR, "absent"] {
        assert_eq!(verifier(refused).await, [], "{refused}");
    }
}
