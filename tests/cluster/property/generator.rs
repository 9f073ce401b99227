//! Random objects from the schema of a CRD: mostly plausible values, and among them those at the edge of what a schema allows
//! and beyond it.

use kube::ResourceExt;
use rand::{Rng, RngExt, seq::IndexedRandom};
use serde_json::{Map, Value, json};
use tenantry::api;

/// How likely an optional field is set.
const OPTIONAL: f64 = 0.12;

const TIMES: [&str; 14] = [
    "2026-12-31T00:00:00Z",
    "2020-01-01T00:00:00Z",
    "2099-06-30T12:00:00.123456789+05:30",
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "9998-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2030-01-01T00:00:00-23:59",
    "2030-01-01T00:00:00.1234567890123Z",
    "2030-01-01t00:00:00z",
    "2030-02-30T00:00:00Z",
    "2030-01-01T23:59:60Z",
];

const TEXTS: [&str; 16] = [
    "a",
    "acme",
    "starter",
    "default",
    "core",
    "sso",
    "users",
    "storageBytes",
    "99.9",
    "ada@acme.example",
    "127.0.0.1",
    "Ünïcödé 名前",
    "",
    " ",
    "a\u{0}b",
    "line\nbreak",
];

const INTEGERS: [i64; 12] =
    [0, 1, -1, 3, 60, 65535, 65536, 3650, 315_360_000, 9_007_199_254_740_991, i64::MAX, i64::MIN];

const LIMITS: [&str; 9] =
    ["unlimited", "custom", "10Gi", "1k", "8191Ti", "8192Ti", "9999999999999999T", "1.5Gi", "0Ki"];

/// Generates objects of one kind.
pub struct Generator {
    kind: String,
    schema: Value,
    base: Value,
    fixed: Vec<String>,
}

impl Generator {
    /// Of a kind, around a spec that is valid.
    pub fn new(kind: &str, base: Value) -> Self {
        let crd = api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let version = crd.spec.versions.first().unwrap_or_else(|| panic!("{} has a version", crd.name_any()));
        let schema = serde_json::to_value(version.schema.as_ref().unwrap()).unwrap();
        let schema = schema["openAPIV3Schema"]["properties"]["spec"].clone();
        Self { kind: kind.to_owned(), schema, base, fixed: Vec::new() }
    }

    /// These fields keep the value of the base.
    pub fn fixed(mut self, fields: &[&str]) -> Self {
        self.fixed = fields.iter().map(|field| (*field).to_owned()).collect();
        self
    }

    /// An object. Few fields differ from the base, so that many objects are accepted.
    pub fn object(&self, name: &str, random: &mut impl Rng) -> Value {
        let mut spec = self.base.as_object().unwrap().clone();
        for (field, schema) in self.schema["properties"].as_object().unwrap() {
            if !self.fixed.contains(field) && random.random_bool(OPTIONAL / 2.0) {
                spec.insert(field.clone(), value(schema, random));
            }
        }
        json!({"apiVersion": api::API_VERSION, "kind": self.kind, "metadata": {"name": name}, "spec": spec})
    }
}

fn value(schema: &Value, random: &mut impl Rng) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words.choose(random).cloned().unwrap_or_default();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return if random.random_bool(0.5) { integer(random) } else { json!(LIMITS.choose(random)) };
    }
    match schema["type"].as_str() {
        Some("string") if schema["format"] == "date-time" => json!(TIMES.choose(random)),
        Some("string") => text(schema, random),
        Some("integer") => integer(random),
        Some("boolean") => json!(random.random_bool(0.5)),
        Some("array") => {
            let count = random.random_range(0..4);
            (0..count).map(|_| value(&schema["items"], random)).collect()
        }
        Some("object") if schema["properties"].is_object() => properties(schema, random),
        Some("object") if schema["additionalProperties"].is_object() => {
            let count = random.random_range(0..4);
            let entry = |_| {
                let key = (*["users", "storageBytes", "connections", "seats", "theme", "a.b", ""]
                    .choose(random)
                    .unwrap())
                .to_owned();
                let entry = value(&schema["additionalProperties"], random);
                (key, entry)
            };
            (0..count).map(entry).collect::<Map<_, _>>().into()
        }
        _ => free_form(random),
    }
}

fn properties(schema: &Value, random: &mut impl Rng) -> Value {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut object = Map::new();
    for (field, schema) in schema["properties"].as_object().unwrap() {
        if required.contains(&json!(field)) || random.random_bool(0.5) {
            object.insert(field.clone(), value(schema, random));
        }
    }
    object.into()
}

fn text(schema: &Value, random: &mut impl Rng) -> Value {
    let maximum = schema["maxLength"].as_u64().unwrap_or(300);
    match random.random_range(0..10) {
        0 => json!("x".repeat(usize::try_from(maximum).unwrap())),
        1 => json!("ü".repeat(usize::try_from(maximum).unwrap())),
        2 => {
            let count = random.random_range(0..20);
            let all: String = (0..count).map(|_| random.random::<char>()).collect();
            json!(all)
        }
        _ => json!(TEXTS.choose(random)),
    }
}

fn integer(random: &mut impl Rng) -> Value {
    if random.random_bool(0.5) { json!(random.random_range(0..100)) } else { json!(INTEGERS.choose(random)) }
}

/// Any JSON, nested now and then deeper than a parser follows.
fn free_form(random: &mut impl Rng) -> Value {
    let leaf = match random.random_range(0..7) {
        0 => json!(TEXTS.choose(random)),
        1 => integer(random),
        2 => json!(1e300),
        3 => json!(0.1),
        4 => json!({"a": null}),
        5 => json!([]),
        _ => json!(true),
    };
    let depth = *[0, 0, 0, 1, 2, 5, 100, 125, 126, 300].choose(random).unwrap();
    let in_list = random.random_bool(0.5);
    (0..depth).fold(leaf, |inner, _| if in_list { json!([inner]) } else { json!({"a": inner}) })
}
