//! An operator that starts while a tenant keeps everybody from `postgres`, or from the registry, on the tenant's server.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tenantry::postgres::{server::Server, while_let_in};

use crate::servers::{INSTALLATION, OPERATOR, PASSWORD, Tenant, config, ready};

use super::{locks::own_server, watch::lock_out_of};

/// How long the control waits.
const IN_VAIN: Duration = Duration::from_secs(2);
/// Generous: all of it takes one or two seconds.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operator_starts_in_spite_of_locks_on_15() {
    start(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operator_starts_in_spite_of_locks_on_18() {
    start(18).await;
}

async fn start(major: u16) {
    let postgres = own_server(major).await;
    let server = ready(&postgres).await;
    let [hostile, other, locked] = ["tenant_hostile", "tenant_other", "tenant_locked"].map(Tenant::new);
    for tenant in [&hostile, &other, &locked] {
        tenant.provision(&server, 1).await;
    }
    drop(server);

    // A database of the list is locked as well.
    let _too = lock_out_of(&postgres, &hostile, "tenant_locked", false).await;
    let _held = lock_out_of(&postgres, &hostile, "postgres", false).await;
    let alone = Server::new(config(&postgres));
    let preflight = tokio::time::timeout(IN_VAIN, alone.preflight(INSTALLATION)).await;
    assert!(preflight.is_err(), "the control: without another way in, the operator waits");
    let started = Server::new(config(&postgres));
    started.set_detours(["tenant_locked", "tenant_other", "tenant_none"].map(str::to_owned).to_vec());
    let begun = Instant::now();
    tokio::time::timeout(SOON, started.preflight(INSTALLATION)).await.unwrap().unwrap();
    println!("PostgreSQL {major}: postgres after {:?}", begun.elapsed());
    let ended = started.take_blockers();
    assert!(ended.iter().any(|ended| ended.tenant == hostile.placement.tenant), "{ended:?}");

    let _held = lock_out_of(&postgres, &hostile, "tenantry_system", false).await;
    let url = postgres.url(OPERATOR, PASSWORD, "tenantry_system");
    let control = tokio::time::timeout(IN_VAIN, PgConnection::connect(&url)).await;
    assert!(control.is_err(), "the control: no client connects to the registry");
    let begun = Instant::now();
    let let_in = while_let_in(&url, "tests", PgConnection::connect(&url));
    tokio::time::timeout(SOON, let_in).await.unwrap().unwrap();
    println!("PostgreSQL {major}: the registry after {:?}", begun.elapsed());
    // The other tenant's session is none of those.
    other.session(&postgres).await.unwrap();
}
