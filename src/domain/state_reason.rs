//! The reason of a tenant's state. `spec.stateReason` goes with the change that it was given for: one that was given with a
//! change of the slug is the reason of that, and of no state.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::attribution::RecordedChanges;
use crate::api::tenant::{DesiredState, TenantSpec};

/// A `stateReason` that was given with a change of the slug, as long as the spec has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlugReason {
    /// What was given.
    pub given: String,
    /// The reason of the state, from before; none if none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_state: Option<String>,
}

/// What a Tenant declared before: its spec, and what its `stateReason` was, if that was given with a change of the slug.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredReason<'a> {
    /// The spec, as it was recorded.
    pub spec: &'a Map<String, Value>,
    /// What its `stateReason` was.
    pub of_slug: Option<&'a SlugReason>,
}

/// The reason of the state that a spec declares, after what was declared `before`.
pub fn state_reason(
    spec: &TenantSpec,
    changes: &RecordedChanges,
    before: Option<DeclaredReason<'_>>,
) -> Option<String> {
    match before.and_then(|before| slug_reason(spec, changes, before)) {
        Some(of_slug) => of_slug.of_state,
        None => given(spec).map(str::to_owned),
    }
}

/// What the `stateReason` of a spec is, if it was given with a change of the slug. Of several changes that are seen at once,
/// `changes` say which fields were changed together; where they do not, it was one change.
pub fn slug_reason(
    spec: &TenantSpec,
    changes: &RecordedChanges,
    before: DeclaredReason<'_>,
) -> Option<SlugReason> {
    let given = given(spec)?;
    let text = |field: &str| before.spec.get(field).and_then(Value::as_str);
    let state = spec.state.unwrap_or_default();
    let is_same_state = text("state").unwrap_or(DesiredState::default().as_str()) == state.as_str();
    let renamed = text("slug").is_some_and(|slug| slug != spec.slug) && text("stateReason") != Some(given);
    if renamed {
        let of_state = match before.of_slug {
            Some(earlier) => earlier.of_state.clone(),
            None => text("stateReason").filter(|reason| !reason.is_empty()).map(str::to_owned),
        };
        let is_with = |field| changes.are_of_one_change(field, "stateReason").unwrap_or(true);
        if !is_with("slug") {
            // Given after it, or before: with the state.
            return None;
        }
        // Given with another state too, it is the reason of both. Of a state that was set without it, none is known.
        return match is_same_state {
            true => Some(SlugReason { given: given.to_owned(), of_state }),
            false if is_with("state") => None,
            false => Some(SlugReason { given: given.to_owned(), of_state: None }),
        };
    }
    let kept = before.of_slug.filter(|kept| kept.given == given)?;
    Some(SlugReason { of_state: kept.of_state.clone().filter(|_| is_same_state), ..kept.clone() })
}

/// The reason that was given with the last change of the slug; none if another change has overwritten it.
pub fn reason_of_slug<'a>(spec: &'a TenantSpec, changes: &RecordedChanges) -> Option<&'a str> {
    given(spec).filter(|_| changes.are_of_one_change("slug", "stateReason").unwrap_or(true))
}

/// The `stateReason` of a spec, if it has one.
fn given(spec: &TenantSpec) -> Option<&str> {
    spec.state_reason.as_deref().filter(|reason| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tenant::Tenant;

    #[test]
    fn reason_of_a_slug_change_is_lost_with_a_later_reason() {
        let tenant: Tenant = serde_json::from_value(serde_json::json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"slug": "initech", "displayName": "Acme", "plan": "starter", "stateReason": "new brand"},
        }))
        .unwrap();
        let reason = |annotation: &str| {
            reason_of_slug(&tenant.spec, &RecordedChanges::of(annotation, 3)).map(str::to_owned)
        };
        assert_eq!(reason("3 plan bob\n2 slug,stateReason ada\n1 * ada").as_deref(), Some("new brand"));
        assert_eq!(reason("3 state,stateReason bob\n2 slug,stateReason ada\n1 * ada"), None);
        // Not known who changed what.
        assert_eq!(reason("").as_deref(), Some("new brand"));
    }
}
