//! Gates: steps of a customer's onboarding. Access is Blocked until all of them are done.

use serde::{Deserialize, Serialize};

use crate::api::tenant;

/// A gate that applies to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveGate {
    /// The name.
    pub name: String,
    /// Whether it is done.
    pub done: bool,
}

/// The gates that apply to a tenant, by name: its own, and those that its plan had at the first activation. A plan's
/// gate that the tenant's spec does not list is as it was recorded last, so that removing a finished gate from a
/// manifest does not reopen it.
pub fn gates(defaults: &[String], own: &[tenant::Gate], recorded: &[EffectiveGate]) -> Vec<EffectiveGate> {
    let was_done = |name: &str| recorded.iter().any(|gate| gate.name == name && gate.done);
    let from_plan = defaults
        .iter()
        .filter(|name| own.iter().all(|gate| gate.name != **name))
        .map(|name| EffectiveGate { name: name.clone(), done: was_done(name) });
    let own = own.iter().map(|gate| EffectiveGate { name: gate.name.clone(), done: gate.done });
    let mut gates: Vec<EffectiveGate> = from_plan.chain(own).collect();
    gates.sort_by(|a, b| a.name.cmp(&b.name));
    gates.dedup_by(|a, b| a.name == b.name);
    gates
}

/// The names of the gates that are not done.
pub fn open(gates: &[EffectiveGate]) -> Vec<String> {
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
    fn gates_are_open_until_the_spec_marks_them_done() {
        assert_eq!(open(&gates(&defaults(), &[], &[])), ["contract", "sso"]);
        let some = gates(&defaults(), &own(&[("sso", true), ("go-live", false)]), &[]);
        assert_eq!(open(&some), ["contract", "go-live"]);
        assert_eq!(open(&gates(&[], &own(&[("sso", true)]), &[])), [""; 0]);
    }

    #[test]
    fn done_gate_stays_done_when_removed_from_spec_and_reopens_when_set() {
        let done = gates(&defaults(), &own(&[("contract", true), ("sso", true), ("users", false)]), &[]);
        assert_eq!(open(&done), ["users"]);
        // The tenant's own gate no longer exists once the spec does not list it.
        assert_eq!(open(&gates(&defaults(), &[], &done)), [""; 0]);
        assert_eq!(open(&gates(&defaults(), &own(&[("sso", false)]), &done)), ["sso"]);
    }
}
