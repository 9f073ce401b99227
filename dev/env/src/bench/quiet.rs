//! What a quiet minute costs with many tenants: what is read of the registry and the servers, and the operator's time.

use std::time::Duration;

use sqlx::{Executor, PgConnection};

use super::print;
use crate::error::{Error, Result};
use crate::installation::{Names, SYSTEM_DATABASE};
use crate::{Environment, Installation, InstallationOptions, PostgresOptions, progress};

/// The operator's namespace, its server, and the label by which it selects the server.
const NAME: &str = "quiet";

/// Active tenants in a namespace that is not watched: there is no object to reconcile, and none vanished. Without triggers,
/// since no row was changed lately.
const ROWS: &str = "
    SET session_replication_role = replica;
    INSERT INTO tenants (id, slug, name, plan, status, activated_at, settings, server, database_name, login_name,
        database_exists, resource_namespace, resource_name, resource_uid, access, password_verifier, module_versions,
        created_at, updated_at)
    SELECT gen_random_uuid(), 'many-' || n, 'Many ' || n, 'starter', 'active', now() - interval '1 day',
        jsonb_build_object('text', repeat('x', 1000)), 'quiet', 'tenant_many_' || n, 'tenant_many_' || n || '_app', true,
        'elsewhere', 'many-' || n, gen_random_uuid(), 'ReadWrite', 'SCRAM-SHA-256$4096:' || repeat('x', 100),
        '[{\"name\": \"core\", \"version\": 3}]', now() - interval '1 day', now() - interval '1 day'
    FROM generate_series(1, 10000) AS n";

/// Their logins.
const ROLES: &str = "
    DO $$ BEGIN
        FOR n IN 1..10000 LOOP
            EXECUTE format('CREATE ROLE %I LOGIN IN ROLE tenantry_rw', 'tenant_many_' || n || '_app');
            EXECUTE format('COMMENT ON ROLE %I IS %L', 'tenant_many_' || n || '_app', 'login ' || gen_random_uuid());
        END LOOP;
    END $$";

/// Measures a minute of an operator of its own, while that of the environment is stopped.
pub async fn quiet_minute(environment: &Environment) -> Result<()> {
    let installed = environment.installation();
    installed.operator().stop().await?;
    let kubectl = environment.control_plane().kubectl();
    // The operator's Role is in it.
    kubectl.run(&["create", "namespace", NAME]).await?;
    let options = InstallationOptions {
        names: Names { namespace: format!("{NAME}-system"), server: NAME.to_owned(), ..Names::default() },
        server_labels: [("tenantry.dev/bench".to_owned(), NAME.to_owned())].into(),
        watch_namespaces: vec![NAME.to_owned()],
        arguments: vec![format!("--server-selector=tenantry.dev/bench={NAME}")],
        // The settings of production.
        environment: vec![("TENANTRY_USAGE_INTERVAL".to_owned(), "60".to_owned())],
        interposed: true,
        crds_installed: true,
        ..InstallationOptions::default()
    };
    let binary = installed.operator_options().binary.clone();
    let installation = Installation::start(binary, &kubectl, PostgresOptions::default(), options).await?;
    let step = progress::step("10,000 rows and roles");
    let started = step.end(prepare(&installation).await)?;
    // The operator reads everything once.
    let step = progress::step("two quiet minutes");
    tokio::time::sleep(Duration::from_secs(75)).await;
    let before = count(&installation).await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = step.end(count(&installation).await)?;
    print(&format!(
        "a quiet minute with 10,000 rows and roles: {:.0} kB read of PostgreSQL, {:.2} % of a core; after the start, {:.1} MB",
        (after.0 - before.0) as f64 / 1000.0,
        (after.1 - before.1) / 60.0 * 100.0,
        (before.0 - started) as f64 / 1e6,
    ));
    Ok(())
}

/// Returns the bytes that were received before the operator reads all this.
async fn prepare(installation: &Installation) -> Result<u64> {
    let mut registry: PgConnection = installation.postgres().connect(SYSTEM_DATABASE).await?;
    registry.execute(ROWS).await?;
    registry.execute("VACUUM ANALYZE tenants").await?;
    installation.postgres().connect("postgres").await?.execute(ROLES).await?;
    let (received, _) = count(installation).await?;
    installation.operator().stop().await?;
    installation.operator().start().await?;
    Ok(received)
}

/// The bytes that the operator received from PostgreSQL so far, and the seconds that it has computed.
async fn count(installation: &Installation) -> Result<(u64, f64)> {
    let interposer = installation.interposer().ok_or_else(|| Error::message("there is no proxy"))?;
    let metrics = installation.operator().metrics().await?;
    let seconds = metrics.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.ok_or_else(|| Error::message("the operator does not report its time"))?;
    Ok((interposer.postgres().totals().received, seconds))
}
