//! Reads the sources of all modules when something changed, checks new content, has it rehearsed, and offers what is accepted
//! to the tenants. Quiet times lead to no request and no query.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::ResourceExt;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    built_in::{apply_built_in, record_schemas},
    rehearsal::{Rehearsed, rehearse},
    source::{SourceModule, kind, kind_of, read},
    wake::wake_tenants,
};
use crate::{
    api::{module_image::ModuleImageStatus, tenant_module::TenantModule},
    controller::{
        context::{Context, SharedContext},
        state::{images::ImageState, modules::RehearsedContent},
    },
    domain::{
        backoff,
        module_graph::{self, Dependencies},
        module_refusal::{
            ModuleRefusal, check_beside_operator, check_minimums, check_name, minimum_versions,
        },
        module_status::{ContentState, ModuleReport},
        modules::with_dependencies,
    },
    modules::{
        BuiltInState, Module, ModuleKind, OfferedModule,
        acceptance::{follows, refused_built_in},
    },
    registry,
};

/// How often directories are read.
const DIRECTORY_PERIOD: Duration = Duration::from_secs(60);

/// A TenantModule whose source was read.
struct Candidate {
    object: Arc<TenantModule>,
    /// Its content, or what is shown instead.
    source: Result<SourceModule, ContentState>,
    /// What was accepted before, if the source still has it.
    accepted: Option<Arc<Module>>,
    report: ModuleReport,
}

/// Reads what was accepted before, and offers what is unchanged: tenants must not be made without it.
///
/// # Errors
/// The registry's.
pub async fn prepare(context: &SharedContext) -> registry::Result<()> {
    context.state.modules.read_registry(context.registry.accepted_modules().await?);
    record_schemas(context).await?;
    evaluate_all(context, false).await;
    Ok(())
}

/// Evaluates whenever something changed, until it is dropped.
pub async fn run(context: SharedContext) {
    let mut failures = 0;
    loop {
        let listed = apply_built_in(&context).await;
        let forgotten = forget_deleted(&context).await;
        let evaluated = evaluate_all(&context, true).await;
        failures = if listed && forgotten && evaluated { 0 } else { failures + 1 };
        let wait = match failures {
            0 if has_directories(&context) => DIRECTORY_PERIOD,
            0 => Duration::MAX,
            _ => backoff::temporary(failures, rand::random()),
        };
        let _ = timeout(wait, context.state.modules.sources_changed.notified()).await;
    }
}

fn has_directories(context: &Context) -> bool {
    context.stores.tenant_modules.state().iter().any(|module| module.spec.source.directory.is_some())
}

/// Forgets what was accepted of modules that were deleted, and that no tenant has. Returns whether every query succeeded.
async fn forget_deleted(context: &Context) -> bool {
    let mut done = true;
    for name in context.state.modules.accepted_names() {
        let is_there = |module: &Arc<TenantModule>| module.name_any() == name;
        if context.modules.built_in(&name).is_some()
            || context.stores.tenant_modules.state().iter().any(is_there)
        {
            continue;
        }
        match context.registry.forget_module(&name).await {
            Ok(true) => context.state.modules.forget(&name),
            Ok(false) => {}
            Err(error) => {
                warn!(module = name, %error, "could not forget a deleted module");
                done = false;
            }
        }
    }
    done
}

