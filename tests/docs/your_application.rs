//! The commands of `docs/your-application.md`: from an empty directory to a Django application that serves a tenant.

use std::path::PathBuf;

use tenantry_dev::{Environment, EnvironmentOptions, ports};

use crate::shell::{Shell, blocks, page};

/// The page's, which may be in use here.
const PORT: &str = "8017";

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn django_application_serves_a_tenant_as_printed() {
    let tenantry = PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
    let options = EnvironmentOptions { tenantry, ..EnvironmentOptions::default() };
    let environment = Environment::start(options).await.unwrap();
    let mut shell = Shell::new(environment.control_plane(), "application");
    // What is left of a shell that failed: the server of the page.
    let end = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT";
    let document = page("your-application.md");
    let blocks = blocks(&document);
    assert!(blocks.len() >= 8, "{blocks:?}");
    let free = ports::free().unwrap();
    let commands = [&[end], &blocks[..]].concat().join("\n").replace(PORT, &free.to_string());
    // How this machine reaches a package registry, and what it has of it.
    let own = std::env::vars().filter(|(name, _)| {
        ["PIP_", "SSL_", "PYENV_"].iter().any(|prefix| name.starts_with(prefix))
            || name.to_lowercase().ends_with("_proxy")
    });
    shell.variables.extend(own);
    let home = std::env::var("HOME").unwrap();
    shell.variables.push(("PIP_CACHE_DIR".to_owned(), format!("{home}/.cache/pip")));
    shell.run(&commands).await;
}
