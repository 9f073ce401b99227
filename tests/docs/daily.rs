//! The commands of the pages for every day, as they are printed, in one environment: from a first tenant to the removal of
//! the operator. A new block is run without a change here.

pub mod situations;

use std::{fs, path::PathBuf, time::Duration};

use tenantry_dev::{
    Environment, EnvironmentOptions, InstallationOptions, InstalledWebhook, certificates::Authority,
};

use crate::{
    coverage::documents,
    daily::situations::{ONLY_READ, PAGES, SITUATIONS, Situation},
    shell::{Shell, blocks, blocks_in, page, yaml_blocks},
};

/// Before each situation: a wait for what is no field of an object.
const UNTIL: &str = "until_true() {
  timeout 60 bash -euo pipefail -c \"until { $1
  }; do sleep 0.2; done\"
}
";

/// What the page leaves to its reader, and what is different here.
const HERE: [(&str, &str); 6] = [
    ("'postgresql://postgres:…@db.example:5432/postgres?sslmode=verify-full'", "\"$TENANTRY_ADMIN_URL\""),
    ("TENANTRY_OPERATOR_PASSWORD='…'", "TENANTRY_OPERATOR_PASSWORD=\"$TENANTRY_OPERATOR_PASSWORD\""),
    ("localhost:8080/", "\"$TENANTRY_HTTP\"/"),
    // Inside of single quotes.
    ("grace@example.com", "'\"$(cat whoami)\"'"),
    ("=3f9c2a71", "=\"$(cat token)\""),
    ("=7430000000000000000", "=\"$(cat identifier)\""),
];

