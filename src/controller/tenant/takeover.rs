//! A Tenant that should take over a database: reads it, and reports what would change, before anything is registered.

use super::evaluate::selection;
use crate::{
    api::tenant_adoption::{Adopt, AdoptionStatus},
    controller::context::SharedContext,
    domain::{
        names::login_name,
        placement::Placement,
        record::ModuleVersion,
        subject::Subject,
        takeover::{FoundDatabase, Intent, KeptLogin, Report, TakeoverRefusal, allows, baseline_versions},
    },
    modules::ModuleSet,
    postgres::server::Server,
};

use super::failure::StepError;

/// What was found, and whether the takeover may begin.
pub struct Inspection {
    /// For the status; none if the database was not read.
    pub status: Option<AdoptionStatus>,
    /// Why it may not begin, if so.
    pub refusal: Option<TakeoverRefusal>,
    /// The database.
    pub found: Option<FoundDatabase>,
}

impl Inspection {
    fn refused(refusal: TakeoverRefusal) -> Self {
        Self { status: None, refusal: Some(refusal), found: None }
    }
}

/// Whether the server allows the adoption.
pub fn consent(adopt: &Adopt, server: &str, context: &SharedContext) -> Option<TakeoverRefusal> {
    let listed = context.database_server(server);
    let is_allowed = listed.is_some_and(|object| allows(&object.spec.allow_adoption, &adopt.database));
    (!is_allowed)
        .then(|| TakeoverRefusal::NotAllowed { server: server.to_owned(), database: adopt.database.clone() })
}

/// Reads the database that a Tenant should take over. Nothing is changed. `placement` is that of a registered tenant.
pub async fn inspect(
    subject: &Subject<'_>,
    adopt: &Adopt,
    server: &Server,
    placement: Option<&Placement>,
    context: &SharedContext,
) -> Result<Inspection, StepError> {
    let (name, database) = (&server.config().name, &adopt.database);
    if let Some(refusal) = consent(adopt, name, context) {
        return Ok(Inspection::refused(refusal));
    }
    if placement.is_none()
        && let Some(tenant) = context.registry.tenant_of_database(name, database).await?
    {
        return Ok(Inspection::refused(TakeoverRefusal::Taken { database: database.clone(), tenant }));
    }
    let login = login_name(database);
    let kept = adopt.keep_login.as_ref().map(|kept| kept.name.as_str());
    let Some((found, parts)) = server.inspect(database, &login, kept, placement).await? else {
        let (server, database) = (name.clone(), database.clone());
        return Ok(Inspection::refused(TakeoverRefusal::Missing { server, database }));
    };
    let modules = modules(subject, context);
    let baseline = baseline(adopt, &modules)?;
    let mut intent = Intent {
        login,
        modules: modules.targets(),
        baseline: baseline.clone(),
        of_tools: modules.of_tools(),
        missing: Vec::new(),
        collisions: Vec::new(),
        kept: adopt.keep_login.as_ref().map(|kept| KeptLogin {
            name: kept.name.clone(),
            until: kept.until.0,
            now: context.clock.now(),
        }),
    };
    if found.content.is_some() {
        let (recorded, all) = server.created_by(&modules, &baseline).await?;
        intent.compare(&recorded, &all, &parts);
    }
    let report = Report::of(&found, &intent);
    let refusal = report.decide(database, adopt.confirm.as_deref()).err();
    Ok(Inspection { status: Some(report.status(&found)), refusal, found: Some(found) })
}

/// The modules that the tenant gets.
pub fn modules(subject: &Subject<'_>, context: &SharedContext) -> std::sync::Arc<ModuleSet> {
    let chosen = selection(subject.tenant, subject.record.as_ref(), subject.entitlements(), context);
    context.modules.set_of(&chosen.modules)
}

/// The versions that are recorded as applied.
pub fn baseline(adopt: &Adopt, modules: &ModuleSet) -> Result<Vec<ModuleVersion>, StepError> {
    baseline_versions(&adopt.baseline, &modules.targets(), &modules.of_tools()).map_err(StepError::Baseline)
}
