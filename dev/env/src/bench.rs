//! `make bench`: how long provisioning takes and what a tenant costs, in a separate environment whose PostgreSQL server
//! has fsync on.

pub mod meters;
mod quiet;
mod restriction;
mod wide_module;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use kube::Client;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use sqlx::{Executor, PgConnection};

use crate::error::{Context as _, Error, Result};
use crate::installation::CUSTOMERS;
use crate::kubectl::Kubectl;
use crate::{Environment, Postgres, progress, tenants};

/// Longer than any measurement should take.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How many tenants are created one after the other.
const ONES: usize = 10;
/// How many are created, and deleted, at once.
const MANY: usize = 100;
/// How many are created to count the cost of one.
const COUNTED: usize = 10;

/// Runs all measurements and prints a line for each.
pub async fn run(environment: &Environment) -> Result<()> {
    let client = environment.control_plane().client().await?;
    let kubectl = environment.control_plane().kubectl();
    let bench = Bench { kubectl, client, postgres: environment.postgres() };
    bench.create_sequentially().await?;
    bench.count_cost().await?;
    wide_module::create_wide(&bench).await?;
    bench.create_many().await?;
    bench.suspend_many().await?;
    bench.change_plan().await?;
    bench.idle_for_a_minute().await?;
    bench.delete_many().await?;
    bench.suspend_behind_other_work().await?;
    quiet::quiet_minute(environment).await?;
    // Last: its writes keep the disk busy for a while.
    meters::compare(environment.postgres(), "tenant_one_0").await
}

struct Bench<'a> {
    kubectl: Kubectl,
    client: Client,
    postgres: &'a Postgres,
}