/// Evaluates all modules. Returns whether nothing has to be tried again.
async fn evaluate_all(context: &SharedContext, rehearses: bool) -> bool {
    let candidates = candidates(context).await;
    let dependencies: Dependencies = candidates
        .iter()
        .filter(|(_, candidate)| candidate.object.spec.source.built_in.is_none())
        .map(|(name, candidate)| (name.clone(), candidate.object.spec.depends_on.clone()))
        .collect();
    let built_in: Vec<String> = context.modules.built_in_names().map(str::to_owned).collect();
    let (order, misplaced) = module_graph::sort(&dependencies, &built_in);
    let refused_built_in =
        refused_built_in(context.modules.built_in_modules(), |name| context.state.modules.schema(name));
    let states = BTreeMap::new();
    let mut evaluation =
        Evaluation { context, candidates: &candidates, refused_built_in, states, done: true };
    for (name, candidate) in &candidates {
        let state = match (&candidate.source, misplaced.get(name)) {
            (Err(state), _) => state.clone(),
            (_, Some(refusal)) => ContentState::Refused(refusal.clone()),
            (Ok(_), None) if candidate.object.spec.source.built_in.is_some() => {
                let refusal = evaluation.refused_built_in.get(name).cloned();
                refusal.map_or(ContentState::Accepted, ContentState::Refused)
            }
            // Until its turn comes.
            (Ok(_), None) => ContentState::Rehearsing("its content is being checked".to_owned()),
        };
        evaluation.states.insert(name.clone(), state);
    }
    for name in &order {
        let is_read = candidates.get(name).is_some_and(|candidate| candidate.source.is_ok());
        if is_read && matches!(evaluation.states.get(name), Some(ContentState::Rehearsing(_))) {
            let state = evaluation.evaluate(name, &order, rehearses).await;
            evaluation.states.insert(name.clone(), state);
        }
    }
    evaluation.publish(&order);
    evaluation.done
}

async fn candidates(context: &Context) -> BTreeMap<String, Candidate> {
    let mut candidates = BTreeMap::new();
    for object in context.stores.tenant_modules.state() {
        let (name, spec) = (object.name_any(), &object.spec);
        let refused = |refusal| Err((ContentState::Refused(refusal), None));
        let mut still_accepted = None;
        let image = spec.source.image.as_ref().map(|image| context.state.images.state(&name, image));
        let mut read_from = None;
        let source = match (context.modules.built_in(&name), spec.source.built_in.is_some()) {
            (Some(module), true) => Ok(SourceModule { newest: module.target(), module: module.clone() }),
            (Some(_), false) => refused(ModuleRefusal::NameTaken(name.clone())),
            (None, true) => refused(ModuleRefusal::NotBuiltIn(name.clone())),
            (None, false) => match (check_name(&name), &image) {
                (Err(refusal), _) => refused(refusal),
                (Ok(()), Some(ImageState::Pulling)) => {
                    Err((ContentState::Rehearsing("its image is being pulled".to_owned()), None))
                }
                (Ok(()), Some(ImageState::Failed(refusal))) => {
                    Err((ContentState::Unavailable(refusal.clone()), None))
                }
                (Ok(()), image) => {
                    let pulled = match image {
                        Some(ImageState::Pulled(image)) => Some(image.as_ref()),
                        _ => None,
                    };
                    read_from = pulled.map(|image| image.digest.clone());
                    let namespace = &context.config.operator_namespace;
                    let accepted = context.state.modules.accepted(&name);
                    let config_maps = &context.stores.config_maps;
                    let read = read(&name, spec, pulled, config_maps, namespace, accepted.as_ref()).await;
                    still_accepted = read.accepted.map(Arc::new);
                    read.newest.map_err(|(refusal, newest)| (ContentState::Refused(refusal), newest))
                }
            },
        };
        let latest = match &source {
            Ok(source) => Some(source.newest),
            Err((_, newest)) => *newest,
        };
        let image = spec.source.image.as_ref().zip(read_from);
        let report = ModuleReport {
            generation: object.metadata.generation,
            kind: kind(&spec.source),
            latest,
            image: image
                .map(|(source, digest)| ModuleImageStatus { reference: source.reference.clone(), digest }),
            content: ContentState::Accepted,
        };
        let source = source.map_err(|(state, _)| state);
        candidates.insert(name, Candidate { object, source, accepted: still_accepted, report });
    }
    candidates
}

/// One evaluation of all modules.
struct Evaluation<'a> {
    context: &'a SharedContext,
    candidates: &'a BTreeMap<String, Candidate>,
    refused_built_in: BTreeMap<String, ModuleRefusal>,
    states: BTreeMap<String, ContentState>,
    done: bool,
}

