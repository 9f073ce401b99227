//! Real migration tools against a tenant's database, with the migration login: each brings an application's own `users` and
//! `settings`, an extension, and a meter. The tools come from their registries, into a cache outside the checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use jiff::{Timestamp, ToSpan};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    controller::tenant_module::job::{MigrationAddress, MigrationConnection},
    domain::{access::AccessLevel, rights::RightsReport, usage::entitlements::Entitlements},
    modules::ModuleSet,
    postgres::{
        server::Server,
        tenant::{
            credentials::{generate_password, scram_verifier},
            migration_login::{MigratedDatabase, MigrationLogin},
        },
    },
};
use tenantry_dev::Postgres;
use uuid::Uuid;

use crate::servers::{SERVERS, Tenant, empty_seed, ready};

/// A tool and its application.
struct Tool {
    name: &'static str,
    /// Installs it in a directory that is empty.
    install: fn(&Path) -> Vec<Command>,
    /// Brings a database to the first or the second version of the application.
    migrate: fn(&Path, u32) -> Command,
}

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/tools").join(name)
}

fn command<const N: usize>(program: impl AsRef<Path>, arguments: [&str; N]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments);
    command
}

fn run(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

impl Tool {
    /// The directory in which it is installed, which the first run on a machine does. A change of what is installed needs a
    /// new directory.
    fn installed(&self) -> PathBuf {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| env::home_dir().unwrap().join(".cache"));
        let directory = cache.join("tenantry/tools").join(self.name);
        let complete = directory.join("complete");
        if !complete.exists() {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            (self.install)(&directory).into_iter().map(run).for_each(drop);
            fs::write(complete, "").unwrap();
        }
        directory
    }
}

fn python(directory: &Path) -> Vec<Command> {
    let environment = directory.join("python");
    let mut install = command(environment.join("bin/pip"), ["install", "--quiet", "--requirement"]);
    install.arg(fixtures("requirements.txt"));
    let mut create = command("python3", ["-m", "venv"]);
    create.arg(&environment);
    vec![create, install]
}

const DJANGO: Tool = Tool {
    name: "django-5.2.8",
    install: python,
    migrate: |directory, version| {
        let settings = ["-m", "django", "migrate", "--no-input", "--settings", "shop.settings"];
        let mut command = command(directory.join("python/bin/python"), settings);
        command.current_dir(fixtures("django")).env("PYTHONDONTWRITEBYTECODE", "1");
        if version == 1 {
            command.args(["shop", "0001"]);
        }
        command
    },
};

