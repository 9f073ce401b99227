//! `make demo`: the example tenants from `kubectl apply` to Ready, their steps, and rows read as the tenant itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Row};

use crate::background::Background;
use crate::error::{Error, Result};
use crate::installation::CUSTOMERS;
use crate::places;
use crate::progress::{line, words};

const PATIENCE: Duration = Duration::from_secs(180);

/// What the demo reads with a tenant's own credentials.
const QUERIES: [(&str, &str); 3] = [
    ("the users", "select email::text from users order by email"),
    ("the roles", "select name::text from roles order by name"),
    ("the settings", "select key::text, value::text from settings order by key"),
];

/// Shows the main job on an environment that is up.
pub async fn show(environment: &Background) -> Result<()> {
    let client = environment.client().await?;
    let tenants = tenants(&client);

    heading("kubectl apply -f examples/quickstart");
    let examples = places::checkout().join("examples/quickstart").display().to_string();
    let begun = Instant::now();
    print(&environment.kubectl().run(&["apply", "-f", &examples]).await?);
    let names = applied(environment, &examples).await?;
    wait(&tenants, &names, begun).await?;

    heading(&format!("kubectl get ten -n {CUSTOMERS} -o wide"));
    print(&environment.kubectl().run(&["get", "ten", "-n", CUSTOMERS, "-o", "wide"]).await?);

    let Some(name) = names.first() else { return Err(Error::message("examples/quickstart holds no tenant")) };
    let tenant = tenants.get(name).await?;
    heading(&format!("what was done for {name} (status.workflow)"));
    print(&steps(&tenant));

    let binding = tenant.data.pointer("/status/binding/name").and_then(Value::as_str);
    let binding = binding.ok_or_else(|| Error::message(format!("{name} is Ready without status.binding")))?;
    let secrets: Api<Secret> = Api::namespaced(client, CUSTOMERS);
    let uri = secret_key(&secrets, binding, "uri").await?;
    let options: PgConnectOptions = uri.parse()?;
    read(name, binding, &options).await?;
    if let Some(other) = names.iter().find(|other| *other != name) {
        let neighbour = tenants.get(other).await?;
        refuse(&options, other, &neighbour).await?;
    }
    Ok(())
}

/// Where to look next.
pub fn farewell(environment: &Background) {
    heading("all of it keeps running; look around");
    print(&format!(
        "  . .dev/env                                   # kubectl and its cluster, for this shell\n\
         \x20 kubectl get ten -A\n\
         \x20 kubectl describe ten acme -n {CUSTOMERS}\n\
         \x20 kubectl explain tenant.spec\n\
         \x20 kubectl delete ten initech -n {CUSTOMERS}         # its database goes with it: the examples have no grace\n\
         \x20 curl -s $TENANTRY_HTTP/metrics | grep ^tenantry\n\
         \x20 tail {}\n\
         stop and remove it:  make down",
        environment.operator().log().display()
    ));
}

fn tenants(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("tenantry.dev", "v1alpha1", "Tenant");
    Api::namespaced_with(client.clone(), CUSTOMERS, &ApiResource::from_gvk_with_plural(&kind, "tenants"))
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

/// Waits until all are Ready, saying what each one is doing.
async fn wait(tenants: &Api<DynamicObject>, names: &[String], begun: Instant) -> Result<()> {
    let mut waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut shown = Instant::now();
    loop {
        let listed = tenants.list(&ListParams::default()).await?;
        for tenant in &listed {
            if is_ready(tenant) && waiting.remove(tenant.name_any().as_str()) {
                line(&format!("  {}: Ready after {}", tenant.name_any(), words(begun.elapsed())));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let reports: Vec<String> = listed.iter().filter(|tenant| !is_ready(tenant)).map(report).collect();
            return Err(Error::message(format!("not Ready after 3 minutes:\n{}", reports.join("\n"))));
        }
        if shown.elapsed() > Duration::from_secs(2) {
            shown = Instant::now();
            for tenant in listed.iter().filter(|tenant| waiting.contains(tenant.name_any().as_str())) {
                line(&format!("  {} … {}", report(tenant), words(begun.elapsed())));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn condition<'a>(tenant: &'a DynamicObject, name: &str) -> Option<&'a Value> {
    let conditions = tenant.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == name)
}

/// Ready, and for the generation that was applied: an older one's word does not count.
fn is_ready(tenant: &DynamicObject) -> bool {
    tenant.data.pointer("/status/observedGeneration").and_then(Value::as_i64) == tenant.metadata.generation
        && condition(tenant, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// In one line: what it is at, or why it is not Ready.
fn report(tenant: &DynamicObject) -> String {
    let steps = tenant.data.pointer("/status/workflow/steps").and_then(Value::as_array);
    let step = steps.and_then(|steps| steps.iter().find(|step| step["state"] != "Succeeded"));
    let step = step.and_then(|step| step["name"].as_str()).unwrap_or("waiting for the operator");
    let ready = condition(tenant, "Ready");
    let text = |key: &str| ready.and_then(|ready| ready[key].as_str()).unwrap_or_default();
    format!("{}: {step} {} {}", tenant.name_any(), text("reason"), text("message")).trim_end().to_owned()
}

/// The workflow's steps with their durations.
fn steps(tenant: &DynamicObject) -> String {
    let steps = tenant.data.pointer("/status/workflow/steps").and_then(Value::as_array);
    let rows = steps.into_iter().flatten().map(|step| {
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let time = |key: &str| step[key].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let took = match (time("startedAt"), time("finishedAt")) {
            (Some(started), Some(finished)) => format!("{} ms", finished.duration_since(started).as_millis()),
            _ => String::new(),
        };
        vec![text("name"), text("state"), took, text("message")]
    });
    table(&["STEP", "STATE", "TOOK", "MESSAGE"], &rows.collect::<Vec<_>>())
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
    print(&format!("  logged in as {user} to {database}"));
    for (what, query) in QUERIES {
        print(&format!("\n  {what}:  {query}"));
        let rows: Vec<PgRow> = sqlx::query(query).fetch_all(&mut session).await?;
        for row in rows {
            let columns: Vec<String> =
                (0..row.len()).map(|index| row.try_get(index)).collect::<Result<_, sqlx::Error>>()?;
            print(&format!("    {}", columns.join("  ")));
        }
    }
    Ok(())
}

/// Shows that the same login is turned away next door.
async fn refuse(options: &PgConnectOptions, other: &str, neighbour: &DynamicObject) -> Result<()> {
    let database = neighbour.data.pointer("/status/database").and_then(Value::as_str);
    let database =
        database.ok_or_else(|| Error::message(format!("{other} is Ready without status.database")))?;
    match options.clone().database(database).connect().await {
        Ok(_) => Err(Error::message(format!("a tenant could log in to {database}, which is another's"))),
        Err(sqlx::Error::Database(refusal)) => {
            print(&format!("\n  the same login to {other}'s database: {}", refusal.message()));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Columns as kubectl aligns them.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|word| (*word).to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&header).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let render = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    std::iter::once(&header).chain(rows).map(render).collect::<Vec<_>>().join("\n")
}

fn heading(text: &str) {
    print(&format!("\n== {text}"));
}

/// What the demo shows goes to stdout; progress goes to stderr.
fn print(text: &str) {
    println!("{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["CreateDatabase".to_owned(), "54 ms".to_owned()], vec!["Seed".to_owned()]];
        assert_eq!(table(&["STEP", "TOOK"], &rows), "STEP             TOOK\nCreateDatabase   54 ms\nSeed");
    }
}
