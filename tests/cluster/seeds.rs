//! A seed that fails blocks nothing else.

use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::{ACCESS_ENFORCED, SEEDED, find_condition},
    tenant::Tenant,
    tenant_status::Access,
};
use tenantry_test_support::{Fleet, shared_operator::superuser};

#[tokio::test]
async fn function_that_always_raises_delays_no_suspension_and_no_resumption() {
    let fleet = Fleet::new("seeds").await;
    let admins = json!([{"email": "ada@seeds.example"}]);
    fleet.apply("seeds", json!({"admins": admins})).await;
    fleet.ready("seeds").await;
    let raising = "CREATE OR REPLACE FUNCTION public.identity_seed_admin(admin jsonb) RETURNS boolean
        LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$";
    superuser("tenant_seeds").await.execute(raising).await.unwrap();

    let suspended = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "Blocked"}});
    for (access, changes) in [(Access::Blocked, suspended), (Access::ReadWrite, json!({"state": "Active"}))] {
        let mut spec = changes;
        spec["admins"] = admins.clone();
        // Another seed than the last one.
        spec["settings"] = json!({"access": access.as_str()});
        fleet.apply("seeds", spec).await;
        let tenant = fleet
            .wait("seeds", access.as_str(), move |tenant: Option<&Tenant>| {
                let Some(tenant) = tenant else { return false };
                let Some(status) = &tenant.status else { return false };
                let is = |type_, wanted| {
                    find_condition(&status.conditions, type_).is_some_and(|found| found.status == wanted)
                };
                status.observed_generation == tenant.metadata.generation
                    && status.access == Some(access)
                    && is(SEEDED, "False")
                    && is(ACCESS_ENFORCED, "True")
            })
            .await;
        match access {
            Access::Blocked => assert!(fleet.login("seeds").await.is_err()),
            // This status may show a workflow in which the login gets LOGIN only now.
            _ => fleet.until("it can log in").is_true(async || fleet.login("seeds").await.is_ok()).await,
        }
        let conditions = tenant.status.unwrap().conditions;
        let message = &find_condition(&conditions, SEEDED).unwrap().message;
        let named = "function public.identity_seed_admin of module identity: no room";
        assert!(message.contains(named), "{message}");
    }
}
