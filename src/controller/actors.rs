//! Who changed an object, as its annotation has it. The annotation is believed only while the API server refuses a forged one:
//! that is tried, without an effect, and only where a user has to be named.

use std::time::Duration;

use kube::{
    Client, Resource, ResourceExt,
    api::{Patch, PatchParams, Request},
};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::context::Context;
use crate::{
    api::ANNOTATION_CHANGES,
    domain::attribution::{RecordedChanges, UnknownActor},
};

/// How long the API server may take to answer: what waits is not delayed for a name.
const ANSWER: Duration = Duration::from_secs(2);

/// The first minor version of Kubernetes 1 whose API server has MutatingAdmissionPolicy in version v1.
const FIRST_MINOR: u32 = 36;

/// What no policy writes: no change has the generation 0.
const FORGED: &str = "0 * tenantry";

/// The last changes of an object, with their users.
pub async fn recorded_changes<K>(object: &K, context: &Context) -> RecordedChanges
where
    K: Resource<DynamicType = ()>,
{
    let users = &context.state.recorded_users;
    let generation = object.meta().generation.unwrap_or_default();
    let Some(annotation) = object.annotations().get(ANNOTATION_CHANGES) else {
        return RecordedChanges::unknown(generation, users.absent());
    };
    match users.are_protected(refuses_forgery(object, &context.client)).await {
        true => RecordedChanges::of(annotation, generation),
        false => RecordedChanges::unknown(generation, UnknownActor::NoPolicy),
    }
}

/// Whether the API server refuses to have the annotation forged. A dry run: nothing is changed. None: it did not answer, or
/// the object does not exist any more.
async fn refuses_forgery<K>(object: &K, client: &Client) -> Option<bool>
where
    K: Resource<DynamicType = ()>,
{
    let url = K::url_path(&(), object.namespace().as_deref());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_CHANGES: FORGED}}}));
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    let request = Request::new(url).patch(&object.name_any(), &dry_run, &patch).ok()?;
    match timeout(ANSWER, client.request::<IgnoredAny>(request)).await.ok()? {
        Ok(_) => {
            debug!("no admission policy protects the record of users: they are unknown");
            Some(false)
        }
        Err(kube::Error::Api(answer)) => (answer.message.contains(ANNOTATION_CHANGES)
            && answer.message.contains("denied request"))
        .then_some(true),
        Err(error) => {
            debug!(%error, "could not check whether users are recorded");
            None
        }
    }
}

/// Whether this Kubernetes is too old for the policies. One whose version cannot be read is not.
pub async fn is_old_kubernetes(client: &Client) -> bool {
    let version = match timeout(ANSWER, client.apiserver_version()).await {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            warn!(%error, "could not read the version of Kubernetes");
            return false;
        }
        Err(_) => return false,
    };
    // Some write 36+.
    let minor = version.minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    version.major == "1" && minor.parse::<u32>().is_ok_and(|minor| minor < FIRST_MINOR)
}
