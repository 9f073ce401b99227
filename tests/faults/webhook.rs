//! The admission webhook: what it records and refuses, and that nothing depends on it.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use serde_json::{Value, json};
use tenantry::api::{
    ANNOTATION_CHANGES, conditions::REGISTERED, plan::TenantPlan, tenant::Tenant,
    tenant_module::TenantModule, tenant_status::Access,
};
use tenantry_dev::{
    Environment, EnvironmentOptions, InstalledWebhook, Stop, installation::CUSTOMERS, webhook::configuration,
};
use tenantry_test_support::{
    Fleet, Options, Wait, World, objects,
    users::{activity, actors},
};

/// The `Warning` headers of the answer to a hold for this tenant, as a dry run.
async fn warnings(fleet: &Fleet, tenant: &str) -> Vec<String> {
    let url = format!("{}?dryRun=All", fleet.holds.resource_url());
    let hold = objects::hold("warned", tenant, json!({})).to_string();
    let request = http::Request::post(url).header("content-type", "application/json");
    let answer = fleet.client.send(request.body(Body::from(hold.into_bytes())).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 201);
    let headers = answer.headers().get_all("warning").iter();
    headers.map(|header| header.to_str().unwrap().to_owned()).collect()
}

/// Waits until the API server asks the webhook.
async fn in_force(fleet: &Fleet) {
    let wait = fleet.until("the API server asks the webhook");
    wait.is_true(async || !warnings(fleet, "absent").await.is_empty()).await;
}

async fn with_webhook(name: &'static str, arguments: &[&str]) -> World {
    let options = Options {
        own_plane: true,
        webhook: InstalledWebhook::Checks,
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        ..Options::default()
    };
    let world = World::with(name, options).await;
    in_force(&world.fleet).await;
    world
}

async fn recorded_deletions(world: &World) -> i64 {
    let mut session = world.superuser("tenantry_system").await;
    sqlx::query_scalar("SELECT count(*) FROM deletion_actors").fetch_one(&mut session).await.unwrap()
}

