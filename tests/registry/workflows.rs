//! One workflow at a time per tenant, whoever tries.

use futures::future::join_all;
use jiff::Timestamp;
use sqlx::Executor;
use tenantry::registry::{Error, Outcome, StepRecord, Workflow};
use tenantry_dev::Stop;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, prepared, tenant, until},
};

fn step(name: &str, state: &str, attempts: i32) -> StepRecord {
    let second = |n: i32| Some(Timestamp::from_second(1_800_000_000 + i64::from(n)).unwrap());
    StepRecord {
        step: name.to_owned(),
        state: state.to_owned(),
        attempts,
        started_at: second(attempts),
        finished_at: (state != "Running").then(|| second(attempts + 1)).flatten(),
        message: (state == "Failed").then(|| "no room".to_owned()),
        sql_state: (state == "Failed").then(|| "53100".to_owned()),
    }
}

#[tokio::test]
async fn an_unfinished_workflow_is_resumed_and_a_finished_one_is_not() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        let first = registry.begin_workflow(id, "Provision").await.unwrap();
        assert_eq!((first.attempt, first.failures), (1, 0));
        let steps = [step("Register", "Succeeded", 1), step("CreateDatabase", "Failed", 2)];
        registry.record_steps(&first, &steps).await.unwrap();
        let next = Timestamp::now() + jiff::SignedDuration::from_secs(3);
        registry.postpone_workflow(&first, "DiskFull", "no room", next).await.unwrap();

        let second = registry.begin_workflow(id, "Provision").await.unwrap();
        let expected = Workflow { attempt: 2, failures: 1, ..first.clone() };
        assert_eq!(second, expected);
        assert_eq!(registry.steps(second.id).await.unwrap(), steps);
        let again = [step("CreateDatabase", "Succeeded", 3), step("ApplyMigrations", "Running", 4)];
        registry.record_steps(&second, &again).await.unwrap();
        assert_eq!(
            registry.steps(second.id).await.unwrap(),
            [steps[0].clone(), again[0].clone(), again[1].clone()]
        );

        // The first run has been taken over: it can do nothing more.
        let taken_over = [
            registry.record_steps(&first, &steps).await.unwrap_err(),
            registry.finish_workflow(&first, Outcome::Succeeded).await.unwrap_err(),
            registry.postpone_workflow(&first, "x", "x", next).await.unwrap_err(),
        ];
        for error in taken_over {
            assert!(matches!(error, Error::TakenOver), "{error:?}");
        }
        registry.finish_workflow(&second, Outcome::Succeeded).await.unwrap();
        registry.finish_workflow(&second, Outcome::Succeeded).await.unwrap();
        registry.finish_workflow(&second, Outcome::Failed).await.unwrap_err();
        let third = registry.begin_workflow(id, "Provision").await.unwrap();
        assert_ne!(third.id, first.id);
        assert_eq!(third.attempt, 1);

        // Another kind: what was going on is not wanted any more.
        let other = registry.begin_workflow(id, "Deprovision").await.unwrap();
        assert_eq!(other.attempt, 1);
        let mut session = system.session().await;
        let outcomes: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT kind, outcome FROM workflows ORDER BY started_at")
                .fetch_all(&mut session)
                .await
                .unwrap();
        let outcomes: Vec<_> =
            outcomes.iter().map(|(kind, outcome)| (kind.as_str(), outcome.as_deref())).collect();
        assert_eq!(
            outcomes,
            [("Provision", Some("Succeeded")), ("Provision", Some("Superseded")), ("Deprovision", None)]
        );
        let nobody = tenantry::domain::identity::TenantId(uuid::Uuid::new_v4());
        assert!(matches!(registry.begin_workflow(nobody, "Provision").await, Err(Error::NotFound(_))));
    }
}