const ALEMBIC: Tool = Tool {
    name: "alembic-1.17.2",
    install: python,
    migrate: |directory, version| {
        let mut command = command(directory.join("python/bin/alembic"), ["upgrade"]);
        command.current_dir(fixtures("alembic")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(if version == 1 { "0001" } else { "head" });
        command
    },
};

const DRIZZLE: Tool = Tool {
    name: "drizzle-orm-0.45.4",
    install: |directory| {
        for file in ["package.json", "migrate.mjs"] {
            fs::copy(fixtures("drizzle").join(file), directory.join(file)).unwrap();
        }
        let mut install = command("npm", ["install", "--no-audit", "--no-fund", "--no-package-lock"]);
        install.current_dir(directory);
        vec![install]
    },
    migrate: |directory, version| {
        // Its modules are found beside the script.
        fs::copy(fixtures("drizzle/migrate.mjs"), directory.join("migrate.mjs")).unwrap();
        let mut command = command("node", []);
        command
            .arg(directory.join("migrate.mjs"))
            .arg(fixtures("drizzle/migrations"))
            .arg(version.to_string());
        command
    },
};

const FLYWAY: Tool = Tool {
    name: "flyway-13.12.0",
    install: |directory| {
        fs::copy(fixtures("flyway/pom.xml"), directory.join("pom.xml")).unwrap();
        Vec::new()
    },
    migrate: |directory, version| {
        let mut command = command("mvn", ["--batch-mode", "--quiet", "flyway:migrate"]);
        // As a module's `env` would map them.
        command.current_dir(directory).arg(format!("-Dflyway.target={version}"));
        command.arg(format!("-Dflyway.locations=filesystem:{}", fixtures("flyway").display()));
        command.args([
            "-Dflyway.url=jdbc:postgresql://${env.PGHOST}:${env.PGPORT}/${env.PGDATABASE}?sslmode=${env.PGSSLMODE}",
            "-Dflyway.user=${env.PGUSER}",
            "-Dflyway.password=${env.PGPASSWORD}",
        ]);
        command
    },
};

const GOLANG_MIGRATE: Tool = Tool {
    name: "golang-migrate-4.20.1",
    install: |directory| {
        let package = "github.com/golang-migrate/migrate/v4/cmd/migrate@v4.20.1";
        let mut install = command("go", ["install", "-tags", "postgres", package]);
        install.env("GOBIN", directory).env("GOFLAGS", "-mod=mod").current_dir(directory);
        vec![install]
    },
    migrate: |directory, version| {
        let mut command = command("sh", ["-c"]);
        let migrate = directory.join("migrate");
        let path = fixtures("golang-migrate");
        command.arg(format!(
            "exec {} -path {} -database \"$DATABASE_URL\" goto {version}",
            migrate.display(),
            path.display()
        ));
        command
    },
};

async fn provision(server: &Server, tenant: &Tenant) {
    let placement = &tenant.placement;
    server.create_login(placement).await.unwrap();
    // No optional module: the application brings everything.
    let template = server.ensure_template(&ModuleSet::new(Vec::new())).await.unwrap();
    server.create_database(placement, &template).await.unwrap();
    server.seed(placement, &empty_seed(), None).await.unwrap();
    server.publish_database(placement).await.unwrap();
    server.set_access(placement, AccessLevel::ReadWrite).await.unwrap();
    server.set_login(placement, &scram_verifier(&tenant.password), true).await.unwrap();
    let plan = Entitlements { limits: [("users".to_owned(), Some(2))].into(), ..Entitlements::default() };
    server.apply_limits(placement, &plan).await.unwrap();
}

/// One run, with a login of its own.
async fn migrate(tool: &Tool, directory: &Path, version: u32, server: &Server, tenant: &Tenant) {
    let (placement, password) = (&tenant.placement, generate_password());
    let wanted = MigrationLogin {
        run: Uuid::new_v4(),
        schema: "public",
        verifier: &scram_verifier(&password),
        valid_until: Some(Timestamp::now() + 10.minutes()),
    };
    let login = server.open_migration_login(&MigratedDatabase::OfTenant(placement), &wanted).await.unwrap();
    let config = server.config();
    let address =
        MigrationAddress { host: &config.host, port: config.port, sslmode: "disable", certificates: "" };
    let connection =
        MigrationConnection { address, database: &placement.database, login: &login, password: &password };
    let mut command = (tool.migrate)(directory, version);
    command.envs(connection.environment());
    tokio::task::spawn_blocking(|| run(command)).await.unwrap();
    // Whatever the tool made is the owner's.
    assert_eq!(server.close_migration_login(&login).await.unwrap(), [""; 0]);
    assert_eq!(server.settle_rights(placement).await.unwrap(), RightsReport::default(), "{}", tool.name);
}

/// Everything that a run might change.
const CONTENT: &str = "SELECT concat_ws(E'\\n',
    (SELECT string_agg(concat(relname, relowner::regrole, relacl, relnatts), ',' ORDER BY oid) FROM pg_class
     WHERE relnamespace::regnamespace::text !~ '^pg_'),
    (SELECT string_agg(nspname || nspowner::regrole, ',' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_'),
    (SELECT string_agg(extname, ',') FROM pg_extension), (SELECT string_agg(tgname, ',' ORDER BY oid) FROM pg_trigger))";

async fn state(session: &mut PgConnection, sql: &str) -> Option<String> {
    let error = session.execute(AssertSqlSafe(sql.to_owned())).await.err()?;
    Some(error.as_database_error().unwrap_or_else(|| panic!("{error}")).code().unwrap().into_owned())
}

/// What the application sees.
async fn use_application(server: &Server, postgres: &Postgres, tenant: &Tenant) {
    let add =
        |name: &str| format!("INSERT INTO users (email, name) VALUES ('{name}@acme.example', '{name}')");
    let mut application = tenant.session(postgres).await.unwrap();
    for (sql, expected) in [
        (add("Ada"), None),
        (add("Grace"), None),
        ("SELECT 1 / count(*) FROM users WHERE email = 'ADA@acme.example'".into(), None),
        (add("Linus"), Some("TNLIM")),
        ("INSERT INTO settings (key, value) VALUES ('theme', '\"dark\"')".into(), None),
        ("UPDATE settings SET value = '1'".into(), None),
        ("DELETE FROM users WHERE name = 'Ada'".into(), None),
        (add("Linus"), None),
        ("DROP TABLE users".into(), Some("42501")),
        ("TRUNCATE settings".into(), Some("42501")),
    ] {
        assert_eq!(state(&mut application, &sql).await.as_deref(), expected, "{sql}");
    }
    let placement = &tenant.placement;
    server.set_access(placement, AccessLevel::ReadOnly).await.unwrap();
    let mut application = tenant.session(postgres).await.unwrap();
    assert_eq!(state(&mut application, "SELECT * FROM users, settings").await, None);
    for sql in ["DELETE FROM users", "UPDATE settings SET value = '2'"] {
        assert_eq!(state(&mut application, sql).await.as_deref(), Some("42501"), "{sql}");
    }
    server.set_access(placement, AccessLevel::Blocked).await.unwrap();
    assert!(application.execute("SELECT 1").await.is_err());
    server.verify_refused(placement, &tenant.password).await.unwrap();
}

async fn migrates(tool: Tool) {
    let directory = tool.installed();
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new(&format!("tenant_{}", tool.name.replace(['-', '.'], "_")));
        provision(&server, &tenant).await;
        migrate(&tool, &directory, 1, &server, &tenant).await;
        let mut superuser = postgres.connect(&tenant.placement.database).await.unwrap();
        let first: String = sqlx::query_scalar(CONTENT).fetch_one(&mut superuser).await.unwrap();
        migrate(&tool, &directory, 1, &server, &tenant).await;
        let again: String = sqlx::query_scalar(CONTENT).fetch_one(&mut superuser).await.unwrap();
        assert_eq!(again, first);
        migrate(&tool, &directory, 2, &server, &tenant).await;
        let second: String = sqlx::query_scalar(CONTENT).fetch_one(&mut superuser).await.unwrap();
        assert_ne!(second, first);
        use_application(&server, postgres, &tenant).await;
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn django_migrates_a_tenant() {
    migrates(DJANGO).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn alembic_migrates_a_tenant() {
    migrates(ALEMBIC).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn drizzle_migrates_a_tenant() {
    migrates(DRIZZLE).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn flyway_migrates_a_tenant() {
    migrates(FLYWAY).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn golang_migrate_migrates_a_tenant() {
    migrates(GOLANG_MIGRATE).await;
}