fn status_of(refused: kube::Result<Tenant>) -> (u16, String, String) {
    match refused {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn webhook_names_who_deletes_and_refuses_a_slug_that_is_taken() {
    let world = with_webhook("webhook", &[]).await;
    let (fleet, plane) = (&world.fleet, world.plane());
    let by = async |user: &str| fleet.by(plane, user).await;
    world.apply("hooked", json!({})).await;
    fleet.ready("hooked").await;

    // A hold for a tenant that does not exist is a warning; it is admitted.
    assert_eq!(warnings(fleet, "hooked").await, [""; 0]);
    let warned = warnings(fleet, "absent").await;
    assert!(warned[0].contains("there is no Tenant"), "{warned:?}");

    // A slug that is taken.
    let other = json!({"server": world.name, "slug": "hooked"});
    let (code, reason, message) = status_of(fleet.try_apply("second", other).await);
    assert_eq!((code, reason.as_str()), (409, "AlreadyExists"), "{message}");
    assert!(message.contains("is taken by Tenant webhook/hooked"), "{message}");
    // Its own is not.
    world.apply("hooked", json!({"displayName": "Changed"})).await;

    // Who deletes a hold.
    fleet.apply_hold("billing", "hooked", json!({})).await;
    fleet.hold_reason("billing", "Verified").await;
    by("carol").await.delete_hold("billing").await;
    fleet.access("hooked", Access::ReadWrite).await;

    // Who deletes a tenant: not who only tried, nor who deletes it again.
    let before = recorded_deletions(&world).await;
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    by("eve").await.tenants.delete("hooked", &dry_run).await.unwrap();
    assert_eq!(recorded_deletions(&world).await, before);
    by("bob").await.tenants.delete("hooked", &DeleteParams::default()).await.unwrap();
    by("mallory").await.tenants.delete("hooked", &DeleteParams::default()).await.unwrap();
    world.until_status("hooked", "deprovisioning").await;
    let mut registry = world.superuser("tenantry_system").await;
    let log = activity(&mut registry, "hooked").await;
    let found = actors(&log, &["HoldLifted", "DeprovisioningBegun"]);
    let expected = [("HoldLifted", "carol"), ("DeprovisioningBegun", "bob")];
    assert_eq!(found, expected.map(|(action, actor)| (action.to_owned(), actor.to_owned())), "{log:#?}");
    // The tombstone has the slug.
    let other = json!({"server": world.name, "slug": "hooked"});
    let (_, _, message) = status_of(fleet.try_apply("second", other).await);
    assert!(message.contains("which is being deprovisioned"), "{message}");
}

#[tokio::test]
async fn receipt_names_who_deleted_and_the_registry_may_be_down() {
    let world = with_webhook("webhook-receipt", &[]).await;
    let (fleet, plane) = (&world.fleet, world.plane());
    world.apply("receipt", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    let tenant = fleet.ready("receipt").await;
    fleet.by(plane, "bob").await.tenants.delete("receipt", &DeleteParams::default()).await.unwrap();
    fleet.deleted("receipt", &tenant).await;
    let by: String = sqlx::query_scalar("SELECT requested_by FROM deletion_receipts WHERE slug = 'receipt'")
        .fetch_one(&mut world.superuser("tenantry_system").await)
        .await
        .unwrap();
    assert_eq!(by, "bob");

    // The registry is down: a request waits for no longer than the webhook does, and goes on.
    world.apply("unreached", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    let tenant = fleet.ready("unreached").await;
    world.installation.postgres().stop(Stop::Immediate).await.unwrap();
    let started = Instant::now();
    let other = json!({"server": world.name, "slug": "unreached"});
    fleet.try_apply("second", other).await.unwrap();
    fleet.by(plane, "bob").await.tenants.delete("unreached", &DeleteParams::default()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    world.installation.postgres().start_again().await.unwrap();
    fleet.deleted("unreached", &tenant).await;
    let log = activity(&mut world.superuser("tenantry_system").await, "unreached").await;
    let begun = actors(&log, &["DeprovisioningBegun"]);
    assert_eq!(begun[0].1, "unknown (webhook not reached)", "{log:#?}");
    // The slug was its own until then.
    fleet.ready("second").await;
}

fn stamp(tenant: &Tenant) -> &str {
    let annotations = tenant.metadata.annotations.as_ref();
    annotations.and_then(|found| found.get(ANNOTATION_CHANGES)).map_or("", String::as_str)
}

/// As on Kubernetes before 1.36: no MutatingAdmissionPolicy, and the policy that refuses a forged annotation.
#[tokio::test]
async fn users_are_named_without_policies_and_nothing_depends_on_the_webhook() {
    let tenantry = env!("CARGO_BIN_EXE_tenantry").into();
    let mut options = EnvironmentOptions { tenantry, ..EnvironmentOptions::default() };
    options.installation.records_users = true;
    options.installation.webhook = InstalledWebhook::Stamps;
    let environment = Environment::start(options).await.unwrap();
    let plane = environment.control_plane();
    let client = plane.client().await.unwrap();
    let fleet = Fleet::of(client.clone(), CUSTOMERS, environment.operator().log());
    let by = async |user: &str| fleet.by(plane, user).await;
    in_force(&fleet).await;
    let wait = fleet.until("users are named");
    wait.is_true(async || {
        let tenant = serde_json::from_value::<Tenant>(objects::tenant("dry", json!({}))).unwrap();
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        !stamp(&fleet.tenants.create(&dry_run, &tenant).await.unwrap()).is_empty()
    })
    .await;

    let created = by("alice").await.apply("stamped", json!({})).await;
    assert_eq!(stamp(&created), "1 * alice");
    fleet.ready("stamped").await;
    let merge = PatchParams::default();
    let patch = async |user: &str, patch: Value| {
        by(user).await.tenants.patch("stamped", &merge, &Patch::Merge(patch)).await
    };
    let suspended = json!({"spec": {"state": "Suspended", "stateReason": "unpaid"}});
    let changed = patch("bob", suspended).await.unwrap();
    assert_eq!(stamp(&changed), "2 state,stateReason bob\n1 * alice");
    let status = fleet.access("stamped", Access::Blocked).await.status.unwrap();
    assert_eq!(status.state_updated_by.as_deref(), Some("bob"));
    // A forged one is refused, or overwritten with a change; a removed one stays.
    let forged = |text: &str| json!({"metadata": {"annotations": {ANNOTATION_CHANGES: text}}});
    let refused = patch("mallory", forged("2 * root")).await.unwrap_err().to_string();
    assert!(refused.contains("leave it out"), "{refused}");
    let removed = json!({"metadata": {"annotations": {ANNOTATION_CHANGES: null}}});
    assert_eq!(stamp(&patch("mallory", removed).await.unwrap()), stamp(&changed));
    let both = json!({"metadata": forged("9 * root")["metadata"], "spec": {"displayName": "Both"}});
    let last = patch("mallory", both).await.unwrap();
    assert_eq!(stamp(&last), "3 displayName mallory\n2 state,stateReason bob\n1 * alice");

    // A limit that nothing enforces, once it is known what the modules meter.
    let modules = Api::<TenantModule>::all(client.clone());
    let wait = fleet.until("the limits of the modules are known");
    wait.observe(async || {
        let all = modules.list(&Default::default()).await.unwrap().items;
        let known = all.iter().filter(|module| {
            module.status.as_ref().is_some_and(|status| status.limits.is_some() && status.version.is_some())
        });
        if all.len() >= 3 && known.count() == all.len() { Ok(()) } else { Err(all) }
    })
    .await;
    let plans = Api::<TenantPlan>::all(client.clone());
    let plan = |limits: Value, more: Value| -> TenantPlan {
        let mut spec = json!({"limits": limits});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(objects::plan("misspelt", spec)).unwrap()
    };
    let refused = plans.create(&PostParams::default(), &plan(json!({"usres": 5}), json!({}))).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("usres (do you mean users?)") && refused.contains("meter"), "{refused}");
    let published = plan(json!({"usres": 5}), json!({"published": ["usres"]}));
    plans.create(&PostParams::default(), &published).await.unwrap();

    // It is down: bad specs are refused, every other change is made, and slugs stay unique.
    environment.operator().stop().await.unwrap();
    let bad = fleet.try_apply("bad", json!({"slug": "Not A Slug"})).await.unwrap_err().to_string();
    assert!(bad.contains("spec.slug"), "{bad}");
    let unstamped = by("carol").await.apply("stamped", json!({"displayName": "Down"})).await;
    assert_eq!(stamp(&unstamped), stamp(&last));
    let mut replaced = unstamped;
    replaced.metadata.annotations = None;
    replaced.spec.display_name = "Replaced".into();
    fleet.tenants.replace("stamped", &PostParams::default(), &replaced).await.unwrap();
    fleet.apply("second", json!({"slug": "stamped"})).await;
    fleet.apply("leaving", json!({})).await;
    environment.operator().start().await.unwrap();
    fleet.reason("second", REGISTERED, "SlugTaken").await;
    let leaving = fleet.ready("leaving").await;
    environment.operator().stop().await.unwrap();
    fleet.tenants.delete("leaving", &DeleteParams::default()).await.unwrap();
    environment.operator().start().await.unwrap();
    fleet.deleted("leaving", &leaving).await;
    let mut registry = environment.postgres().connect("tenantry_system").await.unwrap();
    let begun = actors(&activity(&mut registry, "leaving").await, &["DeprovisioningBegun"]);
    assert_eq!(begun[0].1, "unknown (webhook not reached)");
}

#[tokio::test]
async fn certificate_is_renewed_and_its_authority_put_back_while_requests_run() {
    let world = with_webhook("webhook-renewed", &["--test-webhook-lifetime=12"]).await;
    let fleet = &world.fleet;
    let own = format!("{}-system", world.name);
    let secrets = Api::<Secret>::namespaced(fleet.client.clone(), &own);
    let served =
        async |key: &str| secrets.get("tenantry-webhook").await.unwrap().data.unwrap()[key].0.clone();
    let (done, asked, missed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let requests = async {
        while !done.load(Ordering::Relaxed) {
            asked.fetch_add(1, Ordering::Relaxed);
            // Not answered in time on a busy machine: then the next one is.
            if warnings(fleet, "absent").await.is_empty() && warnings(fleet, "absent").await.is_empty() {
                missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let renewals = async {
        let authority = served("ca.crt").await;
        let mut last = served("tls.crt").await;
        for _ in 0..3 {
            let wait = fleet.until("another certificate");
            last = wait
                .observe(async || {
                    let found = served("tls.crt").await;
                    if found == last { Err(()) } else { Ok(found) }
                })
                .await;
        }
        assert_eq!(served("ca.crt").await, authority);
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(requests, renewals);
    assert_eq!(missed.load(Ordering::Relaxed), 0, "of {}", asked.load(Ordering::Relaxed));

    // A second replica agrees with the first, and both serve the same.
    let replica = world.installation.replica(|_| ()).unwrap();
    replica.start_standby().await.unwrap();
    let log = replica.log();
    let wait = Wait::until("the replica serves the webhook").log(&log);
    wait.is_true(async || std::fs::read_to_string(&log).unwrap().contains("serving the admission webhook"))
        .await;

    // A client takes the authority and the path away.
    let configurations = Api::<ValidatingWebhookConfiguration>::all(fleet.client.clone());
    let name = configuration(&own);
    let complete = configurations.get(&name).await.unwrap();
    let mut reset = complete.clone();
    for hook in reset.webhooks.iter_mut().flatten() {
        hook.client_config.ca_bundle = None;
        let url = hook.client_config.url.clone().unwrap();
        let (origin, _) = url.split_at(url.rfind("/").unwrap());
        hook.client_config.url = Some(origin.rsplit_once('/').unwrap().0.to_owned());
    }
    let reset = Patch::Merge(json!({"webhooks": reset.webhooks}));
    configurations.patch(&name, &PatchParams::default(), &reset).await.unwrap();
    let wait = fleet.until("the authority is put back");
    wait.is_true(async || configurations.get(&name).await.unwrap().webhooks == complete.webhooks).await;

    // The Secret is deleted: another authority takes its place.
    let authority = served("ca.crt").await;
    secrets.delete("tenantry-webhook", &DeleteParams::default()).await.unwrap();
    let wait = fleet.until("there is another Secret");
    wait.is_true(async || {
        let found = secrets.get_opt("tenantry-webhook").await.unwrap();
        found.and_then(|secret| secret.data).is_some_and(|data| data["ca.crt"].0 != authority)
    })
    .await;
    in_force(fleet).await;
}

/// A client that does not know the word in the path is not the API server.
#[tokio::test]
async fn only_the_api_server_is_answered() {
    let world = with_webhook("webhook-word", &[]).await;
    let configurations = Api::<ValidatingWebhookConfiguration>::all(world.fleet.client.clone());
    let name = configuration("webhook-word-system");
    let found = configurations.get(&name).await.unwrap();
    let url = found.webhooks.unwrap()[0].client_config.url.clone().unwrap();
    let (question, word) = url.rsplit_once('/').unwrap();
    assert!(question.ends_with("/deletions") && word.len() == 32, "{url}");
    // A configuration with another word: its requests are not answered, and the API server goes on.
    let mut other = serde_json::to_value(configurations.get(&name).await.unwrap()).unwrap();
    other["metadata"] = json!({"name": "impostor"});
    for hook in other["webhooks"].as_array_mut().unwrap() {
        let url = hook["clientConfig"]["url"].as_str().unwrap().replace(word, &"0".repeat(32));
        hook["clientConfig"]["url"] = json!(url);
        hook["failurePolicy"] = json!("Fail");
    }
    let other: ValidatingWebhookConfiguration = serde_json::from_value(other).unwrap();
    configurations.create(&PostParams::default(), &other).await.unwrap();
    let tenant: Tenant = serde_json::from_value(objects::tenant("word", json!({}))).unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let wait = world.fleet.until("the impostor is not answered");
    wait.observe(async || match world.fleet.tenants.create(&dry_run, &tenant).await {
        Err(error) if error.to_string().contains("failed calling webhook") => Ok(()),
        other => Err(other),
    })
    .await;
    configurations.delete("impostor", &DeleteParams::default()).await.unwrap();
}
