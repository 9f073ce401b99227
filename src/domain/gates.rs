//! Gates: steps of a customer's onboarding. Access stays Blocked until all of them are done.

use serde::{Deserialize, Serialize};

use crate::api::tenant;

/// A gate, and whether it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// Whether it is done.
    pub done: bool,
}

/// The gates that count for a tenant, by name: those that its plan began with, and its own. One of the plan's that the
/// tenant does not mention is as it was recorded last: that it was done is not undone by a manifest that was tidied up.
pub fn gates(defaults: &[String], own: &[tenant::Gate], recorded: &[Gate]) -> Vec<Gate> {
    let was_done = |name: &str| recorded.iter().any(|gate| gate.name == name && gate.done);
    let from_plan = defaults
        .iter()
        .filter(|name| own.iter().all(|gate| gate.name != **name))
        .map(|name| Gate { name: name.clone(), done: was_done(name) });
    let own = own.iter().map(|gate| Gate { name: gate.name.clone(), done: gate.done });
    let mut gates: Vec<Gate> = from_plan.chain(own).collect();
    gates.sort_by(|a, b| a.name.cmp(&b.name));
    gates.dedup_by(|a, b| a.name == b.name);
    gates
}

/// The names of those that are not done.
pub fn open(gates: &[Gate]) -> Vec<String> {
    gates.iter().filter(|gate| !gate.done).map(|gate| gate.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(gates: &[(&str, bool)]) -> Vec<tenant::Gate> {
        gates.iter().map(|(name, done)| tenant::Gate { name: (*name).to_owned(), done: *done }).collect()
    }

    fn defaults() -> Vec<String> {
        vec!["contract".into(), "sso".into()]
    }

    #[test]
    fn all_are_open_until_the_tenant_says_that_they_are_done() {
        assert_eq!(open(&gates(&defaults(), &[], &[])), ["contract", "sso"]);
        let some = gates(&defaults(), &own(&[("sso", true), ("go-live", false)]), &[]);
        assert_eq!(open(&some), ["contract", "go-live"]);
        assert_eq!(open(&gates(&[], &own(&[("sso", true)]), &[])), [""; 0]);
    }

    #[test]
    fn a_gate_that_was_done_stays_done_when_it_is_not_mentioned_any_more_and_opens_when_it_is_said() {
        let done = gates(&defaults(), &own(&[("contract", true), ("sso", true), ("users", false)]), &[]);
        assert_eq!(open(&done), ["users"]);
        // The tenant's own is gone with its mention.
        assert_eq!(open(&gates(&defaults(), &[], &done)), [""; 0]);
        assert_eq!(open(&gates(&defaults(), &own(&[("sso", false)]), &done)), ["sso"]);
    }
}
