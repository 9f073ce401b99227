//! Import directions, `api ← domain ← {postgres, registry} ← controller`, and the module of each library.

use crate::{
    code,
    tree::{self, File, Finding},
};

/// The modules of `src`, and the others that each may use. `cli` combines all of them; only `main` uses `cli`.
const MODULES: [(&str, &[&str]); 17] = [
    ("api", &[]),
    ("domain", &["api"]),
    ("fence", &[]),
    ("images", &[]),
    ("keyed_lock", &[]),
    ("modules", &["domain"]),
    ("own_authority", &[]),
    ("postgres", &["api", "domain", "fence", "keyed_lock", "modules", "own_authority", "traces"]),
    ("registry", &["api", "domain", "fence", "own_authority", "traces"]),
    ("leader", &[]),
    ("metrics", &[]),
    ("telemetry", &["traces"]),
    ("traces", &[]),
    ("web", &["api", "domain", "metrics"]),
    ("webhook", &["api", "domain", "registry"]),
    (
        "controller",
        &[
            "api",
            "domain",
            "fence",
            "images",
            "keyed_lock",
            "leader",
            "metrics",
            "modules",
            "postgres",
            "registry",
            "telemetry",
            "traces",
        ],
    ),
    (
        "cli",
        &[
            "api",
            "controller",
            "domain",
            "fence",
            "leader",
            "metrics",
            "postgres",
            "registry",
            "telemetry",
            "traces",
            "web",
            "webhook",
        ],
    ),
];

/// Libraries that are used in one module only.
const LIBRARIES: [(&str, &[&str]); 10] = [
    (
        "sqlx",
        &[
            "src/postgres/",
            "src/registry/",
            "src/cli/server_setup.rs",
            "src/own_authority.rs",
            // The spans of statements.
            "src/traces/",
        ],
    ),
    ("jiff_sqlx", &["src/postgres/", "src/registry/"]),
    ("axum", &["src/web/", "src/webhook/"]),
    ("axum_server", &["src/webhook/"]),
    ("rcgen", &["src/webhook/"]),
    ("prometheus_client", &["src/metrics/"]),
    ("oci_client", &["src/images/"]),
    ("opentelemetry", &["src/traces/"]),
    ("opentelemetry_sdk", &["src/traces/"]),
    ("reqwest", &["src/traces/"]),
];

/// Parts of kube that describe a resource, and do not access the Kubernetes API.
const DESCRIPTION: [&str; 5] = ["CustomResource", "CustomResourceExt", "KubeSchema", "CELSchema", "core"];

/// The users of the Kubernetes API. `cli/run.rs` creates the client.
const CLIENTS: [&str; 4] = ["src/controller/", "src/leader/", "src/webhook/", "src/cli/run.rs"];

/// The readers of the environment: the command line, and the log for NO_COLOR. Other modules get values passed in.
const ENVIRONMENT: [&str; 2] = ["src/cli/", "src/telemetry.rs"];

#[test]
fn modules_import_in_one_direction() {
    tree::demand(sources(), directions);
}

#[test]
fn libraries_are_used_in_their_module_only() {
    tree::demand(sources(), libraries);
}

#[test]
fn one_file_turns_names_into_sql() {
    tree::demand(tree::rust().filter(|file| file.path.contains("src/")), sql);
}

fn sources() -> impl Iterator<Item = &'static File> {
    tree::rust().filter(|file| file.path.starts_with("src/"))
}

fn is_in(file: &File, places: &[&str]) -> bool {
    places.iter().any(|place| file.path.starts_with(place))
}

fn directions(file: &File) -> Vec<Finding> {
    let home = file.path.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap();
    // The roots only declare and dispatch.
    let (allowed, root): (&[&str], &str) = match home {
        "main" => (&["cli"], "tenantry"),
        "lib" => (&[], "crate"),
        "bin" => return Vec::new(),
        _ => match MODULES.iter().find(|(name, _)| *name == home) {
            Some((_, allowed)) => (allowed, "crate"),
            None => {
                let rule = format!("module {home} is not in tests/tidy/imports.rs: say what it may use");
                return vec![Finding::new(1, rule)];
            }
        },
    };
    let outside = code::read(file).paths.into_iter().filter_map(|path| {
        let [first, used, ..] = path.segments.as_slice() else { return None };
        let known = MODULES.iter().any(|(name, _)| name == used) || used == "*";
        (first == root && known && used != home && !allowed.contains(&used.as_str())).then(|| {
            Finding::new(path.line, format!("{home} must not use {used}: see the import directions"))
        })
    });
    outside.collect()
}

