//! Names of limits: which a plan sets although nothing enforces them, and what was probably meant.

use super::entitlements::{CONNECTIONS, STORAGE_BYTES, TEMP_FILE_BYTES};
use crate::api::plan::TenantPlanSpec;

/// The limits that PostgreSQL and the sampler enforce.
const ENFORCED: [&str; 3] = [CONNECTIONS, STORAGE_BYTES, TEMP_FILE_BYTES];

/// A limit of the shipped plans that the application or a gateway enforces: it need not be listed as published.
const API_CALLS: &str = "apiCallsPer15Minutes";

/// A name of a limit in a plan that is probably misspelt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLimit {
    /// Its name.
    pub name: String,
    /// The known name that is nearest to it, if one is near.
    pub nearest: Option<String>,
}

/// The limits of a plan that no module meters (`metered`), Tenantry does not enforce, and the plan does not list as
/// published.
pub fn unknown_limits(plan: &TenantPlanSpec, metered: &[String]) -> Vec<UnknownLimit> {
    let metered = metered.iter().chain(&plan.published).map(String::as_str);
    let known: Vec<&str> = ENFORCED.into_iter().chain([API_CALLS]).chain(metered).collect();
    let unknown = plan.limits.keys().filter(|name| !known.contains(&name.as_str()));
    unknown.map(|name| UnknownLimit { name: name.clone(), nearest: nearest(name, &known) }).collect()
}

/// The names that a plan publishes and sets no limit for: nothing is published under them.
pub fn published_without_limit(plan: &TenantPlanSpec) -> Vec<UnknownLimit> {
    let limits: Vec<&str> = plan.limits.keys().map(String::as_str).collect();
    let without = plan.published.iter().filter(|name| !plan.limits.contains_key(*name));
    without.map(|name| UnknownLimit { name: name.clone(), nearest: nearest(name, &limits) }).collect()
}

impl UnknownLimit {
    /// The name, with the one that was probably meant.
    pub fn describe(&self) -> String {
        match &self.nearest {
            Some(nearest) => format!("{} (do you mean {nearest}?)", self.name),
            None => self.name.clone(),
        }
    }
}

/// The known name with the fewest changes, if they are few for a name of that length. Case does not count as a change.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let changes = known.iter().map(|other| (changes(&name.to_lowercase(), &other.to_lowercase()), *other));
    let (fewest, other) = changes.min()?;
    (fewest <= 1 + name.len() / 5).then(|| other.to_owned())
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour to make one name the other.
fn changes(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(limits: serde_json::Value, published: &[&str]) -> Vec<String> {
        let plan = serde_json::from_value(json!({"limits": limits, "published": published})).unwrap();
        let metered = ["users", "projects"].map(str::to_owned);
        unknown_limits(&plan, &metered).iter().map(UnknownLimit::describe).collect()
    }

    #[test]
    fn misspelt_limit_is_unknown_and_its_nearest_name_suggested() {
        let limits = json!({"usres": 5, "storagebytes": 1, "connection": 5, "seats": 3, "user": 1});
        assert_eq!(
            described(limits, &[]),
            [
                "connection (do you mean connections?)",
                "seats",
                "storagebytes (do you mean storageBytes?)",
                "user (do you mean users?)",
                "usres (do you mean users?)",
            ]
        );
    }

    #[test]
    fn enforced_metered_and_published_limits_are_known() {
        let limits = json!({"users": 5, "projects": 1, "connections": 5, "storageBytes": 1, "tempFileBytes": 1,
            "apiCallsPer15Minutes": 1, "seats": 3});
        assert_eq!(described(limits.clone(), &["seats"]), [""; 0]);
        assert_eq!(described(limits, &["seat"]), ["seats (do you mean seat?)"]);
    }

    #[test]
    fn published_name_without_a_limit_is_named() {
        let plan = json!({"limits": {"seats": 3, "users": 5}, "published": ["seat", "users", "calls"]});
        let found = published_without_limit(&serde_json::from_value(plan).unwrap());
        let described: Vec<String> = found.iter().map(UnknownLimit::describe).collect();
        assert_eq!(described, ["seat (do you mean seats?)", "calls"]);
    }
}