/// For the id of a tenant that a statement leaves to its reader.
const NO_TENANT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// The block for this environment. A control plane without nodes has no logs of pods, so that of the operator follows
/// what the command prints.
fn here(block: &str) -> String {
    let block = HERE.iter().fold(block.to_owned(), |block, (printed, here)| block.replace(printed, here));
    let lines = block.lines().map(|line| match line.split_once(" | ") {
        Some((logs, rest)) if logs.contains(" logs ") => format!("{{ {logs}; cat \"$LOG\"; }} | {rest}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub fn is_only_read(page: &str, block: &str) -> bool {
    ONLY_READ.iter().any(|(of, begins, _)| *of == page && block.starts_with(begins))
}

async fn run(shell: &Shell, commands: &str) -> String {
    let bounded = tokio::time::timeout(Duration::from_secs(240), shell.run(commands));
    bounded.await.unwrap_or_else(|_| panic!("does not end:\n{commands}"))
}

async fn run_page(shell: &Shell, name: &str) {
    let document = page(name);
    for block in blocks(&document).into_iter().filter(|block| !is_only_read(name, block)) {
        println!("{name}: {}", block.lines().next().unwrap_or_default());
        let of = |it: &&Situation| it.page == name && format!("{block}\n").starts_with(it.block);
        let situation = SITUATIONS.iter().find(of);
        if let Some(situation) = situation {
            run(shell, &format!("{UNTIL}{}", situation.before)).await;
        }
        let shown = run(shell, &here(block)).await;
        if let Some(situation) = situation {
            for part in situation.shows {
                assert!(shown.contains(part), "{name} does not show {part:?}:\n{block}\n\n{shown}");
            }
            run(shell, &format!("{UNTIL}{}", situation.after)).await;
        }
    }
}

/// The statements that the pages print for the registry, with the operator's login: also of pages without commands.
async fn query_registry(shell: &Shell) {
    let tables = [
        "tenants",
        "workflows",
        "usage_public",
        "deletion_receipts",
        "activity",
        "activity_archive",
        "tenant_activity",
        "object_activity",
        "former_slugs",
        "schema_",
    ];
    let mut run_here = 0;
    for name in documents() {
        let document = page(&name);
        // In lists, blocks are indented.
        let lines: Vec<&str> = document.lines().map(str::trim).collect();
        for block in blocks_in(&lines.join("\n"), "sql") {
            if tables.iter().any(|table| block.contains(&format!("FROM {table}"))) {
                println!("{name}: {}", block.lines().next().unwrap_or_default());
                fs::write(shell.directory.join("block.sql"), block.replace("6f0c…", NO_TENANT)).unwrap();
                run(shell, "psql \"$TENANTRY_SYSTEM_DATABASE_URL\" -f block.sql").await;
                run_here += 1;
            }
        }
    }
    assert!(run_here > 8, "{run_here}");
}

/// The manifests that the pages show, the Deployment of the operator and the variables of the pages.
fn prepare(shell: &mut Shell, environment: &Environment) {
    let shown = |name: &str, part: &str| {
        let document = page(name);
        let found = yaml_blocks(&document).into_iter().find(|block| block.contains(part)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("{name} shows no {part:?}"))
    };
    let manifests = include_str!("../../manifests/tenantry.yaml").split("\n---\n");
    let deployment = manifests.into_iter().find(|it| it.contains("\nkind: Deployment\n")).unwrap();
    for (name, content) in [
        ("page/plan.yaml", shown("plans.md", "metadata: {name: gold}")),
        ("page/hold.yaml", shown("lifecycle.md", "metadata: {name: billing, namespace: customers}\nspec:")),
        ("page/ticket.yaml", shown("support-access.md", "kind: SupportAccess")),
        ("page/legal.yaml", shown("offboarding.md", "preserve: true")),
        ("deployment.yaml", deployment.to_owned()),
        (
            "ca.crt",
            ["old", "new"].map(|name| Authority::new(name).unwrap().certificate().to_owned()).concat(),
        ),
        // A statement that fails ends psql with an error.
        (".psqlrc", "\\set ON_ERROR_STOP on\n".to_owned()),
    ] {
        let file = shell.directory.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let server = environment.postgres();
    let registry = environment.registry_url().to_owned();
    let (_, rest) = registry.split_once("tenantry_operator:").unwrap();
    let (password, _) = rest.split_once('@').unwrap();
    let variables = [
        ("TENANTRY_HTTP", environment.operator().base_url()),
        ("TENANTRY_ADMIN_URL", server.admin_url("postgres")),
        ("REGISTRY_ADMIN_URL", server.admin_url("tenantry_system")),
        ("ACME_ADMIN_URL", server.admin_url("tenant_acme")),
        ("TENANTRY_OPERATOR_PASSWORD", password.to_owned()),
        ("TENANTRY_SYSTEM_DATABASE_URL", registry.clone()),
        ("LOG", environment.operator().log().display().to_string()),
        ("NAMESPACE", "customers".to_owned()),
        ("TENANT", "later".to_owned()),
        ("SERVER", "default".to_owned()),
        ("CA_SECRET", "db-ca".to_owned()),
        ("MODULE", "billing".to_owned()),
        ("PLAN", "starter".to_owned()),
    ];
    shell.variables.extend(variables.map(|(name, value)| (name.to_owned(), value)));
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn every_day_works_as_printed() {
    // As the chart has it; the environments of other tests have the breaker off.
    let arguments = ["--log-format=json", "--mass-deletion-breaker=on"].map(str::to_owned).into();
    let installation = InstallationOptions {
        arguments,
        webhook: InstalledWebhook::Checks,
        ..InstallationOptions::default()
    };
    let tenantry = PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
    let options = EnvironmentOptions { tenantry, installation, ..EnvironmentOptions::default() };
    let environment = Environment::start(options).await.unwrap();
    let mut shell = Shell::new(environment.control_plane(), "daily");
    prepare(&mut shell, &environment);
    // The pods of this Deployment wait for a node for ever; a process is the operator.
    let deploy = "kubectl -n tenantry-system apply -f deployment.yaml > /dev/null
        kubectl -n tenantry-system wait --for=jsonpath='{.status.replicas}'=2 --timeout=60s deployment/tenantry > /dev/null
        kubectl -n tenantry-system get pods -o jsonpath='{.items[0].metadata.name}'";
    let pod = run(&shell, deploy).await;
    shell.variables.push(("POD".to_owned(), pod));
    let (with_operator, without) = PAGES.split_at(PAGES.len() - 1);
    assert_eq!(without, ["uninstall.md"]);
    for name in with_operator {
        run_page(&shell, name).await;
    }
    query_registry(&shell).await;
    environment.operator().stop().await.unwrap();
    run_page(&shell, without[0]).await;
}
