//! `make demo`: the example tenants from `kubectl apply` to Ready, their workflow steps, and rows that a tenant reads
//! with its own credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Column, ConnectOptions, Connection, Row};

use crate::background::Background;
use crate::error::{Error, Result};
use crate::installation::CUSTOMERS;
use crate::paths;
use crate::progress::{format_duration, line};
use crate::tenants::{self, condition, is_ready};

const TIMEOUT: Duration = Duration::from_secs(180);

/// The queries that the demo runs with a tenant's own credentials; every column is text.
const QUERIES: [&str; 3] = [
    "SELECT u.email, u.name, string_agg(r.name, ', ' ORDER BY r.name) AS roles\n\
     FROM users u LEFT JOIN user_roles ON user_id = u.id LEFT JOIN roles r ON r.id = role_id\n\
     GROUP BY u.id ORDER BY u.email",
    "SELECT r.name AS role, string_agg(p.name, ', ' ORDER BY p.name) AS permissions\n\
     FROM roles r JOIN role_permissions ON role_id = r.id JOIN permissions p ON p.id = permission_id\n\
     GROUP BY r.id ORDER BY r.name",
    "SELECT key, value::text FROM settings ORDER BY key",
];

/// The steps of one workflow from the registry, which stores milliseconds where a status has seconds.
const STEPS: &str = "SELECT name AS step, state, attempts::text, \
     round(extract(epoch FROM finished_at - started_at) * 1000)::text || ' ms' AS took, message \
     FROM workflow_steps WHERE workflow_id = $1::uuid ORDER BY started_at, finished_at";

/// Provisions the example tenants in an environment that is up, and shows them.
pub async fn show(environment: &Background) -> Result<()> {
    let client = environment.client().await?;
    let tenants = tenants::api(client.clone());

    heading("kubectl apply -f examples/quickstart");
    let examples = paths::checkout().join("examples/quickstart").display().to_string();
    let started = Instant::now();
    print(&environment.kubectl().run(&["apply", "-f", &examples]).await?);
    let names = applied(environment, &examples).await?;
    wait(&tenants, &names, started, &environment.operator().log()).await?;

    heading(&format!("kubectl get ten -n {CUSTOMERS} -o wide"));
    print(&environment.kubectl().run(&["get", "ten", "-n", CUSTOMERS, "-o", "wide"]).await?);

    let Some(name) = names.first() else {
        return Err(Error::message("examples/quickstart contains no tenant"));
    };
    let tenant = tenants.get(name).await?;
    let workflow = tenant.data.pointer("/status/workflow/id").and_then(Value::as_str);
    let workflow =
        workflow.ok_or_else(|| Error::message(format!("{name} is Ready without status.workflow")))?;
    heading(&format!("the steps of {name}'s workflow {workflow}, from the registry"));
    let mut registry = sqlx::PgConnection::connect(environment.registry_url()).await?;
    print(&table(&sqlx::query(STEPS).bind(workflow).fetch_all(&mut registry).await?)?);

    let binding = tenant.data.pointer("/status/binding/name").and_then(Value::as_str);
    let binding = binding.ok_or_else(|| Error::message(format!("{name} is Ready without status.binding")))?;
    let secrets: Api<Secret> = Api::namespaced(client, CUSTOMERS);
    let uri = secret_key(&secrets, binding, "uri").await?;
    let options: PgConnectOptions = uri.parse()?;
    read(name, binding, &options).await?;
    if let Some(other) = names.iter().find(|other| *other != name) {
        let other_tenant = tenants.get(other).await?;
        refuse(&options, other, &other_tenant).await?;
    }
    Ok(())
}

/// Shows how to use the environment and how to remove it.
pub fn show_next_steps(environment: &Background) {
    heading("the environment keeps running; try");
    print(&format!(
        "  . .dev/env                                   # kubectl and its cluster, for this shell\n\
         \x20 kubectl get ten -A\n\
         \x20 kubectl describe ten acme -n {CUSTOMERS}\n\
         \x20 kubectl explain tenant.spec\n\
         \x20 kubectl delete ten initech -n {CUSTOMERS}         # drops its database: the examples have no grace period\n\
         \x20 curl -s $TENANTRY_HTTP/metrics | grep ^tenantry\n\
         \x20 tail {}\n\
         Unlike in production, the mass deletion breaker is off and usage is sampled every 5 s (by default on, and 60 s):\n\
         \x20 TENANTRY_MASS_DELETION_BREAKER=off TENANTRY_USAGE_INTERVAL=5\n\
         Stop and remove it:  make down",
        environment.operator().log().display()
    ));
}

/// The names of the example tenants, in order.
async fn applied(environment: &Background, examples: &str) -> Result<Vec<String>> {
    let listed = environment.kubectl().run(&["get", "-f", examples, "-o", "name"]).await?;
    Ok(listed
        .lines()
        .filter_map(|line| line.strip_prefix("tenant.tenantry.dev/"))
        .map(str::to_owned)
        .collect())
}

