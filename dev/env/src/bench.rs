//! `make bench`: what a tenant takes and costs, on an environment of its own, with PostgreSQL's fsync on.

pub mod meters;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use serde_json::{Value, json};
use sqlx::{Executor, PgConnection};

use crate::error::{Context as _, Error, Result};
use crate::installation::CUSTOMERS;
use crate::kubectl::Kubectl;
use crate::{Environment, Postgres, progress};

/// Longer than any of it should take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How many tenants are made one after the other.
const ONES: usize = 10;
/// How many are made, and deleted, at once.
const MANY: usize = 100;
/// How many the costs are counted over.
const COUNTED: usize = 10;

/// Runs all of it, and prints a line for each figure.
pub async fn run(environment: &Environment) -> Result<()> {
    let client = environment.control_plane().client().await?;
    let kubectl = environment.control_plane().kubectl();
    let bench = Bench { kubectl, client, postgres: environment.postgres() };
    bench.one_by_one().await?;
    bench.what_one_costs().await?;
    bench.many_at_once().await?;
    bench.many_suspended().await?;
    bench.a_changed_plan().await?;
    bench.a_quiet_minute().await?;
    bench.many_away().await?;
    // Last: what it writes keeps the disk busy for a while.
    meters::compare(environment.postgres(), "tenant_one_0").await
}

struct Bench<'a> {
    kubectl: Kubectl,
    client: Client,
    postgres: &'a Postgres,
}

