//! The API server and the domain agree about slugs.

use serde_json::json;
use tenantry::{
    api::tenant::Tenant,
    domain::slug::{RESERVED, Slug},
};

use super::{Objects, tenant, with};
use tenantry_test_support::shared_operator;

#[tokio::test]
async fn api_server_and_domain_accept_the_same_slugs() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-slug").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);

    let mut slugs: Vec<String> = RESERVED.iter().map(|slug| (*slug).to_owned()).collect();
    slugs.extend(RESERVED.iter().map(|slug| format!("{slug}-1")));
    let more = [
        "",
        "a",
        "ab",
        "abc",
        "a-b",
        "ab-",
        "-ab",
        "a--b",
        "a-b-c",
        "1ab",
        "a1b",
        "a12",
        "Abc",
        "aBc",
        "a_b",
        "a.b",
        "a b",
        "abc ",
        " abc",
        "abc\n",
        "a\u{0}c",
        "müller",
        "аbc",
        "acme",
        "acme-corp",
        "acme-corp-2",
        "x-1-y-2",
        "pg",
        "pg-",
        "pg-x",
        "tenantry-new-x",
        "template-0",
        "Postgres",
        "POSTGRES",
        "root",
        "admin",
    ];
    slugs.extend(more.map(str::to_owned));
    slugs.extend([3, 39, 40, 41, 63, 64, 200].map(|length| "a".repeat(length)));
    slugs.extend([40, 41].map(|length| "ü".repeat(length)));
    slugs.push(format!("{}-b", "a".repeat(38)));
    slugs.push(format!("{}-b", "a".repeat(39)));
    slugs.push("a-".repeat(20));

    let mut accepted = 0;
    for slug in &slugs {
        let outcome = tenants.try_create("acme", &with(&tenant(), &json!({"slug": slug}))).await;
        assert_eq!(outcome.is_ok(), Slug::parse(slug).is_ok(), "{slug:?}: {outcome:?}");
        if let Err(causes) = &outcome {
            assert!(causes.iter().all(|cause| cause.field == "spec.slug"), "{slug:?}: {causes:?}");
        }
        accepted += usize::from(outcome.is_ok());
    }
    assert!(accepted > 10 && accepted < slugs.len() - 10, "{accepted} of {} accepted", slugs.len());
}
