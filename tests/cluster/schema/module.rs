//! The schema of TenantModule.

use kube::CustomResourceExt;
use serde_json::{Value, json};
use tenantry::api::tenant_module::TenantModule;
use tenantry_test_support::shared_operator;

use super::{Objects, assert_accepted, assert_refused, with};

fn module() -> Value {
    json!({"source": {"configMaps": [{"name": "billing-1"}]}})
}

#[tokio::test]
async fn wrong_modules_are_refused_with_a_remedy() {
    let client = shared_operator::client().await;
    assert_eq!(TenantModule::crd().spec.names.short_names, Some(vec!["tmod".to_owned()]));
    let modules = Objects::cluster::<TenantModule>(&client);
    let maps = |count: usize| -> Value { (0..count).map(|n| json!({"name": format!("m{n}")})).collect() };
    let one_source = "exactly one of configMaps, directory, image, job and external";
    for (changes, field, words) in [
        (json!({"source": {}}), "spec.source", one_source),
        (json!({"source": null}), "spec.source", "Required value"),
        (json!({"source": {"directory": "/m", "configMaps": [{"name": "a"}]}}), "spec.source", one_source),
        (json!({"source": {"configMaps": []}}), "spec.source.configMaps", "should have at least 1 items"),
        (json!({"source": {"configMaps": maps(51)}}), "spec.source.configMaps", "must have at most 50 items"),
        (
            json!({"source": {"configMaps": [{"name": "A"}]}}),
            "spec.source.configMaps[0].name",
            "must be the name of a ConfigMap",
        ),
        (
            json!({"source": {"configMaps": [{"name": "a"}, {"name": "a"}]}}),
            "spec.source.configMaps[1]",
            "Duplicate value",
        ),
        (json!({"source": {"directory": "modules"}}), "spec.source.directory", "an absolute path without .."),
        (json!({"source": {"directory": "/a/../b"}}), "spec.source.directory", "an absolute path without .."),
        (json!({"source": {"image": {}}}), "spec.source.image.reference", "Required value"),
        (
            json!({"source": {"image": {"reference": "https://registry.example/app:v1"}}}),
            "spec.source.image.reference",
            "without https://",
        ),
        (
            json!({"source": {"image": {"reference": "registry.example/app:v1", "path": "migrations"}}}),
            "spec.source.image.path",
            "an absolute path without ..",
        ),
        (json!({"source": {"job": {}}, "version": "1"}), "spec.source.job.image", "Required value"),
        (json!({"source": {"job": {"image": "shop:1"}}}), "spec", "version is required with source.job"),
        (
            json!({"source": {"external": {}}}),
            "spec",
            "version is required with source.job and source.external",
        ),
        (json!({"source": {"external": {}}, "version": "two words"}), "spec", "without spaces"),
        (
            json!({"version": "1", "source": {"job": {"image": "shop:1", "env": [
                {"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}}}),
            "spec.source.job.env[0]",
            "must have value or valueFrom, not both",
        ),
        (
            json!({"version": "1", "source": {"job": {"image": "shop:1", "env": [{"name": "A", "valueFrom": {}}]}}}),
            "spec.source.job.env[0].valueFrom",
            "exactly one of secretKeyRef and configMapKeyRef",
        ),
        (
            json!({"version": "1", "source": {"job": {"image": "shop:1", "resources": {"limits": {"memory": "much"}}}}}),
            "spec.source.job.resources.limits.memory",
            "should match",
        ),
        (json!({"version": "newest"}), "spec", "the number of a file, in quotes"),
        (json!({"version": "v1"}), "spec", "the number of a file, in quotes"),
        (json!({"version": 7}), "spec.version", "must be of type string"),
        (json!({"schema": "My Schema"}), "spec.schema", "schema must be a name of a-z, 0-9 and '_'"),
        (json!({"schema": "pg_mine"}), "spec.schema", "these are Tenantry's and PostgreSQL's"),
        (json!({"schema": "tenantry"}), "spec.schema", "these are Tenantry's and PostgreSQL's"),
        (json!({"dependsOn": ["Core"]}), "spec.dependsOn", "dependsOn must have names of TenantModules"),
        (json!({"dependsOn": ["core", "core"]}), "spec.dependsOn[1]", "Duplicate value"),
        (json!({"extensions": [{"name": "a b"}]}), "spec.extensions[0].name", "must be a name of letters"),
        (
            json!({"extensions": [{"name": "citext", "schema": "tenantry"}]}),
            "spec.extensions[0].schema",
            "extensions.schema must be a name",
        ),
        (
            json!({"dependsOn": ["core"], "minimumVersions": {"core": "2.1"}}),
            "spec.minimumVersions[core]",
            "must be the number of a file",
        ),
        (json!({"minimumVersions": {"core": "2"}}), "spec", "add it to dependsOn"),
        (
            json!({"source": {"builtIn": {}}, "schema": "app"}),
            "spec",
            "leave all fields but source and default out",
        ),
    ] {
        let spec = with(&module(), &changes);
        assert_refused(&changes, modules.try_create("billing", &spec).await, field, words);
    }
    for changes in [
        json!({}),
        json!({"source": {"directory": "/modules/billing"}}),
        json!({"source": {"builtIn": {}}, "default": false}),
        json!({"source": {"image": {"reference": "registry.example:5000/app/migrations:v1@sha256:0f", "path": "/m",
            "pullSecretRef": {"name": "regcred"}, "plainHttp": true}}}),
        json!({"version": ""}),
        json!({"source": {"external": {}}, "version": "2026.11.3"}),
        json!({"version": "2026.11.3", "source": {"job": {
            "image": "registry.example/shop:3", "command": ["python", "manage.py", "migrate"], "args": ["--no-input"],
            "env": [{"name": "A", "value": "$(PGHOST)"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
            "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "1.5Gi"}},
            "imagePullSecrets": [{"name": "regcred"}], "serviceAccountName": "shop", "activeDeadlineSeconds": 600,
        }}}),
        json!({
            "version": "12", "schema": "billing", "default": true, "dependsOn": ["core"], "minimumVersions": {"core": "2"}, "allowDestructive": true,
            "extensions": [{"name": "uuid-ossp"}, {"name": "vector", "version": "0.8.0", "schema": "public"}],
        }),
    ] {
        let spec = with(&module(), &changes);
        assert_accepted(&changes, modules.try_create("billing", &spec).await);
    }
    let long = modules.try_create(&"m".repeat(64), &module()).await;
    assert_refused(&json!("name"), long, "<nil>", "at most 63 characters");
}
