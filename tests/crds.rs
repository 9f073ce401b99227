//! The CRDs in `crds/` are those of `src/api`, and follow the rules of all our schemas.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tenantry::api;

#[test]
fn crds_in_repository_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let wanted = api::crd_files();
    if std::env::var_os("UPDATE").is_some() {
        for (name, yaml) in &wanted {
            fs::write(folder.join(name), yaml).unwrap();
        }
    }
    for (name, yaml) in &wanted {
        let there = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(there == *yaml, "crds/{name} is stale: run `cargo run -- crds --write crds`");
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            wanted.iter().any(|(wanted, _)| *wanted == name),
            "crds/{name} belongs to no kind: remove it"
        );
    }
}

/// `tenantry crds | head -1`.
#[test]
fn reader_that_closes_the_pipe_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let mut crds = command.arg("crds").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(crds.stdout.take());
    let ended = crds.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn stream_contains_every_crd() {
    let stream = api::crds_yaml();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&stream).unwrap();
    let wanted: Vec<Value> = api::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    assert_eq!(wanted.len(), 7);
    assert_eq!(documents, wanted);
}

/// Calls `check` with every schema below `schema`, itself included, and its path.
fn walk(schema: &Value, path: &str, check: &mut impl FnMut(&str, &Value)) {
    check(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), check);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), check);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), check);
    }
}

/// The kinds and their schemas.
fn schemas() -> Vec<(String, Value)> {
    let schema = |crd| {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        (kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
    };
    let schemas: Vec<(String, Value)> = api::crds().into_iter().map(schema).collect();
    assert!(schemas.iter().all(|(_, schema)| schema["properties"]["spec"].is_object()));
    schemas
}

fn each_schema(mut check: impl FnMut(&str, &Value)) {
    for (kind, schema) in schemas() {
        walk(&schema, &kind, &mut check);
    }
}

#[test]
fn every_spec_field_has_a_maximum() {
    let mut unlimited = vec![];
    each_schema(|path, schema| {
        let limited = match schema["type"].as_str() {
            // A format is no limit: the API server accepts a time with any number of fraction digits.
            Some("string") => schema["maxLength"].is_u64() || schema["enum"].is_array(),
            Some("array") => schema["maxItems"].is_u64(),
            Some("object") => schema["additionalProperties"].is_null() || schema["maxProperties"].is_u64(),
            None if schema["x-kubernetes-int-or-string"] == true => schema["maxLength"].is_u64(),
            _ => true,
        };
        if path.contains(".spec") && !limited {
            unlimited.push(path.to_owned());
        }
    });
    assert_eq!(unlimited, [""; 0]);
}

#[test]
fn nothing_is_nullable_and_only_status_has_a_default() {
    each_schema(|path, schema| {
        assert!(schema["nullable"].is_null(), "{path} is nullable");
        let words = schema["enum"].as_array();
        assert!(words.is_none_or(|words| words.iter().all(Value::is_string)), "{path}: {words:?}");
        let is_status = path.ends_with(".status") && path.matches('.').count() == 1;
        // A plan without tenants is not reconciled: a client that waits for an observed generation would wait for ever.
        let reconciled = !path.starts_with("TenantPlan");
        let wanted = if is_status && reconciled { json!({"observedGeneration": -1}) } else { Value::Null };
        assert_eq!(schema["default"], wanted, "{path}");
    });
}

#[test]
fn numbers_are_signed() {
    each_schema(|path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(
                ["int32", "int64", "date-time"].contains(&format),
                "{path}: {format} makes the API server warn"
            );
        }
    });
}

#[test]
fn every_field_is_described() {
    each_schema(|path, schema| {
        // The elements of lists and maps are described by the list or the map.
        let is_element = path.ends_with("[]") || path.ends_with("{}");
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(
            is_element || description.ends_with('.'),
            "{path} has no description that ends: {description:?}"
        );
        for word in ["Auto-generated", "wrapper around", "TODO"] {
            assert!(!description.contains(word), "{path}: {description}");
        }
    });
}

#[test]
fn every_rule_has_a_message_and_only_name_is_at_the_root() {
    let mut rules = 0;
    each_schema(|path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            let text = rule["rule"].as_str().unwrap();
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.len() > 20 && message.len() < 400, "{path}: {text}: {message:?}");
            // The error and, after a colon or a condition, the remedy.
            assert!(
                message.contains("must") || message.contains(':'),
                "{path}: {message:?} does not say what is right"
            );
            if !path.contains('.') {
                // A name never changes: an object with a valid one keeps it.
                let others = text.replace("self.metadata.name", "");
                assert!(!others.contains("self."), "{path}: {text}: a rule at the root blocks finalizers");
            }
            // The API server does not ratchet a spec with free-form parts.
            if path == "Tenant.spec" {
                assert!(text.contains("oldSelf"), "{path}: {text} blocks finalizers: use rule_on_spec");
            }
        }
    });
    assert!(rules > 40, "only {rules} rules were found");
}