#[tokio::test]
async fn of_eight_processes_that_begin_at_once_one_does() {
    for system in System::both().await {
        let mut processes = Vec::new();
        for n in 0..8 {
            processes.push(system.registry(&format!("process-{n}")).await);
        }
        for round in 0..5 {
            let id = created(&processes[0], &tenant(&format!("tenant-{round}"))).await.id;
            let outcomes =
                join_all(processes.iter().map(|process| process.begin_workflow(id, "Provision"))).await;
            let winner = outcomes.iter().position(Result::is_ok).unwrap();
            for (n, outcome) in outcomes.iter().enumerate().filter(|(n, _)| *n != winner) {
                let holder = format!("process-{winner}");
                assert!(
                    matches!(outcome, Err(Error::Claimed { holder: h }) if *h == holder),
                    "{n}: {outcome:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_claim_ends_with_its_process_and_not_before() {
    for system in System::both().await {
        let (old, new) = (system.registry("old").await, system.registry("new").await);
        let id = created(&old, &tenant("acme")).await.id;
        let run = old.begin_workflow(id, "Provision").await.unwrap();

        // While the old process lives, nobody else touches the tenant: neither its workflow nor its row.
        let refusals = [
            new.begin_workflow(id, "Provision").await.unwrap_err(),
            new.begin_workflow(id, "Deprovision").await.unwrap_err(),
            new.activate(id, &in_use(), &[], run.id).await.unwrap_err(),
            new.database_exists(id, true).await.unwrap_err(),
            new.begin_deprovisioning(id, &tombstone(false), Some(run.id)).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(
                (refusal.reason(), refusal.is_permanent()),
                ("ClaimedElsewhere", false),
                "{refusal:?}"
            );
        }
        assert!(old.database_exists(id, true).await.unwrap());

        old.disconnect().await;
        let resumed =
            until("the claim has ended", async || match new.begin_workflow(id, "Provision").await {
                Err(Error::Claimed { .. }) => None,
                outcome => Some(outcome.unwrap()),
            })
            .await;
        assert_eq!((resumed.id, resumed.attempt), (run.id, 2));
        new.activate(id, &in_use(), &[], resumed.id).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_leader_takes_over_from_a_process_that_is_frozen() {
    for major in [15, 18] {
        let server = prepared(major).await.unwrap();
        let system = System::empty_on(&server).await;
        system.registry("migration").await.migrate().await.unwrap();
        // A managed service may not give these: it works without.
        let mut admin = system.superuser().await;
        admin.execute("REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin").await.unwrap();
        let (frozen, leader) = (system.registry("frozen").await, system.registry("leader").await);
        let id = created(&frozen, &tenant("acme")).await.id;
        let run = frozen.begin_workflow(id, "Provision").await.unwrap();
        leader.begin_workflow(id, "Provision").await.unwrap_err();

        let ended = leader.end_sessions_of(&["frozen".into()]).await.unwrap();
        assert!(ended >= 2, "the pool's and the claim's: {ended}");
        let taken = leader.begin_workflow(id, "Provision").await.unwrap();
        assert_eq!((taken.id, taken.attempt), (run.id, 2));

        // It wakes up: its sessions are gone, it makes new ones, and gets nowhere.
        let refused = loop {
            match frozen.activate(id, &in_use(), &[], run.id).await {
                Err(error) if error.reason() == "RegistryUnreachable" => {}
                outcome => break outcome.unwrap_err(),
            }
        };
        assert_eq!(refused.reason(), "ClaimedElsewhere");
        let refused = frozen.record_steps(&run, &[step("Register", "Succeeded", 1)]).await.unwrap_err();
        assert!(matches!(refused, Error::TakenOver), "{refused:?}");
        let refused = frozen.begin_workflow(id, "Provision").await.unwrap_err();
        assert!(matches!(refused, Error::Claimed { .. }), "{refused:?}");
        assert_eq!(leader.end_sessions_of(&["nobody".into()]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn after_a_crash_of_the_server_the_same_process_goes_on() {
    // A registry that is away is waited for for ten seconds.
    join_all([15, 18].map(async |major| {
        let server = prepared(major).await.unwrap();
        let system = System::empty_on(&server).await;
        let registry = system.registry("one").await;
        registry.migrate().await.unwrap();
        let id = created(&registry, &tenant("acme")).await.id;
        let run = registry.begin_workflow(id, "Provision").await.unwrap();
        server.stop(Stop::Immediate).await.unwrap();
        let down = registry.begin_workflow(id, "Provision").await.unwrap_err();
        assert_eq!((down.reason(), down.is_permanent()), ("RegistryUnreachable", false), "{down:?}");
        server.start_again().await.unwrap();
        // Connections that died with the server are found out one by one.
        let resumed = loop {
            match registry.begin_workflow(id, "Provision").await {
                Err(error) if !error.is_permanent() && error.reason() == "RegistryUnreachable" => {}
                outcome => break outcome.unwrap(),
            }
        };
        assert_eq!((resumed.id, resumed.attempt), (run.id, 2));
        let other = system.registry("two").await;
        let refused = other.begin_workflow(id, "Provision").await.unwrap_err();
        assert!(matches!(refused, Error::Claimed { .. }), "{refused:?}");
    }))
    .await;
}
