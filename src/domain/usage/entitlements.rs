//! Entitlements: the limits, features, availability and modules that a plan grants, resolved for one tenant.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::{
    limit::{LimitValue, LimitWord},
    plan::TenantPlanSpec,
};

/// The limit on concurrent sessions of the tenant's login, enforced by PostgreSQL.
pub const CONNECTIONS: &str = "connections";

/// The limit on the size of the tenant's database, in bytes beyond those of an empty one.
pub const STORAGE_BYTES: &str = "storageBytes";

/// The limit on the temporary files of one session of the tenant's login, in bytes, enforced by PostgreSQL.
pub const TEMP_FILE_BYTES: &str = "tempFileBytes";

/// The limits of a plan that does not name them: without any, one login can use up the server for all. `unlimited` lifts
/// them. Half of PostgreSQL's default `max_connections`, and more than a large sort needs.
const DEFAULTS: [(&str, i64); 2] = [(CONNECTIONS, 50), (TEMP_FILE_BYTES, 1 << 30)];

/// What PostgreSQL enforces on the tenant's login; -1 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// The number of sessions.
    pub connections: i32,
    /// The temporary files of each session, in KiB.
    pub temp_file_kilobytes: i32,
}

/// The sessions that the reader login may have, which are not counted as the tenant's: never more than its login may have.
const READER_CONNECTIONS: i32 = 5;

/// The maximum number of sessions of the reader login of a tenant whose login may have so many; -1 for no limit.
pub fn reader_connections(connections: i32) -> i32 {
    if connections < 0 { READER_CONNECTIONS } else { connections.min(READER_CONNECTIONS) }
}

impl LoginLimits {
    /// The limits of the reader login beside a login with these.
    #[must_use]
    pub fn for_reader(self) -> Self {
        Self { connections: reader_connections(self.connections), ..self }
    }
}

/// A limit in force; none if unlimited.
pub type Maximum = Option<i64>;

/// Limits in force, by name.
pub type Limits = BTreeMap<String, Maximum>;

/// Usage by the name of the limit, in the limit's unit.
pub type Amounts = BTreeMap<String, i64>;

/// What a tenant's plan grants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlements {
    /// The plan's name.
    pub plan: String,
    /// The limits, by name. A limit that is not listed does not apply.
    #[serde(default)]
    pub limits: Limits,
    /// The features that the plan includes, sorted.
    #[serde(default)]
    pub features: Vec<String>,
    /// The promised availability, in percent.
    #[serde(default)]
    pub sla: Option<String>,
    /// The modules that the plan names; empty for those that are enabled by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
}

/// The plan leaves limits to the tenant's spec, which does not set them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.limits: TenantPlan {plan:?} leaves some limits to the tenant (custom): write a number, or unlimited, for {}",
    limits.join(", ")
)]
pub struct LimitNotSet {
    /// The plan.
    pub plan: String,
    /// The names of the limits.
    pub limits: Vec<String>,
}

/// Resolves a plan for a tenant. The `overrides` apply only to limits that the plan sets to `custom`.
///
/// # Errors
/// The limits that the plan leaves to the tenant, and the tenant does not set.
pub fn entitlements_of_plan(
    name: &str,
    plan: &TenantPlanSpec,
    overrides: &BTreeMap<String, LimitValue>,
) -> Result<Entitlements, LimitNotSet> {
    let number = |value: &LimitValue| match value {
        LimitValue::Number(number) => Some(Some(*number)),
        LimitValue::Quantity(quantity) => Some(Some(quantity.number())),
        LimitValue::Word(LimitWord::Unlimited) => Some(None),
        LimitValue::Word(LimitWord::Custom) => None,
    };
    let (mut limits, mut missing) = (Limits::new(), Vec::new());
    for (limit, value) in &plan.limits {
        match number(value).or_else(|| overrides.get(limit).and_then(number)) {
            Some(maximum) => drop(limits.insert(limit.clone(), maximum)),
            None => missing.push(limit.clone()),
        }
    }
    for (limit, maximum) in DEFAULTS {
        if !plan.limits.contains_key(limit) {
            limits.insert(limit.to_owned(), Some(maximum));
        }
    }
    if !missing.is_empty() {
        return Err(LimitNotSet { plan: name.to_owned(), limits: missing });
    }
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    Ok(Entitlements {
        plan: name.to_owned(),
        limits,
        features: sorted(&plan.features),
        sla: plan.sla.clone(),
        modules: sorted(&plan.modules),
    })
}

/// The tenant's own limits that have no effect, because its plan does not set them to `custom`.
pub fn without_effect<'a>(
    plan: &TenantPlanSpec,
    overrides: &'a BTreeMap<String, LimitValue>,
) -> Vec<&'a str> {
    let custom = LimitValue::Word(LimitWord::Custom);
    overrides.keys().filter(|limit| plan.limits.get(*limit) != Some(&custom)).map(String::as_str).collect()
}

