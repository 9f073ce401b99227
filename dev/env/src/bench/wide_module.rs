//! How long a tenant takes whose application has many tables: new tenants are clones, so the files' time counts once.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Bench, TIMEOUT, print};
use crate::error::Result;
use crate::installation::Names;

const NAME: &str = "wide";
/// How many tables the module has, each with a foreign key to the one before and two indexes.
const TABLES: usize = 200;
/// How many are in one file.
const PER_FILE: usize = 50;
const EXTENSIONS: [&str; 3] = ["citext", "hstore", "pg_trgm"];
/// How many tenants are created one after the other, once the template is there.
const TENANTS: usize = 10;

/// Applies a module, and creates tenants with it: the first waits for the template.
pub(super) async fn create_wide(bench: &Bench<'_>) -> Result<()> {
    bench.kubectl.apply(&module()).await?;
    let timeout = format!("--timeout={}s", TIMEOUT.as_secs());
    bench.kubectl.run(&["wait", "--for=condition=Ready", &format!("tenantmodule/{NAME}"), &timeout]).await?;
    let modules = json!({"modules": [{"name": NAME}]});
    let mut times = Vec::new();
    for number in 0..=TENANTS {
        let name = format!("{NAME}-{number}");
        times.push(bench.apply(&[name], modules.clone(), "ReadWrite").await?.all_ready.as_millis());
    }
    let first = times.remove(0);
    times.sort_unstable();
    print(&format!(
        "one tenant with a module of {TABLES} tables and {} extensions, kubectl apply to Ready: the first, with its template, {first} ms; {TENANTS} more: median {} ms, {} to {} ms",
        EXTENSIONS.len(),
        times[TENANTS / 2],
        times[0],
        times[TENANTS - 1],
    ));
    Ok(())
}

/// The ConfigMap and the TenantModule.
fn module() -> String {
    let numbers: Vec<usize> = (1..=TABLES).collect();
    let files = numbers.chunks(PER_FILE).enumerate().map(|(index, tables)| {
        let sql = tables.iter().map(|number| table(*number)).collect::<String>();
        (format!("{:04}_tables.sql", index + 1), Value::from(sql))
    });
    let files: serde_json::Map<String, Value> = files.collect();
    let extensions: Vec<Value> = EXTENSIONS.iter().map(|name| json!({"name": name})).collect();
    let namespace = Names::default().namespace;
    let items = json!([
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": namespace}, "data": files},
        {"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantModule", "metadata": {"name": NAME}, "spec": {
            "source": {"configMaps": [{"name": NAME}]}, "schema": NAME, "default": false, "extensions": extensions}},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn table(number: usize) -> String {
    let mut sql = format!(
        "CREATE TABLE part_{number} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name citext NOT NULL UNIQUE,
             more hstore, created_at timestamptz NOT NULL DEFAULT now()"
    );
    if number > 1 {
        write!(sql, ", part bigint REFERENCES part_{}", number - 1).unwrap_or_default();
    }
    sql + &format!(");\nCREATE INDEX ON part_{number} USING gin (name gin_trgm_ops);\n")
}
