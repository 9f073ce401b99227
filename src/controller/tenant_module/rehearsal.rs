//! Has new content rehearsed on a scratch database of a server, and turns the report into a status or a refusal.

use std::sync::Arc;

use super::template_run::template;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;

use crate::{
    api::{reason::Reason, tenant_module::RehearsalStatus},
    controller::{
        context::{Context, SharedContext},
        state::{migration_runs::TemplateRun, servers::ServerState},
    },
    domain::{
        module_refusal::ModuleRefusal,
        modules::with_dependencies,
        rehearsal::{FindingClass, Rehearsal, RehearsalFinding},
    },
    modules::{Module, ModuleKind, ModuleSet},
    postgres::{self, server::Server},
};

/// The maximum of findings in a message.
const SHOWN: usize = 5;

/// How a rehearsal ended.
pub enum Rehearsed {
    /// Nothing was found.
    Passed(Box<RehearsalStatus>),
    /// The content is refused.
    Refused(ModuleRefusal),
    /// It runs; what.
    Running(String),
    /// It could not run; why. It is tried again.
    NotRun(String),
}

/// Rehearses a module, of which files up to number `accepted` were rehearsed before, on the first server that has its
/// extensions.
pub async fn rehearse(
    module: &Module,
    accepted: i32,
    allow_destructive: bool,
    context: &SharedContext,
) -> Rehearsed {
    let known = context.modules.known();
    let before = context.modules.set_of(&with_dependencies(&module.depends_on, known.list()));
    if module.kind == ModuleKind::Job {
        return run_on_template(&before, module, context);
    }
    let mut not_run = "no DatabaseServer is Ready: the rehearsal waits for one".to_owned();
    let mut refusal = None;
    // A pipeline's migrations are not seen here: only whether its schema and extensions can be had.
    let without_versions = Module { migrations: [].as_slice().into(), ..module.clone() };
    let module = if module.kind == ModuleKind::Files { module } else { &without_versions };
    for (name, server) in ready_servers(context) {
        match server.rehearse(&before, module, accepted, allow_destructive).await {
            Ok(report) => {
                let at = context.clock.now();
                return match refused(&report) {
                    Some(refusal) => Rehearsed::Refused(refusal),
                    None => Rehearsed::Passed(Box::new(status(&report, name, at))),
                };
            }
            // That of the dependencies was dropped since.
            Err(postgres::Error::TemplateNeedsRun { .. }) => match template(&name, &before, None, context) {
                TemplateRun::Failed(why) | TemplateRun::NotBuilt(why) => not_run = why,
                TemplateRun::Building(what) => return Rehearsed::Running(what),
                TemplateRun::Built(_) => {}
            },
            Err(error) if error.reason() == Reason::ExtensionNotFound => {
                let message = format!("DatabaseServer {name:?}: {error}");
                refusal.get_or_insert(ModuleRefusal::Found { reason: Reason::ExtensionNotFound, message });
            }
            Err(error @ postgres::Error::ModuleSchema(_)) => {
                let (reason, message) = (Reason::RehearsalFailed, error.to_string());
                return Rehearsed::Refused(ModuleRefusal::Found { reason, message });
            }
            Err(error) => {
                not_run =
                    format!("the rehearsal on DatabaseServer {name:?} failed and is tried again: {error}");
                if error.is_unreachable() {
                    context.state.servers.request_check(&name);
                }
            }
        }
    }
    refusal.map_or(Rehearsed::NotRun(not_run), Rehearsed::Refused)
}

/// Has the tool of a module run on the template of the module and those that it depends on, on the first server. That is its
/// rehearsal: what fails there reaches no tenant.
fn run_on_template(before: &ModuleSet, module: &Module, context: &SharedContext) -> Rehearsed {
    let Some((name, _)) = ready_servers(context).into_iter().next() else {
        return Rehearsed::NotRun("no DatabaseServer is Ready: the Job waits for one".to_owned());
    };
    let modules = before.modules().iter().chain([module]).cloned().collect();
    let modules = Arc::new(ModuleSet::new(modules));
    let done = context.state.runs.template_state(&name, modules.digest());
    if let Some(TemplateRun::Built(duration_millis)) = done {
        let at = context.clock.now();
        return Rehearsed::Passed(Box::new(RehearsalStatus {
            at: Some(Time(Timestamp::from_second(at.as_second()).unwrap_or(at))),
            server: Some(name),
            duration_millis,
            ..RehearsalStatus::default()
        }));
    }
    match template(&name, &modules, None, context) {
        TemplateRun::Building(what) => Rehearsed::Running(what),
        TemplateRun::Built(_) => Rehearsed::Running("its template is there".to_owned()),
        TemplateRun::Failed(message) => {
            Rehearsed::Refused(ModuleRefusal::Found { reason: Reason::RehearsalFailed, message })
        }
        TemplateRun::NotBuilt(why) => {
            Rehearsed::NotRun(format!("the template on DatabaseServer {name:?} is tried again: {why}"))
        }
    }
}

/// The servers that are ready, by name.
fn ready_servers(context: &Context) -> Vec<(String, Server)> {
    let mut names: Vec<String> =
        context.stores.database_servers.state().iter().map(|server| server.name_any()).collect();
    names.sort_unstable();
    let ready = |name: String| match context.state.servers.get(&name) {
        ServerState::Ready(server) => Some((name, server)),
        ServerState::NotReady { .. } | ServerState::Unchecked => None,
    };
    names.into_iter().filter_map(ready).collect()
}

fn refused(report: &Rehearsal) -> Option<ModuleRefusal> {
    let findings: Vec<&RehearsalFinding> = report.refusals().collect();
    let reason = match findings.first()?.class {
        FindingClass::SqlFailed => Reason::RehearsalFailed,
        FindingClass::OutsideSchema
        | FindingClass::Rights
        | FindingClass::Destructive
        | FindingClass::Note => Reason::UnsafeMigration,
    };
    let mut message: Vec<String> = findings.iter().take(SHOWN).map(ToString::to_string).collect();
    if findings.len() > SHOWN {
        message.push(format!("and {} more", findings.len() - SHOWN));
    }
    Some(ModuleRefusal::Found { reason, message: message.join("; ") })
}

fn status(report: &Rehearsal, server: String, at: Timestamp) -> RehearsalStatus {
    let locks = report.files.iter().flat_map(|file| {
        file.locks.iter().map(|lock| format!("{}: {} ({})", lock.relation, lock.mode, file.file))
    });
    RehearsalStatus {
        at: Some(Time(Timestamp::from_second(at.as_second()).unwrap_or(at))),
        server: Some(server),
        files: report.files.iter().map(|file| file.file.clone()).collect(),
        duration_millis: i64::try_from(report.duration_millis()).unwrap_or(i64::MAX),
        statements: i64::from(report.statements()),
        locks: locks.collect(),
        rewritten_bytes: report.rewritten_bytes(),
        destructive: report.destructive().map(ToString::to_string).collect(),
    }
}