impl Bench<'_> {
    /// From the start of `kubectl apply` until `Ready`, each alone.
    async fn one_by_one(&self) -> Result<()> {
        let mut times = Vec::new();
        for number in 0..ONES {
            let name = format!("one-{number}");
            times.push(self.make(std::slice::from_ref(&name)).await?.all_ready);
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

    /// Statements, sessions and API writes for each of some tenants that are made at once.
    async fn what_one_costs(&self) -> Result<()> {
        let names: Vec<String> = (0..COUNTED).map(|number| format!("counted-{number}")).collect();
        let before = self.count().await?;
        self.log_statements(true).await?;
        self.make(&names).await?;
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
    async fn many_at_once(&self) -> Result<()> {
        let mut session = self.postgres.connect("postgres").await?;
        let mut most = 0;
        let names = many();
        let work = self.make(&names);
        tokio::pin!(work);
        let mut samples = tokio::time::interval(Duration::from_millis(50));
        let made = loop {
            tokio::select! {
                made = &mut work => break made?,
                _ = samples.tick() => most = most.max(sessions(&mut session).await?),
            }
        };
        print(&format!(
            "{MANY} tenants, one kubectl apply: all Ready after {:.1} s, {:.1} s of it until kubectl was done; {} retried; at most {most} sessions",
            made.all_ready.as_secs_f64(),
            made.applied.as_secs_f64(),
            made.retried,
        ));
        Ok(())
    }

    /// One `kubectl apply` that suspends many, and one that lets them in again.
    async fn many_suspended(&self) -> Result<()> {
        let suspended = json!({"state": "Suspended", "stateReason": "bench"});
        let cut = self.apply(&many(), suspended, "Blocked").await?;
        let back = self.apply(&many(), json!({"state": "Active"}), "ReadWrite").await?;
        print(&format!(
            "{MANY} tenants, one kubectl apply: all suspended, proven, after {:.1} s; let in again after {:.1} s",
            cut.all_ready.as_secs_f64(),
            back.all_ready.as_secs_f64(),
        ));
        Ok(())
    }

    /// Another content of a plan that many are on.
    async fn a_changed_plan(&self) -> Result<()> {
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
        let begun = Instant::now();
        self.kubectl.apply(&plan(6).to_string()).await?;
        let step = progress::step("a changed plan");
        let outcome = tokio::time::timeout(PATIENCE, self.until_all(&names, has)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::message("not all tenants have the plan")));
        let took = step.end(outcome.map(|()| begun.elapsed()))?;
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

    /// Waits until usage was counted of every tenant once, as it is soon after it was made.
    async fn all_counted(&self) -> Result<()> {
        let mut session = self.postgres.connect("tenantry_system").await?;
        let step = progress::step("usage, once of each");
        let query = "SELECT count(*) FROM tenants t LEFT JOIN usage u ON u.tenant_id = t.id
                     WHERE t.status = 'active' AND u.counted_at_writes IS NULL";
        let all = async {
            let mut looks = tokio::time::interval(Duration::from_millis(500));
            while sqlx::query_scalar::<_, i64>(query).fetch_one(&mut session).await? > 0 {
                looks.tick().await;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(PATIENCE, all).await;
        step.end(outcome.unwrap_or_else(|_| Err(Error::message("usage was not counted"))))
    }

    /// A minute in which nothing is asked for.
    async fn a_quiet_minute(&self) -> Result<()> {
        self.all_counted().await?;
        let tenants = self.tenants().list(&ListParams::default()).await?.items.len();
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
    async fn many_away(&self) -> Result<()> {
        let begun = Instant::now();
        let manifests = manifests(&many(), &json!({}));
        self.kubectl.run_with(&["delete", "--wait=true", "-f", "-"], &manifests).await?;
        print(&format!(
            "{MANY} tenants, one kubectl delete without grace: gone after {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn tenants(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("tenantry.dev", "v1alpha1", "Tenant");
        let resource = ApiResource::from_gvk_with_plural(&kind, "tenants");
        Api::namespaced_with(self.client.clone(), CUSTOMERS, &resource)
    }

    /// Applies new tenants as a user does, and waits until all are Ready.
    async fn make(&self, names: &[String]) -> Result<Made> {
        self.apply(names, json!({}), "ReadWrite").await
    }

    /// Applies tenants with more spec, and waits until all are Ready with this access.
    async fn apply(&self, names: &[String], more: Value, access: &str) -> Result<Made> {
        let manifests = manifests(names, &more);
        let step = progress::step(format!("{} tenants", names.len()));
        let begun = Instant::now();
        let applying = async {
            self.kubectl.run_with(&["apply", "-f", "-"], &manifests).await?;
            Ok::<_, Error>(begun.elapsed())
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
            Ok((begun.elapsed(), retried))
        };
        let both = async { tokio::try_join!(applying, readying) };
        let outcome = tokio::time::timeout(PATIENCE, both).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::message("not all tenants became Ready")));
        let (applied, (all_ready, retried)) = step.end(outcome)?;
        Ok(Made { applied, all_ready, retried })
    }

    /// Waits until something is so of each of these tenants once.
    async fn until_all(&self, names: &[String], mut so: impl FnMut(&DynamicObject) -> bool) -> Result<()> {
        let mut events = Box::pin(watcher(self.tenants(), watcher::Config::default()));
        let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        while !waiting.is_empty() {
            let event = events.try_next().await;
            let event = event.map_err(|error| Error::message(format!("watching tenants: {error}")))?;
            let (Some(watcher::Event::Apply(tenant)) | Some(watcher::Event::InitApply(tenant))) = event
            else {
                continue;
            };
            let name = tenant.metadata.name.as_deref().unwrap_or_default();
            if waiting.contains(name) && so(&tenant) {
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

    /// Requests to the API server that change something, those to Leases and of the control plane's own parts apart.
    async fn writes(&self) -> Result<u64> {
        let request = http::Request::get("/metrics").body(Vec::new());
        let request = request.map_err(|error| Error::message(format!("asking for metrics: {error}")))?;
        let metrics = self.client.request_text(request).await?;
        let ours = ["tenants", "secrets", "events", "databaseservers", "tenantplans"];
        let requests = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let writes = requests.filter(|line| {
            ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
                && ours.iter().any(|resource| line.contains(&format!("resource=\"{resource}\"")))
        });
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        Ok(writes.filter_map(count).sum::<f64>() as u64)
    }
}

struct Made {
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

/// Whether it is Ready with this access, for the spec that it has now.
fn is_ready(tenant: &DynamicObject, access: &str) -> bool {
    let seen = tenant.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
    let allowed = tenant.data.pointer("/status/access").and_then(Value::as_str);
    if seen != tenant.metadata.generation || allowed != Some(access) {
        return false;
    }
    let conditions = tenant.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

/// Sessions of the operator, those in the registry apart.
async fn sessions(session: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename IN ('tenantry_operator', 'tenantry_migrator') AND datname <> 'tenantry_system'",
    );
    Ok(count.fetch_one(session).await?)
}

fn print(text: &str) {
    println!("{text}");
}
