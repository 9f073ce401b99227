//! The migration login of a team's own pipeline, and the Secret with it, in the tenant's namespace. Both stay as long as the
//! tenant has a module with `source.external`: a Secret that is deleted, and a login that is dropped, are made again, with a
//! new password.

use kube::{Api, api::DeleteParams};

use super::{
    failure::StepError,
    secrets::{self, Address, Found},
    step_context::StepContext,
};
use crate::{
    controller::tenant_module::job::{MigrationConnection, connection_data},
    domain::{migration_run::LoginState, spec},
    modules::{ModuleKind, ModuleSet},
    postgres::tenant::{
        credentials::{generate_password, scram_verifier},
        migration_login::{MigratedDatabase, MigrationLogin},
    },
};
use k8s_openapi::{ByteString, api::core::v1::Secret};

/// Makes the login and its Secret where one of them is missing.
pub async fn ensure(step: &mut StepContext<'_, '_>, modules: &ModuleSet) -> Result<(), StepError> {
    let mut external = modules.modules().iter().filter(|module| module.kind == ModuleKind::External);
    let Some(module) = external.next() else { return Ok(()) };
    let (context, server, row) = (step.context, step.server()?, step.row()?);
    let (namespace, name) = (step.namespace(), spec::migration_secret_name(step.tenant()));
    // The run is that of the tenant: it lasts as long as the tenant.
    let (run, database) = (row.id.0, MigratedDatabase::OfTenant(&row.placement));
    let found = secrets::find(context, &namespace, &name, row).await?;
    if matches!(found, Found::Ours(_))
        && server.migration_login_state(&database, run).await? == LoginState::Open
    {
        context.state.reports.login_made(row.id);
        return Ok(());
    }
    if let Found::Ours(_) = found {
        // It has the password of a login that does not exist any more.
        let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
        match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(answer)) if answer.is_not_found() => {}
            deleted => drop(deleted?),
        }
    }
    let password = generate_password();
    let verifier = scram_verifier(&password);
    let wanted = MigrationLogin { run, schema: &module.schema, verifier: &verifier, valid_until: None };
    let login = server.open_migration_login(&database, &wanted).await?;
    let resource = context.database_server(&row.placement.server);
    let address = Address::of(server, resource.as_deref());
    let connection = MigrationConnection {
        address: (&address).into(),
        database: &row.placement.database,
        login: &login,
        password: &password,
    };
    let secret = Secret {
        metadata: secrets::metadata(step.tenant(), row, &name),
        type_: Some("Opaque".to_owned()),
        data: Some(
            connection_data(&connection)
                .into_iter()
                .map(|(key, value)| (key, ByteString(value.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    };
    secrets::write(context, secret, &Found::Absent).await?;
    context.state.reports.login_made(row.id);
    Ok(())
}
