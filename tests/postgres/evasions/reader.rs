//! Every way to write that is tried against a suspension, tried by the reader login.

use std::sync::Arc;

use sqlx::Executor;
use tenantry::domain::access::AccessLevel;

use super::{
    Named,
    stage::{Actor, Stage},
    ways::{WAYS, Way},
};
use crate::{
    reader::Reading,
    servers::{SERVERS, Tenant, ready},
};

#[tokio::test]
async fn reader_login_writes_in_no_way() {
    for postgres in &*SERVERS {
        let major = postgres.binaries().major;
        let server = ready(postgres).await;
        let other = Arc::new(Tenant::new("tenant_reader_beside"));
        other.provision(&server, 1).await;
        let mut stage = Stage::set(postgres, &server, &other, "tenant_reader_ways").await.unwrap();
        let own = Arc::get_mut(&mut stage).unwrap();
        let tenant =
            Tenant { placement: own.tenant.placement.clone(), password: own.tenant.password.clone() };
        let Reading { server, placement, reader, .. } = Reading::beside(postgres, tenant).await;
        own.tenant = reader;
        let actor = Actor { stage: Arc::clone(&stage), is_administrator: false };
        let before = stage.content().await.unwrap();
        let ways = WAYS.iter().filter(|(_, majors, _)| majors.contains(&major));
        let (mut session, mut tried) = (actor.session().await.unwrap(), 0);
        for Named { name, way } in ways.map(|(name, _, way)| Named { name, way: *way }) {
            let (first, second) = match way {
                Way::SameSession(first, second)
                | Way::NewSession(first, second)
                | Way::Shrinks(first, second) => (first, second),
                Way::Never(sql) => ("", sql),
                // They need another part of the stage.
                Way::Own(_) | Way::Forbidden(_) => continue,
            };
            let _refused = actor.run(&mut session, first).await;
            let same = actor.run(&mut session, second).await;
            let later = match way {
                Way::NewSession(..) | Way::Shrinks(..) => {
                    actor.run(&mut actor.session().await.unwrap(), second).await
                }
                _ => same.clone(),
            };
            session.execute("ROLLBACK").await.unwrap();
            session.execute("DISCARD ALL").await.unwrap();
            assert!(!way.is_forbidden() || same.is_err() && later.is_err(), "{name} on {major}");
            if second.contains("{write}") {
                assert!(same.is_err() && later.is_err(), "{name} on {major}");
            }
            assert_eq!(stage.content().await.unwrap(), before, "{name} on {major}");
            tried += 1;
        }
        assert!(tried > 60, "{tried}");
        // Settings of its own are all that it has left behind.
        server.set_access(&placement, AccessLevel::ReadWrite).await.unwrap();
        let facts = server.observe(&placement).await.unwrap();
        let role = facts.reader.unwrap().role.unwrap();
        assert_eq!((role.groups, role.settings.len()), (vec!["tenantry_ro".to_owned()], 0));
    }
}
