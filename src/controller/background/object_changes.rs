//! Records the changes of plans, modules and servers in the activity log, each with its user: whenever a watch reports one, and
//! after a start what happened while no operator ran.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use tracing::{debug, warn};

use crate::{
    api::{database_server::DatabaseServer, plan::TenantPlan, tenant_module::TenantModule},
    controller::{
        actors::recorded_changes,
        context::{Context, SharedContext},
    },
    domain::{
        attribution::Actor,
        declaration::{
            Declaration,
            objects::{ObjectName, RecordedObject, deletion_row, object_rows},
        },
    },
    registry,
};

/// The pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What was recorded of each object, by its uid.
type Recorded = HashMap<String, RecordedObject>;

/// Why the changes could not be recorded.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("whether an object was deleted is not known: {0}")]
    Kubernetes(#[from] kube::Error),
}

/// Records until it is dropped.
pub async fn run(context: SharedContext) {
    let mut recorded = None;
    loop {
        match record_all(&mut recorded, &context).await {
            Ok(()) => context.state.objects_changed.notified().await,
            Err(error) => {
                warn!(%error, "could not record changes of plans, modules or servers; it is tried again");
                // What is on record is read again.
                recorded = None;
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn record_all(recorded: &mut Option<Recorded>, context: &Context) -> Result<(), Failure> {
    let recorded = match recorded {
        Some(recorded) => recorded,
        None => {
            let rows = context.registry.declared_objects().await?;
            recorded.insert(rows.into_iter().map(|row| (row.declaration.object.clone(), row)).collect())
        }
    };
    let stores = &context.stores;
    for plan in stores.plans.state() {
        record(plan.as_ref(), &plan.spec, recorded, context).await?;
    }
    for module in stores.tenant_modules.state() {
        record(module.as_ref(), &module.spec, recorded, context).await?;
    }
    for server in stores.database_servers.state() {
        record(server.as_ref(), &server.spec, recorded, context).await?;
    }
    record_deleted::<TenantPlan>(|uid| is_in(&stores.plans.state(), uid), recorded, context).await?;
    record_deleted::<TenantModule>(|uid| is_in(&stores.tenant_modules.state(), uid), recorded, context)
        .await?;
    record_deleted::<DatabaseServer>(|uid| is_in(&stores.database_servers.state(), uid), recorded, context)
        .await
}

fn is_in<K: Resource>(objects: &[std::sync::Arc<K>], uid: &str) -> bool {
    objects.iter().any(|object| object.meta().uid.as_deref() == Some(uid))
}

/// Records what changed of one object.
async fn record<K>(
    object: &K,
    spec: &impl Serialize,
    recorded: &mut Recorded,
    context: &Context,
) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()>,
{
    let uid = object.uid().unwrap_or_default();
    let before = recorded.get(&uid).map(|before| &before.declaration);
    if before.is_some_and(|before| before.generation >= object.meta().generation.unwrap_or_default()) {
        return Ok(());
    }
    let name = ObjectName { kind: K::kind(&()).into_owned(), name: object.name_any() };
    let declaration = Declaration::of_object(object.meta(), spec, &context.installation.digest_key);
    let changes = recorded_changes(object, context).await;
    let created_at = object.creation_timestamp().map(|at| at.0);
    let rows = object_rows(&name, before, &declaration, created_at, &changes);
    context.registry.record_object(&name, &declaration, &rows).await?;
    debug!(kind = name.kind, name = name.name, rows = rows.len(), "recorded changes of an object");
    recorded.insert(uid, RecordedObject { object: name, declaration });
    Ok(())
}

/// Records the end of the objects of a kind that are in the cluster no more. One that is only no longer selected, or that cannot
/// be decoded, exists.
async fn record_deleted<K>(
    is_known: impl Fn(&str) -> bool,
    recorded: &mut Recorded,
    context: &Context,
) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    let missing: Vec<RecordedObject> = recorded
        .values()
        .filter(|object| object.object.kind == kind && !is_known(&object.declaration.object))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let listed = Api::<K>::all(context.client.clone()).list_metadata(&ListParams::default()).await?;
    for object in missing {
        let uid = &object.declaration.object;
        if listed.iter().any(|found| found.metadata.uid.as_ref() == Some(uid)) {
            continue;
        }
        let row = deletion_row(&object, &Actor::of_deletion());
        context.registry.record_deleted_object(uid, &row).await?;
        recorded.remove(uid);
    }
    Ok(())
}