fn libraries(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for path in code::read(file).paths {
        let first = path.segments[0].as_str();
        if let Some((library, places)) = LIBRARIES.iter().find(|(library, _)| *library == first)
            && !is_in(file, places)
        {
            found.push(Finding::new(path.line, format!("{library} is used in {} only", places.join(", "))));
        }
        if first == "std"
            && path.segments.get(1).is_some_and(|name| name == "env")
            && !is_in(file, &ENVIRONMENT)
        {
            let rule = format!("the environment is read in {} only: pass it in", ENVIRONMENT.join(", "));
            found.push(Finding::new(path.line, rule));
        }
        let described = path.segments.get(1).is_some_and(|name| DESCRIPTION.contains(&name.as_str()));
        if first == "kube" && !described && !is_in(file, &CLIENTS) {
            let name = path.segments.join("::");
            let rule = format!("{name}: the Kubernetes API is for {} only", CLIENTS.join(", "));
            found.push(Finding::new(path.line, rule));
        }
    }
    found
}

fn sql(file: &File) -> Vec<Finding> {
    if file.path == "src/postgres/identifier.rs" {
        return Vec::new();
    }
    let uses = code::read(file).words.into_iter().filter(|word| word.text == "AssertSqlSafe");
    uses.map(|word| {
        Finding::new(word.line, "AssertSqlSafe belongs in src/postgres/identifier.rs: use a Script")
    })
    .collect()
}

#[cfg(test)]
fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|finding| finding.line).collect()
}

#[test]
fn wrong_import_directions_are_found() {
    let text = "//! x\n\
         use crate::{api::tenant, postgres::{self, server::Server}};\n\
         use super::super::registry::Registry;\n\
         fn f() { crate::controller::run::run(); crate::domain::workflow(); super::plan::x() }\n";
    assert_eq!(lines(&directions(&File::sample("src/domain/plan.rs", text))), [2, 2, 3, 4]);
    assert_eq!(lines(&directions(&File::sample("src/postgres/roles.rs", text))), [3, 4]);
    assert_eq!(lines(&directions(&File::sample("src/registry/mod.rs", "use super::leader;"))), [1]);
    assert_eq!(lines(&directions(&File::sample("src/main.rs", "use tenantry::{cli, registry};"))), [1]);
    assert_eq!(lines(&directions(&File::sample("src/new.rs", ""))), [1]);
    assert_eq!(lines(&directions(&File::sample("src/cli/run.rs", "use crate::controller::run;"))), [0; 0]);
}

#[test]
fn libraries_outside_their_module_are_found() {
    let text = "use kube::{Client, KubeSchema, api::Api};\nuse sqlx::PgPool;\nfn f() { axum::serve(); }\n";
    assert_eq!(lines(&libraries(&File::sample("src/api/x.rs", text))), [1, 1, 2, 3]);
    assert_eq!(lines(&libraries(&File::sample("src/leader/x.rs", text))), [2, 3]);
    assert_eq!(lines(&libraries(&File::sample("src/registry/x.rs", text))), [1, 1, 3]);
    let text = "use std::{env, fs};\nfn f() { std::env::var(\"X\"); env!(\"X\"); }\n";
    assert_eq!(lines(&libraries(&File::sample("src/registry/x.rs", text))), [1, 2]);
    assert_eq!(lines(&libraries(&File::sample("src/cli/x.rs", text))), [0; 0]);
}

#[test]
fn sql_made_of_text_is_found() {
    let text = "fn f() {\n sqlx::raw_sql(sqlx::AssertSqlSafe(format!(\"DROP ROLE {x}\"))); }";
    assert_eq!(lines(&sql(&File::sample("src/registry/x.rs", text))), [2]);
    assert_eq!(lines(&sql(&File::sample("src/postgres/identifier.rs", text))), [0; 0]);
}
