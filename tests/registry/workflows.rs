//! One workflow at a time per tenant.

use futures::future::join_all;
use jiff::Timestamp;
use sqlx::Executor;
use tenantry::{
    api::{reason::Reason, tenant_status::WorkflowKind},
    domain::{
        identity::TenantId,
        workflow::{attempt::WorkflowRecord, step::Step},
    },
    registry::{Error, StepHistory, WorkflowOutcome},
};
use tenantry_dev::Stop;
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, prepared, tenant, until},
};

fn step(name: &str, state: &str, attempts: i32) -> StepHistory {
    let second = |n: i32| Some(Timestamp::from_second(1_800_000_000 + i64::from(n)).unwrap());
    StepHistory {
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
async fn unfinished_workflow_is_resumed() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        let first = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        assert_eq!((first.attempt, first.failures), (1, 0));
        let steps = [step("Register", "Succeeded", 1), step("CreateDatabase", "Failed", 2)];
        registry.record_steps(&first, &steps).await.unwrap();
        let next = Timestamp::now() + jiff::SignedDuration::from_secs(3);
        registry.postpone_workflow(&first, None, Reason::DiskFull, "no room", next).await.unwrap();

        let second = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        let expected = WorkflowRecord { attempt: 2, failures: 1, ..first.clone() };
        assert_eq!(second, expected);
        assert_eq!(registry.steps(second.id).await.unwrap(), steps);
        let again = [step("CreateDatabase", "Succeeded", 3), step("ApplyMigrations", "Running", 4)];
        registry.record_steps(&second, &again).await.unwrap();
        assert_eq!(
            registry.steps(second.id).await.unwrap(),
            [steps[0].clone(), again[0].clone(), again[1].clone()]
        );

        // The first run was taken over: it can change nothing more.
        let taken_over = [
            registry.record_steps(&first, &steps).await.unwrap_err(),
            registry.finish_workflow(&first, WorkflowOutcome::Succeeded).await.unwrap_err(),
            registry.postpone_workflow(&first, None, Reason::StepFailed, "x", next).await.unwrap_err(),
        ];
        for error in taken_over {
            assert!(matches!(error, Error::TakenOver), "{error:?}");
        }
        registry.finish_workflow(&second, WorkflowOutcome::Succeeded).await.unwrap();
        registry.finish_workflow(&second, WorkflowOutcome::Succeeded).await.unwrap();
        registry.finish_workflow(&second, WorkflowOutcome::Failed).await.unwrap_err();
        let third = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        assert_ne!(third.id, first.id);
        assert_eq!(third.attempt, 1);

        // A workflow of another kind supersedes the unfinished one.
        let other = registry.begin_workflow(id, WorkflowKind::Deprovision).await.unwrap();
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
        let unknown = tenantry::domain::identity::TenantId(uuid::Uuid::new_v4());
        assert!(matches!(
            registry.begin_workflow(unknown, WorkflowKind::Provision).await,
            Err(Error::NotFound(_))
        ));
    }
}