impl Bench<'_> {
    /// The time from the start of `kubectl apply` until Ready, for one tenant at a time.
    async fn create_sequentially(&self) -> Result<()> {
        let mut times = Vec::new();
        for number in 0..ONES {
            let name = format!("one-{number}");
            times.push(self.create(std::slice::from_ref(&name)).await?.all_ready);
        }
        times.sort_unstable();
        print(&format!(
            "one tenant, kubectl apply to Ready, {ONES} times: median {} ms, {} to {} ms",
            times[ONES / 2].as_millis(),
            times[0].as_millis(),
            times[ONES - 1].as_millis(),
        ));
        Ok(())
    }

    /// Statements, sessions and API writes per tenant, for tenants that are created at once.
    async fn count_cost(&self) -> Result<()> {
        let names: Vec<String> = (0..COUNTED).map(|number| format!("counted-{number}")).collect();
        let before = self.count().await?;
        self.log_statements(true).await?;
        self.create(&names).await?;
        let after = self.count().await?;
        self.log_statements(false).await?;
        let each = |after: u64, before: u64| (after - before) as f64 / COUNTED as f64;
        print(&format!(
            "each of {COUNTED} tenants: {:.1} messages to PostgreSQL with statements, {:.1} sessions, {:.1} API writes by the operator",
            each(after.statements, before.statements),
            each(after.sessions, before.sessions),
            // One is kubectl's own.
            each(after.writes, before.writes) - 1.0,
        ));
        Ok(())
    }

    /// One `kubectl apply` of many.
    async fn create_many(&self) -> Result<()> {
        let mut session = self.postgres.connect("postgres").await?;
        let mut maximum = 0;
        let names = many();
        let work = self.create(&names);
        tokio::pin!(work);
        let mut samples = tokio::time::interval(Duration::from_millis(50));
        let created = loop {
            tokio::select! {
                created = &mut work => break created?,
                _ = samples.tick() => maximum = maximum.max(sessions(&mut session).await?),
            }
        };
        print(&format!(
            "{MANY} tenants, one kubectl apply: all Ready after {:.1} s, {:.1} s of it until kubectl was done; {} retried; at most {maximum} sessions",
            created.all_ready.as_secs_f64(),
            created.applied.as_secs_f64(),
            created.retried,
        ));
        Ok(())
    }

    /// One `kubectl apply` that suspends many, and one that activates them again.
    async fn suspend_many(&self) -> Result<()> {
        let suspended = json!({"state": "Suspended", "stateReason": "bench"});
        let blocked = self.apply(&many(), suspended, "Blocked").await?;
        let active = self.apply(&many(), json!({"state": "Active"}), "ReadWrite").await?;
        print(&format!(
            "{MANY} tenants, one kubectl apply: all suspended, with access verified to be revoked, after {:.1} s; active again after {:.1} s",
            blocked.all_ready.as_secs_f64(),
            active.all_ready.as_secs_f64(),
        ));
        Ok(())
    }

    /// A change of a plan that many tenants have.
    async fn change_plan(&self) -> Result<()> {
        let names = many();
        let plan = |users: u32| {
            json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan", "metadata": {"name": "bench"},
                "spec": {"limits": {"users": users, "storageBytes": "unlimited"}}})
        };
        self.kubectl.apply(&plan(5).to_string()).await?;
        self.apply(&names, json!({"plan": "bench"}), "ReadWrite").await?;
        let has = |tenant: &DynamicObject| tenant.data.pointer("/status/limits/users") == Some(&json!(6));
        let before = self.count().await?;
        self.log_statements(true).await?;
        let started = Instant::now();
        self.kubectl.apply(&plan(6).to_string()).await?;
        let step = progress::step("a changed plan");
        let outcome = tokio::time::timeout(TIMEOUT, self.until_all(&names, has)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::message("not all tenants have the plan")));
        let took = step.end(outcome.map(|()| started.elapsed()))?;
        let after = self.count().await?;
        self.log_statements(false).await?;
        let each = |after: u64, before: u64| (after - before) as f64 / MANY as f64;
        print(&format!(
            "a changed plan with {MANY} tenants: all have it after {:.1} s; each {:.1} messages to PostgreSQL with statements, {:.1} sessions, {:.1} API writes",
            took.as_secs_f64(),
            each(after.statements, before.statements),
            each(after.sessions, before.sessions),
            each(after.writes, before.writes),
        ));
        Ok(())
    }

    /// Waits until the usage of every tenant has been sampled once, which happens soon after its creation.
    async fn all_counted(&self) -> Result<()> {
        let mut session = self.postgres.connect("tenantry_system").await?;
        let step = progress::step("the first usage sample of each tenant");
        let query = "SELECT count(*) FROM tenants t LEFT JOIN usage u ON u.tenant_id = t.id
                     WHERE t.status = 'active' AND u.counted_at_writes IS NULL";
        let all = async {
            let mut polls = tokio::time::interval(Duration::from_millis(500));
            while sqlx::query_scalar::<_, i64>(query).fetch_one(&mut session).await? > 0 {
                polls.tick().await;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(TIMEOUT, all).await;
        step.end(outcome.unwrap_or_else(|_| Err(Error::message("usage was not counted"))))
    }

    /// The work of a minute in which nothing changes.
    async fn idle_for_a_minute(&self) -> Result<()> {
        self.all_counted().await?;
        let tenants = tenants::api(self.client.clone()).list(&ListParams::default()).await?.items.len();
        self.log_statements(true).await?;
        let before = self.count().await?;
        let step = progress::step("a quiet minute");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let after = self.count().await;
        let after = step.end(after)?;
        self.log_statements(false).await?;
        print(&format!(
            "a quiet minute with {tenants} tenants: {} messages to PostgreSQL with statements, {} sessions, {} API writes but for the Lease",
            after.statements - before.statements,
            after.sessions - before.sessions,
            after.writes - before.writes,
        ));
        Ok(())
    }

    /// One `kubectl delete` of many.
    async fn delete_many(&self) -> Result<()> {
        let started = Instant::now();
        let manifests = manifests(&many(), &json!({}));
        self.kubectl.run_with(&["delete", "--wait=true", "-f", "-"], &manifests).await?;
        print(&format!(
            "{MANY} tenants, one kubectl delete without grace period: deleted after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Creates tenants as a user does, and waits until all are Ready.
    async fn create(&self, names: &[String]) -> Result<Applied> {
        self.apply(names, json!({}), "ReadWrite").await
    }

    /// Applies tenants with additional fields in their spec, and waits until all are Ready with this access.
    async fn apply(&self, names: &[String], more: Value, access: &str) -> Result<Applied> {
        let manifests = manifests(names, &more);
        let step = progress::step(format!("{} tenants", names.len()));
        let started = Instant::now();
        let applying = async {
            self.kubectl.run_with(&["apply", "-f", "-"], &manifests).await?;
            Ok::<_, Error>(started.elapsed())
        };
        let readying = async {
            let mut retried = 0;
            let ready = |tenant: &DynamicObject| {
                let ready = is_ready(tenant, access);
                let attempt = tenant.data.pointer("/status/workflow/attempt").and_then(Value::as_i64);
                retried += usize::from(ready && attempt != Some(1));
                ready
            };
            self.until_all(names, ready).await?;
            Ok((started.elapsed(), retried))
        };
        let both = async { tokio::try_join!(applying, readying) };
        let outcome = tokio::time::timeout(TIMEOUT, both).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::message("not all tenants became Ready")));
        let (applied, (all_ready, retried)) = step.end(outcome)?;
        Ok(Applied { applied, all_ready, retried })
    }

    /// Waits until a condition was true of each of these tenants once.
    async fn until_all(
        &self,
        names: &[String],
        mut condition: impl FnMut(&DynamicObject) -> bool,
    ) -> Result<()> {
        let mut events = Box::pin(watcher(tenants::api(self.client.clone()), watcher::Config::default()));
        let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        while !waiting.is_empty() {
            let event = events.try_next().await;
            let event = event.map_err(|error| Error::message(format!("watching tenants: {error}")))?;
            let (Some(watcher::Event::Apply(tenant)) | Some(watcher::Event::InitApply(tenant))) = event
            else {
                continue;
            };
            let name = tenant.metadata.name.as_deref().unwrap_or_default();
            if waiting.contains(name) && condition(&tenant) {
                waiting.remove(name);
            }
        }
        Ok(())
    }

    async fn log_statements(&self, on: bool) -> Result<()> {
        let mut session = self.postgres.connect("postgres").await?;
        let set =
            if on { "ALTER SYSTEM SET log_statement = 'all'" } else { "ALTER SYSTEM RESET log_statement" };
        session.execute(set).await?;
        session.execute("SELECT pg_reload_conf()").await?;
        Ok(())
    }

    async fn count(&self) -> Result<Counts> {
        let log = self.postgres.service().log();
        let log = std::fs::read_to_string(&log).at("reading", &log)?;
        let by_operator = |line: &&str| line.contains("tenantry_") || line.contains("_app@");
        let statements = log
            .lines()
            .filter(by_operator)
            .filter(|line| line.contains("LOG:  statement: ") || line.contains("LOG:  execute "))
            .count() as u64;
        let mut session = self.postgres.connect("postgres").await?;
        let sessions: i64 = sqlx::query_scalar(
            "SELECT sum(sessions)::bigint FROM pg_stat_database WHERE datname IS NOT NULL",
        )
        .fetch_one(&mut session)
        .await?;
        Ok(Counts {
            statements,
            sessions: u64::try_from(sessions).unwrap_or_default(),
            writes: self.writes().await?,
        })
    }

    /// Requests to the API server that change an object of the resources that the operator writes, without Leases.
    async fn writes(&self) -> Result<u64> {
        let request = http::Request::get("/metrics").body(Vec::new());
        let request = request.map_err(|error| Error::message(format!("requesting metrics: {error}")))?;
        let metrics = self.client.request_text(request).await?;
        let resources = ["tenants", "secrets", "events", "databaseservers", "tenantplans"];
        let requests = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let writes = requests.filter(|line| {
            ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
                && resources.iter().any(|resource| line.contains(&format!("resource=\"{resource}\"")))
        });
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        Ok(writes.filter_map(count).sum::<f64>() as u64)
    }
}

struct Applied {
    applied: Duration,
    all_ready: Duration,
    retried: usize,
}

struct Counts {
    statements: u64,
    sessions: u64,
    writes: u64,
}

fn many() -> Vec<String> {
    (0..MANY).map(|number| format!("many-{number}")).collect()
}

fn manifests(names: &[String], more: &Value) -> String {
    let tenants: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut tenant = json!({
                "apiVersion": "tenantry.dev/v1alpha1",
                "kind": "Tenant",
                "metadata": {"name": name, "namespace": CUSTOMERS},
                "spec": {
                    "slug": name,
                    "displayName": name,
                    "plan": "starter",
                    "admins": [{"email": "owner@bench.example", "name": "Owner"}],
                    "offboarding": {"gracePeriodSeconds": 0},
                },
            });
            for (field, value) in more.as_object().into_iter().flatten() {
                tenant["spec"][field] = value.clone();
            }
            tenant
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": tenants}).to_string()
}

/// Whether the tenant is Ready with this access, for its current spec.
fn is_ready(tenant: &DynamicObject, access: &str) -> bool {
    tenant.data.pointer("/status/access").and_then(Value::as_str) == Some(access) && tenants::is_ready(tenant)
}

/// Sessions of the operator, without those in the registry.
async fn sessions(session: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE (usename = 'tenantry_operator' OR usename LIKE 'tenantry_migrator_%') AND datname <> 'tenantry_system'",
    );
    Ok(count.fetch_one(session).await?)
}

fn print(text: &str) {
    println!("{text}");
}