impl Evaluation<'_> {
    /// Evaluates a module whose files were read. Those that it depends on were evaluated before.
    async fn evaluate(&mut self, name: &str, order: &[String], rehearses: bool) -> ContentState {
        let Some((candidate, source)) = self
            .candidates
            .get(name)
            .and_then(|candidate| Some((candidate, candidate.source.as_ref().ok()?)))
        else {
            return ContentState::Rehearsing("its source was not read yet".to_owned());
        };
        let config = &self.context.config;
        if let Some(job) = &candidate.object.spec.source.job
            && config.migration_namespace == config.operator_namespace
            && let Err(refusal) = check_beside_operator(job, &config.operator_namespace)
        {
            return ContentState::Refused(refusal);
        }
        for dependency in &source.module.depends_on {
            if self
                .candidates
                .get(dependency)
                .is_some_and(|candidate| kind_of(&candidate.object.spec) == ModuleKind::External)
            {
                return ContentState::Refused(ModuleRefusal::DependsOnExternal {
                    dependency: dependency.clone(),
                });
            }
            let is_refused = match self.context.modules.built_in(dependency) {
                Some(_) => self.refused_built_in.contains_key(dependency),
                None => matches!(self.states.get(dependency), Some(ContentState::Refused(_))),
            };
            match self.states.get(dependency) {
                _ if is_refused => {
                    let dependency = dependency.clone();
                    return ContentState::Refused(ModuleRefusal::DependencyNotReady { dependency });
                }
                Some(ContentState::Rehearsing(_) | ContentState::Unavailable(_)) => {
                    return ContentState::Rehearsing(format!("it waits for module {dependency:?}"));
                }
                _ => {}
            }
        }
        let minimums = minimum_versions(&candidate.object.spec.minimum_versions);
        let version_of = |name: &str| Some(self.candidates.get(name)?.source.as_ref().ok()?.module.target());
        if let Err(refusal) = check_minimums(&minimums, version_of) {
            return ContentState::Refused(refusal);
        }
        let accepted = self.context.state.modules.accepted(name);
        let rehearsed = match &accepted {
            None => 0,
            Some(accepted) => match follows(&source.module, source.newest, accepted) {
                Ok(rehearsed) => rehearsed,
                Err(refusal) => return ContentState::Refused(refusal),
            },
        };
        let digest = source.module.digest();
        if accepted.is_some_and(|accepted| accepted.digest == digest) {
            return ContentState::Accepted;
        }
        // Another image is another attempt at the same version.
        let job = candidate.object.spec.source.job.as_ref().and_then(|job| serde_json::to_string(job).ok());
        let content = RehearsedContent {
            digest: digest + job.as_deref().unwrap_or_default(),
            allow_destructive: candidate.object.spec.allow_destructive == Some(true),
            dependencies: self.dependencies_of(&source.module),
        };
        if let Some(refusal) = self.context.state.modules.refusal(name, &content) {
            return ContentState::Refused(refusal);
        }
        if !rehearses {
            return ContentState::Rehearsing("it was not rehearsed yet".to_owned());
        }
        // A rehearsal may take long: what is known is offered and shown before it.
        self.publish(order);
        let outcome = rehearse(&source.module, rehearsed, content.allow_destructive, self.context).await;
        self.conclude(name, &source.module, content, outcome).await
    }

    /// Records how a rehearsal ended.
    async fn conclude(
        &mut self,
        name: &str,
        module: &Module,
        content: RehearsedContent,
        outcome: Rehearsed,
    ) -> ContentState {
        let why = match outcome {
            Rehearsed::Passed(rehearsal) => {
                let mut accepted = module.accepted();
                accepted.rehearsal = Some(*rehearsal);
                match self.context.registry.accept_module(&accepted).await {
                    Ok(()) => {
                        info!(module = name, version = accepted.version, "accepted the content of a module");
                        self.context.state.modules.accept(accepted);
                        return ContentState::Accepted;
                    }
                    Err(error) => format!("it could not be recorded and is tried again: {error}"),
                }
            }
            Rehearsed::Refused(refusal) => {
                info!(module = name, %refusal, "refused the content of a module");
                self.context.state.modules.refuse(name, content, refusal.clone());
                return ContentState::Refused(refusal);
            }
            Rehearsed::Running(what) => return ContentState::Rehearsing(what),
            Rehearsed::NotRun(why) => why,
        };
        warn!(module = name, why, "a module waits for its rehearsal");
        self.done = false;
        ContentState::Rehearsing(why)
    }

    fn dependencies_of(&self, module: &Module) -> String {
        let known = self.context.modules.known();
        let before = with_dependencies(&module.depends_on, known.list());
        self.context.modules.set_of(&before).digest().to_owned()
    }

    /// Offers what is accepted to the tenants, and shows what became of each module.
    fn publish(&self, order: &[String]) {
        let known = self.context.modules.known();
        let was_accepted = |name: &str| self.context.state.modules.accepted(name).is_some();
        let built_in_there =
            self.context.modules.built_in_names().filter(|name| !self.refused_built_in.contains_key(*name));
        let mut are_there: BTreeSet<String> = built_in_there.map(str::to_owned).collect();
        let offer = |name: &String| {
            let candidate = self.candidates.get(name)?;
            let needs = &candidate.object.spec.depends_on;
            // What was accepted before stays while the next version is read and rehearsed, and when that is refused.
            let accepted =
                || candidate.accepted.clone().filter(|_| needs.iter().all(|name| are_there.contains(name)));
            let content = match (self.states.get(name)?, &candidate.source) {
                (ContentState::Accepted, Ok(source)) => Some(Arc::new(source.module.clone())),
                (ContentState::Rehearsing(_) | ContentState::Unavailable(_), _) => {
                    known.module(name).cloned().or_else(accepted)
                }
                (ContentState::Refused(refusal), _) if refusal.is_of_new_content() => accepted(),
                _ => None,
            };
            if content.is_some() {
                are_there.insert(name.clone());
            }
            let content = content.ok_or_else(|| was_accepted(name));
            let (depends_on, is_default) =
                (candidate.object.spec.depends_on.clone(), candidate.object.spec.default == Some(true));
            let minimum_versions = minimum_versions(&candidate.object.spec.minimum_versions);
            let kind = kind_of(&candidate.object.spec);
            Some(OfferedModule {
                name: name.clone(),
                depends_on,
                minimum_versions,
                is_default,
                kind,
                content,
            })
        };
        let misplaced = self.candidates.keys().filter(|name| !order.contains(name));
        let offered: Vec<OfferedModule> = order.iter().chain(misplaced).filter_map(offer).collect();
        let built_in = self.context.modules.built_in_names().map(|name| {
            let spec = self.candidates.get(name).map(|candidate| &candidate.object.spec);
            let spec = spec.filter(|spec| spec.source.built_in.is_some());
            let is_refused = self.refused_built_in.contains_key(name);
            (name.to_owned(), BuiltInState { is_default: spec.and_then(|spec| spec.default), is_refused })
        });
        let changed = self.context.modules.replace(&built_in.collect(), offered);
        let reports = self.candidates.iter().filter_map(|(name, candidate)| {
            // Its image is being pulled: the status that it has stays for so long.
            if matches!(candidate.source, Err(ContentState::Rehearsing(_)))
                && candidate.object.status.is_some()
            {
                return None;
            }
            let content = self.states.get(name)?.clone();
            Some((name.clone(), ModuleReport { content, ..candidate.report.clone() }))
        });
        self.context.state.modules.report(reports.collect());
        if !changed.is_empty() {
            wake_tenants(&changed.into_iter().collect::<BTreeSet<_>>(), self.context);
        }
    }
}
