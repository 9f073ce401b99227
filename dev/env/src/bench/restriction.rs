//! A suspension behind other work: sixteen migrations that run for an hour have every slot of the server, and a hundred
//! databases wait to be dropped.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Executor;

use super::{Bench, TIMEOUT, is_ready, manifests, print};
use crate::error::{Error, Result};
use crate::progress;

/// As many as a server has slots for by default.
const MIGRATIONS: usize = 16;
const DROPS: usize = 100;

/// Lets every migration of a database that creates a table run for an hour.
const SLOW_MIGRATIONS: &str = "
    CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); END';
    CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.slow()";
const END_MIGRATIONS: &str = "
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

impl Bench<'_> {
    /// The time from the start of `kubectl apply` until the status shows that access is revoked.
    pub(super) async fn suspend_behind_other_work(&self) -> Result<()> {
        let plan = |name: &str, modules: &[&str]| {
            json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan", "metadata": {"name": name},
                "spec": {"limits": {}, "modules": modules}})
        };
        self.kubectl.apply(&plan("bench-lean", &["identity"]).to_string()).await?;
        self.kubectl.apply(&plan("bench-wide", &["identity", "projects"]).to_string()).await?;
        let lean = json!({"plan": "bench-lean"});
        let numbered = |name: &str, count| (0..count).map(|n| format!("{name}-{n}")).collect::<Vec<_>>();
        let (slow, dropped) = (numbered("slow", MIGRATIONS), numbered("dropped", DROPS));
        let bystander = vec!["bystander".to_owned()];
        for names in [&slow, &dropped, &bystander] {
            self.apply(names, lean.clone(), "ReadWrite").await?;
        }
        for name in &slow {
            self.in_database(name, SLOW_MIGRATIONS).await?;
        }
        let wide = manifests(&slow, &json!({"plan": "bench-wide"}));
        self.kubectl.run_with(&["apply", "-f", "-"], &wide).await?;
        self.until_migrations_run().await?;
        let deleted = manifests(&dropped, &lean);
        self.kubectl.run_with(&["delete", "--wait=false", "-f", "-"], &deleted).await?;

        let suspended = json!({"plan": "bench-lean", "state": "Suspended", "stateReason": "bench",
            "suspension": {"mode": "Blocked", "trigger": "SecurityIncident"}});
        let suspended = manifests(&bystander, &suspended);
        let started = Instant::now();
        let applying = self.kubectl.run_with(&["apply", "-f", "-"], &suspended);
        let in_force = self.until_all(&bystander, |tenant| is_ready(tenant, "Blocked"));
        let outcome = tokio::time::timeout(TIMEOUT, async { tokio::try_join!(applying, in_force) }).await;
        outcome.unwrap_or_else(|_| Err(Error::message("the suspension is not in force")))?;
        print(&format!(
            "one tenant suspended behind {MIGRATIONS} long migrations and {DROPS} pending drops: in force after {:.1} s",
            started.elapsed().as_secs_f64(),
        ));
        for name in &slow {
            self.in_database(name, "DROP EVENT TRIGGER slow").await?;
        }
        self.postgres.connect("postgres").await?.execute(END_MIGRATIONS).await?;
        Ok(())
    }

    async fn in_database(&self, tenant: &str, sql: &'static str) -> Result<()> {
        let mut session = self.postgres.connect(&format!("tenant_{}", tenant.replace('-', "_"))).await?;
        session.execute(sql).await?;
        Ok(())
    }

    async fn until_migrations_run(&self) -> Result<()> {
        let mut session = self.postgres.connect("postgres").await?;
        let step = progress::step("long migrations");
        let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let all = async {
            let mut polls = tokio::time::interval(Duration::from_millis(100));
            // Each needs a session in its database; the others wait for one, and have a slot.
            while sqlx::query_scalar::<_, i64>(running).fetch_one(&mut session).await? == 0 {
                polls.tick().await;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(TIMEOUT, all).await;
        step.end(outcome.unwrap_or_else(|_| Err(Error::message("no migration runs"))))
    }
}
