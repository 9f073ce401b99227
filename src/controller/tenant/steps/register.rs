//! Register: the slug becomes this tenant's, by the registry's unique index, and the names of its database are fixed
//! for ever. The loser stops here, having made nothing. A row that exists already gets what the spec declares.

use kube::ResourceExt;
use serde_json::json;

use super::{Run, StepError};
use crate::domain::gates::open;
use crate::registry::{Declared, NewTenant, Registration};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let desired = run.desired()?.clone();
    let settings = json!(desired.settings);
    let plan = run.standing()?.plan.clone();
    run.changed();
    if let Some(row) = &run.visit.row {
        let (name, retain, gates) = (desired.display_name, desired.retain, run.standing()?.gates.clone());
        let done = !gates.is_empty() && open(&gates).is_empty();
        let gates_done_at = row.gates_done_at.or(done.then(|| run.context.clock.now()));
        let declared = Declared { name: &name, settings: &settings, retain, gates: &gates, gates_done_at };
        run.context.registry.update_declared(row.id, &declared).await?;
        let row = run.row_mut()?;
        (row.name, row.settings, row.retain, row.gates) = (name, settings, retain, gates);
        row.gates_done_at = gates_done_at;
        return Ok(());
    }
    let prefix = run.context.prefix_of(&desired.server);
    let new = NewTenant {
        slug: desired.slug.clone(),
        name: desired.display_name,
        plan,
        settings,
        server: desired.server,
        prefix,
        resource_namespace: run.namespace(),
        resource_name: run.tenant().name_any(),
        resource_uid: run.tenant().uid().unwrap_or_default(),
        retain: desired.retain,
        actor: "unknown".to_owned(),
        correlation: None,
    };
    match run.context.registry.register(&new).await? {
        Registration::Created(row) | Registration::Existing(row) => {
            run.visit.row = Some(row);
            Ok(())
        }
        Registration::SlugTaken { namespace, name, status } => Err(StepError::SlugTaken {
            slug: desired.slug.to_string(),
            owner: format!("Tenant {namespace}/{name} ({})", status.as_str()),
        }),
    }
}