/// Waits until all are Ready, and reports the current step of each.
async fn wait(tenants: &Api<DynamicObject>, names: &[String], started: Instant, log: &Path) -> Result<()> {
    let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut reported: BTreeMap<String, (String, Instant)> = BTreeMap::new();
    loop {
        let listed = tenants.list(&ListParams::default()).await?;
        for tenant in &listed {
            let name = tenant.name_any();
            if !waiting.contains(name.as_str()) {
                continue;
            }
            if is_ready(tenant) {
                waiting.remove(name.as_str());
                line(&format!("  {name}: Ready after {}", format_duration(started.elapsed())));
            } else if started.elapsed() > Duration::from_secs(2) {
                // A new step, and every ten seconds the same one.
                let report = report(tenant);
                let old = reported.get(&name);
                if old.is_none_or(|(text, at)| *text != report || at.elapsed() > Duration::from_secs(10)) {
                    line(&format!("  {report} … {}", format_duration(started.elapsed())));
                    reported.insert(name, (report, Instant::now()));
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if started.elapsed() > TIMEOUT {
            let reports: Vec<String> = listed.iter().filter(|tenant| !is_ready(tenant)).map(report).collect();
            return Err(Error::message(format!(
                "not Ready after {}; the operator's log is {}\n{}",
                format_duration(TIMEOUT),
                log.display(),
                reports.join("\n")
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One line: the tenant's current step and why it is not Ready.
fn report(tenant: &DynamicObject) -> String {
    let steps = tenant.data.pointer("/status/workflow/steps").and_then(Value::as_array);
    let step = steps.and_then(|steps| steps.iter().find(|step| step["state"] != "Succeeded"));
    let step = step.and_then(|step| step["name"].as_str()).unwrap_or("waiting for the operator");
    let ready = condition(tenant, "Ready");
    let text = |key: &str| ready.and_then(|ready| ready[key].as_str()).unwrap_or_default();
    format!("{}: {step} {} {}", tenant.name_any(), text("reason"), text("message")).trim_end().to_owned()
}

async fn secret_key(secrets: &Api<Secret>, name: &str, key: &str) -> Result<String> {
    let secret = secrets.get(name).await?;
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let value = value.ok_or_else(|| Error::message(format!("the Secret {name} has no key {key}")))?;
    String::from_utf8(value.0.clone()).map_err(|_| Error::message(format!("{key} in {name} is not text")))
}

async fn read(name: &str, secret: &str, options: &PgConnectOptions) -> Result<()> {
    heading(&format!("with {name}'s own credentials (the key uri of Secret {secret})"));
    let mut session = options.connect().await?;
    let (user, database): (String, String) =
        sqlx::query_as("select current_user::text, current_database()::text").fetch_one(&mut session).await?;
    print(&format!("logged in as {user} to {database}"));
    for query in QUERIES {
        print(&format!("\n{query}"));
        print(&table(&sqlx::query(query).fetch_all(&mut session).await?)?);
    }
    Ok(())
}

/// Shows that another tenant's database refuses the same login.
async fn refuse(options: &PgConnectOptions, other: &str, other_tenant: &DynamicObject) -> Result<()> {
    let database = other_tenant.data.pointer("/status/database").and_then(Value::as_str);
    let database =
        database.ok_or_else(|| Error::message(format!("{other} is Ready without status.database")))?;
    match options.clone().database(database).connect().await {
        Ok(_) => Err(Error::message(format!(
            "a tenant could log in to {database}, the database of another tenant"
        ))),
        Err(sqlx::Error::Database(refusal)) => {
            print(&format!("\nthe same login to {other}'s database: {}", refusal.message()));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A table of rows; all columns are text.
fn table(rows: &[PgRow]) -> Result<String> {
    let Some(first) = rows.first() else { return Ok("(no rows)".to_owned()) };
    let header = first.columns().iter().map(|column| column.name().to_uppercase()).collect();
    let mut lines = vec![header];
    for row in rows {
        let cells = (0..row.len()).map(|index| row.try_get::<Option<String>, _>(index));
        lines.push(cells.map(|cell| cell.map(Option::unwrap_or_default)).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(aligned(&lines))
}

/// Aligns columns as kubectl does.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let render = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(render).collect::<Vec<_>>().join("\n")
}

fn heading(text: &str) {
    print(&format!("\n== {text}"));
}

/// Results are printed to stdout, progress to stderr.
fn print(text: &str) {
    println!("{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["STEP", "TOOK"], ["CreateDatabase", "54 ms"], ["Seed", ""]]
            .map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "STEP             TOOK\nCreateDatabase   54 ms\nSeed");
    }
}