impl Entitlements {
    /// The maximum number of sessions of the tenant's login, as PostgreSQL has it: -1 for no limit.
    pub fn connections(&self) -> i32 {
        self.limit_of_login(CONNECTIONS, 1)
    }

    /// The limits of the tenant's login.
    pub fn login_limits(&self) -> LoginLimits {
        LoginLimits {
            connections: self.connections(),
            temp_file_kilobytes: self.limit_of_login(TEMP_FILE_BYTES, 1024),
        }
    }

    fn limit_of_login(&self, limit: &str, unit: i64) -> i32 {
        let maximum = self.limits.get(limit).copied().flatten();
        maximum.map_or(-1, |maximum| i32::try_from(maximum.max(0) / unit).unwrap_or(i32::MAX))
    }

    /// The limits as the API and the Secret show them.
    pub fn limit_values(&self) -> BTreeMap<String, LimitValue> {
        let value = |maximum: &Maximum| match maximum {
            Some(number) => LimitValue::Number(*number),
            None => LimitValue::Word(LimitWord::Unlimited),
        };
        self.limits.iter().map(|(limit, maximum)| (limit.clone(), value(maximum))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_resolved_to_bytes() {
        let plan = plan(json!({"storageBytes": "custom", "tempFileBytes": "64Mi"}));
        let got = entitlements_of_plan("p", &plan, &overrides(json!({"storageBytes": "10Gi"}))).unwrap();
        assert_eq!(got.limits["storageBytes"], Some(10 << 30));
        assert_eq!(got.login_limits().temp_file_kilobytes, 64 << 10);
        assert_eq!(got.limit_values()["storageBytes"], LimitValue::Number(10 << 30));
    }

    fn plan(limits: serde_json::Value) -> TenantPlanSpec {
        serde_json::from_value(json!({"limits": limits, "features": ["sso", "scim", "sso"], "sla": "99.9"}))
            .unwrap()
    }

    fn overrides(limits: serde_json::Value) -> BTreeMap<String, LimitValue> {
        serde_json::from_value(limits).unwrap()
    }

    #[test]
    fn overrides_apply_to_custom_limits_only() {
        let plan =
            plan(json!({"users": 5, "projects": "unlimited", "storageBytes": "custom", "connections": 10}));
        let own = overrides(json!({"users": 500, "storageBytes": 7, "seats": 3}));
        let got = entitlements_of_plan("gold", &plan, &own).unwrap();
        let limits = [
            ("connections", Some(10)),
            ("projects", None),
            ("storageBytes", Some(7)),
            ("tempFileBytes", Some(1 << 30)),
            ("users", Some(5)),
        ];
        assert_eq!(got.limits, limits.map(|(name, maximum)| (name.to_owned(), maximum)).into());
        assert_eq!(
            (got.features, got.sla.as_deref()),
            (vec!["scim".to_owned(), "sso".to_owned()], Some("99.9"))
        );
        assert_eq!(without_effect(&plan, &own), ["seats", "users"]);
        assert_eq!(
            entitlements_of_plan("gold", &plan, &overrides(json!({"storageBytes": "unlimited"})))
                .unwrap()
                .limits["storageBytes"],
            None
        );
    }

    #[test]
    fn custom_limits_must_be_set() {
        let plan = plan(json!({"storageBytes": "custom", "seats": "custom", "users": 5}));
        for (own, missing) in [
            (json!({}), &["seats", "storageBytes"][..]),
            (json!({"storageBytes": "custom", "seats": 1}), &["storageBytes"]),
            (json!({"users": 1, "seats": "unlimited"}), &["storageBytes"]),
        ] {
            let error = entitlements_of_plan("gold", &plan, &overrides(own)).unwrap_err();
            assert_eq!(error.plan, "gold");
            assert_eq!(error.limits, missing);
        }
    }

    #[test]
    fn limits_of_login_fit_postgresql() {
        let of = |limits| {
            let limits = entitlements_of_plan("p", &plan(limits), &BTreeMap::new()).unwrap().login_limits();
            (limits.connections, limits.temp_file_kilobytes)
        };
        // A plan that does not name them has the defaults.
        assert_eq!(of(json!({})), (50, 1 << 20));
        assert_eq!(of(json!({"connections": "unlimited", "tempFileBytes": "unlimited"})), (-1, -1));
        assert_eq!(of(json!({"connections": 20, "tempFileBytes": 10_240})), (20, 10));
        let most = 9_007_199_254_740_991_i64;
        assert_eq!(of(json!({"connections": most, "tempFileBytes": most})), (i32::MAX, i32::MAX));
    }

    #[test]
    fn default_does_not_replace_a_limit_of_the_tenant() {
        let plan = plan(json!({"connections": "custom"}));
        let got = entitlements_of_plan("p", &plan, &overrides(json!({"connections": 7}))).unwrap();
        assert_eq!(got.connections(), 7);
        let error = entitlements_of_plan("p", &plan, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.limits, ["connections"]);
    }
}
