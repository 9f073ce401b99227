//! The tenants, in each of the states, and what the registry says of them.

use std::{path::PathBuf, time::Instant};

use sqlx::{Executor, PgConnection};
use tenantry_dev::{Environment, EnvironmentOptions};
use tenantry_test_support::Wait;

use super::sql;
use crate::shell::{Shell, blocks};

/// Each is the slug of a tenant, but for the last two: no tenant, and no registry.
pub const STATES: [&str; 9] =
    ["active", "trial", "read-only", "full", "blocked", "gone", "changing", "missing", "stale"];

/// Those that the operator brings about, by the rest of the spec, and the access to wait for.
const DECLARED: [(&str, &str, &str); 5] = [
    ("active", "", "ReadWrite"),
    ("trial", "trial: {endsAt: \"2099-01-01T00:00:00Z\"}", "ReadWrite"),
    ("read-only", "state: Suspended, stateReason: x, suspension: {mode: ReadOnly}", "ReadOnly"),
    ("blocked", "state: Suspended, stateReason: x, suspension: {mode: Blocked}", "Blocked"),
    ("gone", "state: Deprovisioned, stateReason: x", "Blocked"),
];

/// What no declaration leads to at once, as the operator would record it.
const RECORDED: [(&str, &str); 2] = [("full", "ShrinkOnly"), ("changing", "Unknown")];

/// An environment with tenants, and the login of the page.
pub struct Stage {
    environment: Environment,
    pub shell: Shell,
    /// With the login of the page.
    pub registry_url: String,
}

impl Stage {
    pub async fn set(page: &str, name: &str) -> Self {
        let tenantry = PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
        let options = EnvironmentOptions { tenantry, ..EnvironmentOptions::default() };
        let environment = Environment::start(options).await.unwrap();
        let mut shell = Shell::new(environment.control_plane(), &format!("enforcing-{name}"));
        // The first block makes the login, and the variable of the programs.
        let create = blocks(page)[0];
        assert!(create.starts_with("psql \"$DEV_PG_ADMIN_URL\" -c \"CREATE ROLE portal LOGIN PASSWORD '…'"));
        shell.variables.extend([
            ("DEV_PG_ADMIN_URL".to_owned(), environment.postgres().admin_url("postgres")),
            ("TENANTRY_SYSTEM_DATABASE_URL".to_owned(), environment.registry_url().to_owned()),
        ]);
        let printed = shell.run(&format!("{}\necho \"$REGISTRY_URL\"", create.replace('…', "reads"))).await;
        let registry_url = printed.lines().last().unwrap().to_owned();
        let stage = Self { environment, shell, registry_url };
        stage.declare().await;
        stage
    }

    async fn registry(&self) -> PgConnection {
        self.environment.postgres().connect("tenantry_system").await.unwrap()
    }

    async fn declare(&self) {
        let recorded = RECORDED.map(|(slug, _)| (slug, "", "ReadWrite"));
        let all: Vec<_> = DECLARED.into_iter().chain(recorded).collect();
        let tenants = all.iter().map(|(slug, rest, _)| {
            let spec = format!("slug: {slug}, displayName: {slug}, plan: starter, {rest}");
            format!(
                "{{apiVersion: tenantry.dev/v1alpha1, kind: Tenant, \
                 metadata: {{name: {slug}, namespace: customers}}, spec: {{{spec}}}}}"
            )
        });
        let tenants = tenants.collect::<Vec<_>>().join("\n---\n");
        self.shell.run(&format!("kubectl apply -f - <<'END'\n{tenants}\nEND")).await;
        for (slug, _, access) in &all {
            let wait = format!("--for=jsonpath='{{.status.access}}'={access} --timeout=120s ten/{slug}");
            self.shell.run(&format!("kubectl wait -n customers {wait}")).await;
        }
    }

    /// Brings a state about that is recorded only: the operator would correct it after a while.
    pub async fn prepare(&self, state: &str) {
        if let Some((slug, access)) = RECORDED.iter().find(|(slug, _)| *slug == state) {
            self.set_access(slug, access).await;
        }
    }

    /// Changes a row as the operator does; returns when that began.
    pub async fn set_access(&self, slug: &str, access: &str) -> Instant {
        let mut registry = self.registry().await;
        let began = Instant::now();
        let update = format!("UPDATE tenants SET access = '{access}' WHERE slug = '{slug}'");
        registry.execute(sql(update)).await.unwrap();
        began
    }

    pub async fn suspend(&self, slug: &str, mode: &str) {
        self.patch(
            slug,
            &format!(r#"{{"state": "Suspended", "stateReason": "x", "suspension": {{"mode": "{mode}"}}}}"#),
        )
        .await;
    }

    pub async fn resume(&self, slug: &str) {
        self.patch(slug, r#"{"state": "Active", "stateReason": null, "suspension": null}"#).await;
    }

    /// Of the Tenant that is named by its first slug.
    pub async fn rename(&self, slug: &str, present: &str) {
        self.patch(slug, &format!(r#"{{"slug": "{present}", "stateReason": "it has another name"}}"#)).await;
    }

    async fn patch(&self, slug: &str, spec: &str) {
        let patch = format!("kubectl patch ten -n customers {slug} --type merge -p '{{\"spec\": {spec}}}'");
        self.shell.run(&patch).await;
    }

    /// When the registry had this access.
    pub async fn access_is(&self, slug: &str, access: &str) -> Instant {
        let mut registry = self.registry().await;
        let query = format!("SELECT access FROM tenants WHERE slug = '{slug}'");
        Wait::until(format!("the registry has {slug} as {access}"))
            .is_true(async || {
                let found: String =
                    sqlx::query_scalar(sql(query.clone())).fetch_one(&mut registry).await.unwrap();
                found == access
            })
            .await;
        Instant::now()
    }

    /// Ends the application's session, and waits until it is gone.
    pub async fn end_sessions(&self) {
        let mut registry = self.registry().await;
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'portal'";
        registry.execute(end).await.unwrap();
    }

    pub async fn allow_login(&self, allowed: bool) {
        let login = if allowed { "LOGIN" } else { "NOLOGIN" };
        self.registry().await.execute(sql(format!("ALTER ROLE portal {login}"))).await.unwrap();
    }

    /// Whether changes of rows are notified.
    pub async fn notifies(&self, wanted: bool) {
        let switch = if wanted { "ENABLE" } else { "DISABLE" };
        let alter = format!("ALTER TABLE tenants {switch} TRIGGER tenants_follow");
        self.registry().await.execute(sql(alter)).await.unwrap();
    }
}
