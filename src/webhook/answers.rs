//! The answers. What cannot be found out at once is allowed: the reconcile decides it, and reports it.

use std::time::Duration;

use kube::{
    Api,
    api::{ListParams, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    Knowledge,
    review::{Answer, ReviewRequest},
};
use crate::{
    api::{
        ANNOTATION_ADOPT_ROW, ANNOTATION_CHANGES,
        conditions::{READY, find_condition},
        plan::TenantPlanSpec,
        tenant::Tenant,
        tenant_hold::TenantHoldSpec,
        tenant_module::TenantModule,
    },
    domain::{
        admission::{AdmissionDecision, MeteringModule, of_hold, of_plan, of_slug},
        attribution::{
            Actor,
            stamp::{ObservedChange, short_name},
        },
        slug::Slug,
    },
    registry::AdmissionRegistry,
};

/// How long a question to the API server may take, which waits for the answer.
const ANSWER: Duration = Duration::from_secs(1);

/// What is asked: the first part of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which user changes `spec`, for the object's annotation.
    Changes,
    /// An object is deleted.
    Deletions,
    /// A Tenant wants a slug.
    Slugs,
    /// A TenantHold is placed.
    Holds,
    /// A TenantPlan sets limits.
    Plans,
}

impl Question {
    /// The question of this path.
    pub fn of_path(part: &str) -> Option<Self> {
        Some(match part {
            "changes" => Self::Changes,
            "deletions" => Self::Deletions,
            "slugs" => Self::Slugs,
            "holds" => Self::Holds,
            "plans" => Self::Plans,
            _ => return None,
        })
    }

    /// Its answer.
    pub async fn answer(self, request: &ReviewRequest, knowledge: &Knowledge) -> Answer {
        let decision = match self {
            Self::Changes => return stamped(request),
            Self::Deletions => {
                record_deletion(request, knowledge).await;
                AdmissionDecision::Allowed
            }
            Self::Slugs => of_tenant(request, knowledge).await.unwrap_or(AdmissionDecision::Allowed),
            Self::Holds => of_new_hold(request, knowledge).await.unwrap_or(AdmissionDecision::Allowed),
            Self::Plans => of_changed_plan(request, knowledge).await.unwrap_or(AdmissionDecision::Allowed),
        };
        debug!(question = ?self, namespace = request.namespace, name = request.name, ?decision, "admission");
        Answer::decision(request, &decision)
    }
}

impl Knowledge {
    fn registry(&self) -> Option<&AdmissionRegistry> {
        self.registry.get()
    }
}

fn present(object: &Value) -> Option<&Value> {
    (!object.is_null()).then_some(object)
}

/// The object with its change's user, as the policies would write it.
fn stamped(request: &ReviewRequest) -> Answer {
    let change = ObservedChange {
        before: present(&request.old_object),
        object: &request.object,
        user: &request.user_info.username,
        annotation: ANNOTATION_CHANGES,
    };
    match change.stamp() {
        Some(text) => Answer::annotated(request, ANNOTATION_CHANGES, &text),
        None => Answer::decision(request, &AdmissionDecision::Allowed),
    }
}

/// Records who deletes an object, unless it is deleted already.
async fn record_deletion(request: &ReviewRequest, knowledge: &Knowledge) {
    let metadata = &request.old_object["metadata"];
    let is_deleted = !metadata["deletionTimestamp"].is_null();
    let (Some(uid), Some(registry)) = (metadata["uid"].as_str(), knowledge.registry()) else { return };
    if is_deleted || request.dry_run == Some(true) {
        return;
    }
    let actor = Actor::User(short_name(&request.user_info.username)).to_string();
    if let Err(error) = registry.record_deletion(uid, &actor).await {
        warn!(%error, namespace = request.namespace, name = request.name, actor, "could not record who deletes it");
    }
}

/// Whether a Tenant can have its slug. None: that cannot be known now.
async fn of_tenant(request: &ReviewRequest, knowledge: &Knowledge) -> Option<AdmissionDecision> {
    let adopts = !request.object["metadata"]["annotations"][ANNOTATION_ADOPT_ROW].is_null();
    if adopts {
        // It takes up the row that has the slug.
        return None;
    }
    let slug = Slug::parse(request.object["spec"]["slug"].as_str()?).ok()?;
    let owner = known(knowledge.registry()?.slug_owner(&slug).await)?;
    let name = request.object["metadata"]["name"].as_str().unwrap_or(&request.name);
    Some(of_slug(&slug, owner.as_ref(), &request.namespace, name))
}

/// Whether there is a Tenant for a hold.
async fn of_new_hold(request: &ReviewRequest, knowledge: &Knowledge) -> Option<AdmissionDecision> {
    let spec: TenantHoldSpec = spec_of(&request.object)?;
    let tenants = Api::<Tenant>::namespaced(knowledge.client.clone(), &request.namespace);
    let found = timeout(ANSWER, tenants.get_metadata_opt(&spec.tenant)).await.ok()?;
    let found: Option<PartialObjectMeta<Tenant>> = known(found)?;
    if found.is_some() {
        return Some(AdmissionDecision::Allowed);
    }
    // A legal hold also keeps the data of a tenant whose object does not exist any more.
    let keeps = match spec.preserve == Some(true) {
        true => known(knowledge.registry()?.has_tenant(&request.namespace, &spec.tenant).await)?,
        false => false,
    };
    Some(of_hold(&spec.tenant, keeps))
}

/// Whether something enforces the limits of a plan.
async fn of_changed_plan(request: &ReviewRequest, knowledge: &Knowledge) -> Option<AdmissionDecision> {
    let plan: TenantPlanSpec = spec_of(&request.object)?;
    let before = present(&request.old_object).and_then(spec_of);
    let modules = Api::<TenantModule>::all(knowledge.client.clone());
    let modules = known(timeout(ANSWER, modules.list(&ListParams::default())).await.ok()?)?;
    let modules: Vec<MeteringModule> = modules.items.into_iter().map(metering).collect();
    Some(of_plan(&plan, before.as_ref(), &modules))
}

fn metering(module: TenantModule) -> MeteringModule {
    let name = module.metadata.name.unwrap_or_default();
    let status = module.status.unwrap_or_default();
    let is_ready = find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        && status.observed_generation == module.metadata.generation;
    MeteringModule { name, limits: status.limits.filter(|_| is_ready) }
}

fn spec_of<T: DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object["spec"].clone()).ok()
}

/// An answer, if there is one.
fn known<T, E: std::fmt::Display>(answer: Result<T, E>) -> Option<T> {
    answer.inspect_err(|error| warn!(%error, "admission: the request is allowed without a check")).ok()
}