#[tokio::test]
async fn one_of_eight_processes_begins_the_workflow() {
    for system in System::both().await {
        let mut processes = Vec::new();
        for n in 0..8 {
            processes.push(system.registry(&format!("process-{n}")).await);
        }
        for round in 0..5 {
            let id = created(&processes[0], &tenant(&format!("tenant-{round}"))).await.id;
            let outcomes =
                join_all(processes.iter().map(|process| process.begin_workflow(id, WorkflowKind::Provision)))
                    .await;
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
async fn claim_ends_with_its_process() {
    for system in System::both().await {
        let (old, new) = (system.registry("old").await, system.registry("new").await);
        let id = created(&old, &tenant("acme")).await.id;
        let run = old.begin_workflow(id, WorkflowKind::Provision).await.unwrap();

        // While the old process is alive, no other changes the tenant's workflow or row.
        let refusals = [
            new.begin_workflow(id, WorkflowKind::Provision).await.unwrap_err(),
            new.begin_workflow(id, WorkflowKind::Deprovision).await.unwrap_err(),
            new.activate(id, &in_use(), &[], run.id).await.unwrap_err(),
            new.record_database_exists(id, true).await.unwrap_err(),
            new.begin_deprovisioning(id, &tombstone(false), Some(run.id)).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(
                (refusal.reason(), refusal.is_permanent()),
                (Reason::ClaimedElsewhere, false),
                "{refusal:?}"
            );
        }
        assert!(old.record_database_exists(id, true).await.unwrap().changed);

        old.disconnect().await;
        let resumed = until("the claim has ended", async || {
            match new.begin_workflow(id, WorkflowKind::Provision).await {
                Err(Error::Claimed { .. }) => None,
                outcome => Some(outcome.unwrap()),
            }
        })
        .await;
        assert_eq!((resumed.id, resumed.attempt), (run.id, 2));
        new.activate(id, &in_use(), &[], resumed.id).await.unwrap();
    }
}

#[tokio::test]
async fn new_leader_takes_over_from_frozen_process() {
    for major in [15, 18] {
        let server = prepared(major).await.unwrap();
        let system = System::empty_on(&server).await;
        system.registry("migration").await.migrate().await.unwrap();
        // A managed service may not grant these roles.
        let mut admin = system.superuser().await;
        admin.execute("REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin").await.unwrap();
        let (frozen, leader) = (system.registry("frozen").await, system.registry("leader").await);
        let id = created(&frozen, &tenant("acme")).await.id;
        let run = frozen.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        leader.begin_workflow(id, WorkflowKind::Provision).await.unwrap_err();

        let ended = leader.end_sessions_of(&["frozen".into()]).await.unwrap();
        assert!(ended >= 2, "the pool's and the claim's: {ended}");
        let taken = leader.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        assert_eq!((taken.id, taken.attempt), (run.id, 2));

        // The frozen process resumes: its sessions are closed, and its new ones are refused.
        let refused = until("the frozen process connects again", async || {
            match frozen.activate(id, &in_use(), &[], run.id).await {
                Err(error) if error.reason() == Reason::RegistryUnreachable => None,
                outcome => Some(outcome.unwrap_err()),
            }
        })
        .await;
        assert_eq!(refused.reason(), Reason::ClaimedElsewhere);
        let refused = frozen.record_steps(&run, &[step("Register", "Succeeded", 1)]).await.unwrap_err();
        assert!(matches!(refused, Error::TakenOver), "{refused:?}");
        let refused = frozen.begin_workflow(id, WorkflowKind::Provision).await.unwrap_err();
        assert!(matches!(refused, Error::Claimed { .. }), "{refused:?}");
        assert_eq!(leader.end_sessions_of(&["unknown".into()]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn process_resumes_after_server_crash() {
    // Each attempt waits up to ten seconds for an unreachable registry.
    join_all([15, 18].map(async |major| {
        let server = prepared(major).await.unwrap();
        let system = System::empty_on(&server).await;
        let registry = system.registry("one").await;
        registry.migrate().await.unwrap();
        let id = created(&registry, &tenant("acme")).await.id;
        let run = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        server.stop(Stop::Immediate).await.unwrap();
        let down = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap_err();
        assert_eq!((down.reason(), down.is_permanent()), (Reason::RegistryUnreachable, false), "{down:?}");
        server.start_again().await.unwrap();
        // Each connection that the crash broke fails once.
        let resumed = until("the registry answers again", async || {
            match registry.begin_workflow(id, WorkflowKind::Provision).await {
                Err(error) if !error.is_permanent() && error.reason() == Reason::RegistryUnreachable => None,
                outcome => Some(outcome.unwrap()),
            }
        })
        .await;
        assert_eq!((resumed.id, resumed.attempt), (run.id, 2));
        let other = system.registry("two").await;
        let refused = other.begin_workflow(id, WorkflowKind::Provision).await.unwrap_err();
        assert!(matches!(refused, Error::Claimed { .. }), "{refused:?}");
    }))
    .await;
}

/// The activity of a tenant: what was done, why, and by which workflow.
async fn activity(system: &System<'_>, id: TenantId) -> Vec<(String, Option<String>, Option<Uuid>)> {
    sqlx::query_as("SELECT action, reason, correlation_id FROM activity WHERE tenant_id = $1 ORDER BY id")
        .bind(id.0)
        .fetch_all(&mut system.session().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn provisioning_leaves_activity_with_one_correlation_id() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        let mut workflow = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        let next = Timestamp::now();
        let create = Some(Step::CreateDatabase);
        let failures = [
            (create, Reason::DiskFull, "CreateDatabase: no room for 17 MB"),
            // The same, with another number.
            (create, Reason::DiskFull, "CreateDatabase: no room for 8 MB"),
            (create, Reason::DatabaseUnreachable, "CreateDatabase: no answer"),
            (create, Reason::DiskFull, "CreateDatabase: no room for 17 MB"),
            // Of another step, and another message.
            (Some(Step::Seed), Reason::DiskFull, "Seed: no room"),
            (Some(Step::Seed), Reason::DiskFull, "Seed: no room in the index"),
            // The rollback that follows is not a failed step.
            (None, Reason::DiskFull, "no room"),
        ];
        for (step, reason, message) in failures {
            registry.postpone_workflow(&workflow, step, reason, message, next).await.unwrap();
            workflow = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        }
        registry.activate(id, &in_use(), &[], workflow.id).await.unwrap();
        registry.finish_workflow(&workflow, WorkflowOutcome::Succeeded).await.unwrap();
        registry.finish_workflow(&workflow, WorkflowOutcome::Succeeded).await.unwrap();
        // Workflows of other kinds have their own rows, such as Suspended.
        let repair = registry.begin_workflow(id, WorkflowKind::Repair).await.unwrap();
        registry.postpone_workflow(&repair, create, Reason::DiskFull, "no room", next).await.unwrap();
        let repair = registry.begin_workflow(id, WorkflowKind::Repair).await.unwrap();
        registry.finish_workflow(&repair, WorkflowOutcome::Succeeded).await.unwrap();

        let logged = activity(&system, id).await;
        let shown: Vec<_> =
            logged.iter().map(|(action, why, _)| (action.as_str(), why.as_deref().unwrap_or(""))).collect();
        let expected = [
            ("Requested", ""),
            ("Registered", ""),
            ("Started", ""),
            ("StepFailed", "CreateDatabase: no room for 17 MB"),
            ("StepFailed", "CreateDatabase: no answer"),
            ("StepFailed", "Seed: no room"),
            ("StepFailed", "Seed: no room in the index"),
            ("Activated", ""),
            ("Completed", ""),
        ];
        assert_eq!(shown, expected);
        assert!(logged.iter().all(|(.., by)| *by == Some(workflow.id)), "{logged:?}");
    }
}

#[tokio::test]
async fn failures_of_one_provisioning_have_a_maximum_of_rows() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        for letter in 'a'..='z' {
            let workflow = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
            let (step, message) = (Some(Step::Seed), format!("Seed: {letter}"));
            let next = Timestamp::now();
            registry.postpone_workflow(&workflow, step, Reason::StepFailed, &message, next).await.unwrap();
        }
        let logged = activity(&system, id).await;
        assert_eq!(logged.iter().filter(|(action, ..)| action == "StepFailed").count(), 20);
    }
}

#[tokio::test]
async fn provisioning_that_a_killed_process_left_is_completed_once() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let completed = async |id| {
            let logged = activity(&system, id).await;
            let of_this = logged.iter().filter(|(action, ..)| action == "Completed");
            of_this.map(|(.., by)| by.unwrap()).collect::<Vec<_>>()
        };
        // All steps were done, and the next leader finds nothing to do.
        let id = created(&registry, &tenant("settled")).await.id;
        let workflow = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        registry.activate(id, &in_use(), &[], workflow.id).await.unwrap();
        for _ in 0..2 {
            registry.settle_workflow(id).await.unwrap();
            assert_eq!(completed(id).await, [workflow.id]);
        }
        // It finds other work.
        let id = created(&registry, &tenant("superseded")).await.id;
        let workflow = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        registry.activate(id, &in_use(), &[], workflow.id).await.unwrap();
        registry.begin_workflow(id, WorkflowKind::Update).await.unwrap();
        assert_eq!(completed(id).await, [workflow.id]);
        // The tenant is deleted before it is activated.
        let id = created(&registry, &tenant("deleted")).await.id;
        registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        registry.begin_workflow(id, WorkflowKind::Deprovision).await.unwrap();
        assert!(completed(id).await.is_empty());
    }
}
