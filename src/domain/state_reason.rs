//! The reason of a tenant's state. `spec.stateReason` goes with the change that it was given for: one that was given with a
//! change of the slug is the reason of that, and of no state.

use serde::{Deserialize, Serialize};

use super::{attribution::RecordedChanges, declaration::Declaration};
use crate::api::tenant::{DesiredState, Tenant, TenantSpec};

/// A `stateReason` that was given with a change of the slug, as long as the spec has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlugReason {
    /// What was given.
    pub given: String,
    /// The reason of the state, from before; none if none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_state: Option<String>,
}

/// The reason of the state that a Tenant declares. `recorded` is what it declared when that was recorded last.
pub fn state_reason(tenant: &Tenant, recorded: Option<&Declaration>) -> Option<String> {
    match recorded.and_then(|recorded| slug_reason(tenant, recorded)) {
        Some(of_slug) => of_slug.of_state,
        None => given(&tenant.spec).map(str::to_owned),
    }
}

/// What the `stateReason` of a Tenant is, if it was given with a change of the slug.
pub fn slug_reason(tenant: &Tenant, recorded: &Declaration) -> Option<SlugReason> {
    let given = given(&tenant.spec)?;
    let text = |field: &str| recorded.spec.get(field).and_then(|value| value.as_str());
    let state = tenant.spec.state.unwrap_or_default();
    let is_same_state = text("state").unwrap_or(DesiredState::default().as_str()) == state.as_str();
    let renamed =
        text("slug").is_some_and(|slug| slug != tenant.spec.slug) && text("stateReason") != Some(given);
    if renamed {
        let before = match &recorded.slug_reason {
            Some(earlier) => earlier.of_state.clone(),
            None => text("stateReason").filter(|reason| !reason.is_empty()).map(str::to_owned),
        };
        // Given with another state too, it is the reason of both.
        return is_same_state.then(|| SlugReason { given: given.to_owned(), of_state: before });
    }
    let kept = recorded.slug_reason.as_ref().filter(|kept| kept.given == given)?;
    Some(SlugReason { of_state: kept.of_state.clone().filter(|_| is_same_state), ..kept.clone() })
}

/// The reason that was given with the last change of the slug; none if another change has overwritten it.
pub fn reason_of_slug<'a>(tenant: &'a Tenant, changes: &RecordedChanges) -> Option<&'a str> {
    given(&tenant.spec).filter(|_| changes.are_together("slug", "stateReason"))
}

fn given(spec: &TenantSpec) -> Option<&str> {
    spec.state_reason.as_deref().filter(|reason| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const KEY: &[u8] = b"key";

    fn tenant(slug: &str, more: Value) -> Tenant {
        let mut spec = json!({"slug": slug, "displayName": "Acme", "plan": "starter"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "uid": "one", "generation": 1}, "spec": spec,
        }))
        .unwrap()
    }

    /// The reason of the state after each of these specs, each recorded before the next.
    fn reasons(specs: &[(&str, Value)]) -> Vec<Option<String>> {
        let mut recorded: Option<Declaration> = None;
        let mut reasons = Vec::new();
        for (slug, spec) in specs {
            let tenant = tenant(slug, spec.clone());
            let reason = state_reason(&tenant, recorded.as_ref());
            let declaration = Declaration::of(&tenant, KEY, recorded.as_ref());
            // The same before and after it is recorded.
            assert_eq!(state_reason(&tenant, Some(&declaration)), reason, "{slug} {spec}");
            reasons.push(reason);
            recorded = Some(declaration);
        }
        reasons
    }

    #[test]
    fn reason_of_a_slug_change_is_not_that_of_the_suspension_before_it() {
        let suspended = |reason: &str| json!({"state": "Suspended", "stateReason": reason});
        let found = reasons(&[
            ("acme", suspended("unpaid")),
            ("initech", suspended("new brand")),
            ("initech", json!({"state": "Suspended", "stateReason": "new brand", "plan": "free"})),
            ("hooli", suspended("newer brand")),
            ("hooli", suspended("still unpaid")),
        ]);
        let unpaid = Some("unpaid".to_owned());
        let expected =
            [unpaid.clone(), unpaid.clone(), unpaid.clone(), unpaid, Some("still unpaid".to_owned())];
        assert_eq!(found, expected);
    }

    #[test]
    fn reason_of_a_slug_change_is_not_that_of_a_later_state() {
        let found = reasons(&[
            ("acme", json!({})),
            ("initech", json!({"stateReason": "new brand"})),
            ("initech", json!({"state": "Suspended", "stateReason": "new brand"})),
            ("initech", json!({"state": "Suspended", "stateReason": "unpaid"})),
        ]);
        assert_eq!(found, [None, None, None, Some("unpaid".to_owned())]);
    }

    #[test]
    fn reason_of_a_slug_and_a_state_at_once_is_that_of_both() {
        let both = json!({"state": "Suspended", "stateReason": "sold to initech"});
        let found = reasons(&[("acme", json!({})), ("initech", both)]);
        assert_eq!(found[1].as_deref(), Some("sold to initech"));
    }

    #[test]
    fn reason_of_a_slug_change_is_lost_with_a_later_reason() {
        let tenant = tenant("initech", json!({"stateReason": "new brand"}));
        let reason = |annotation: &str| {
            reason_of_slug(&tenant, &RecordedChanges::of(annotation, 3)).map(str::to_owned)
        };
        assert_eq!(reason("3 plan bob\n2 slug,stateReason ada\n1 * ada").as_deref(), Some("new brand"));
        assert_eq!(reason("3 state,stateReason bob\n2 slug,stateReason ada\n1 * ada"), None);
        // Not known who changed what.
        assert_eq!(reason("").as_deref(), Some("new brand"));
    }

    #[test]
    fn without_a_record_the_reason_is_as_given() {
        let found = reasons(&[("acme", json!({"state": "Suspended", "stateReason": "unpaid"}))]);
        assert_eq!(found[0].as_deref(), Some("unpaid"));
        assert_eq!(reasons(&[("acme", json!({"stateReason": ""}))]), [None]);
    }
}
