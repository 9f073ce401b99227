//! Verify: logs in as the tenant, with the password from its Secret, and reads the module versions. What was set up
//! is proven by using it.

use super::{Run, StepError};
use crate::controller::tenant::secrets::{self, Found};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let secret_name = run.desired()?.connection_secret.clone();
    let row = run.row()?;
    let Found::Ours(secret) = secrets::find(run.context, &run.namespace(), &secret_name, row).await? else {
        return Err(StepError::Missing("the connection Secret"));
    };
    let password =
        secrets::password(&secret).ok_or(StepError::Missing("the password in the connection Secret"))?;
    let versions = run.server()?.verify(&row.database_name, &run.login()?, &password).await?;
    let behind = run.context.modules.targets().iter().any(|target| !versions.contains(target));
    if behind { Err(StepError::Missing("a module's target version")) } else { Ok(()) }
}
